import multiprocessing
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from peppp import Configuration, Footprint, Measurement, Outcome, Recipe
from peppp.errors import PepppError, StoreError, TableError
from peppp.table.columns import COLUMNS, from_record, to_record
from peppp.table.measured import error_matrix
from peppp.table.store import database, schema
from peppp.table.store.store import SCHEMA_VERSION, Store

MEASURED = Measurement(
    task="digits",
    fingerprint="d1",
    group="uci",
    configuration=Configuration.parse("1-4-1/1-6-7"),
    recipe=Recipe(),
    seed=3,
    chance_error=0.9,
    test_error=1 / 3,
    train_error=0.1,
    curve=((1, 0.5), (10, 1 / 3)),
    footprint=Footprint(10, 20, 30, {"momentum": 30}, 5, 6),
    outcome=Outcome.FINISHED,
    seconds=2.5,
    provenance={"torch": "2.13.0"},
)


def sql(path, statement):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what a store does, in a file, in memory and in PostgreSQL alike


OTHERS = [
    replace(MEASURED, seed=4, outcome=Outcome.DIVERGED, curve=(), provenance={}),
    replace(MEASURED, recipe=Recipe(rounding="nearest")),
    replace(MEASURED, configuration=Configuration.parse("fp32/fp32")),
    replace(MEASURED, repeat=1),
    replace(MEASURED, task="other \u00e9 % 'name'", fingerprint="d2", test_error=5e-324, seconds=1e300),
]


def test_a_store_gives_back_what_it_was_given(place):
    with Store.open(place) as store:
        assert all(store.add(measurement) for measurement in [MEASURED, *OTHERS])
        assert store.measurements() == [MEASURED, *OTHERS]
        assert store.keys() == {measurement.key for measurement in [MEASURED, *OTHERS]}


def test_a_store_opened_again_holds_it_still(shared_place):
    with Store.open(shared_place) as store:
        assert store.add_all([MEASURED, *OTHERS]) == 6
    with Store.open(shared_place, create=False) as store:
        assert store.measurements() == [MEASURED, *OTHERS]


def test_a_file_stands_alone_once_closed(tmp_path):
    with Store.open(tmp_path / "runs.db") as store:
        store.add(MEASURED)
    assert files(tmp_path) == ["runs.db"]


def test_a_key_is_stored_once_and_never_changed(place):
    with Store.open(place) as store:
        assert store.add(MEASURED)
        assert not store.add(replace(MEASURED, test_error=0.9, task="another name"))
        assert store.add_all([MEASURED, OTHERS[0], OTHERS[0]]) == 1
        assert store.measurements() == [MEASURED, OTHERS[0]]


def test_a_measurement_is_there_for_others_at_once(shared_place):
    with Store.open(shared_place) as store, Store.open(shared_place) as other:
        store.add(MEASURED)
        assert other.keys() == {MEASURED.key}


def test_store_and_text_table_hold_the_same_fields():
    assert {*schema.measurements.columns.keys(), "recipe"} == {*COLUMNS, "id"}


def test_what_could_not_be_read_again_is_not_stored(place):
    with Store.open(place) as store:
        with pytest.raises(TableError, match="column test_error: 'nan' is not a fraction"):
            store.add_all([OTHERS[0], replace(MEASURED, test_error=float("nan"))])
        assert store.keys() == set()


def test_how_long_measurements_took(place):
    with Store.open(place) as store:
        store.add_all([replace(MEASURED, seed=seed, seconds=2.0**seed) for seed in range(3)])
        assert store.seconds() == {("d1", MEASURED.recipe.digest): (3, pytest.approx(7 / 3), 4.0)}


def test_readers_never_block_a_run_and_see_whole_measurements(shared_place):
    with Store.open(shared_place) as store, Store.open(shared_place, create=False) as reader:
        store.add_all([MEASURED, *OTHERS])
        reading = iter(reader)
        first = next(reading)
        assert store.add(replace(MEASURED, seed=99))
        assert [first, *reading] == [MEASURED, *OTHERS]  # as it was when the reading began
        assert len(reader.keys()) == 7


def test_a_spoilt_row_is_named(tmp_path):
    with Store.open(tmp_path / "runs.db") as store:
        store.add(MEASURED)
        sql(tmp_path / "runs.db", "UPDATE measurements SET curve = 'spoilt'")
        with pytest.raises(TableError, match=r"runs\.db, measurement 1, column curve: 'spoilt' is not JSON"):
            store.measurements()


def test_a_store_of_version_1_opens_and_reads_alike(tmp_path):
    """Written once by fixtures/make_store_v1.py; people's stores must open for ever."""
    path = tmp_path / "old.db"
    shutil.copy(Path(__file__).parent / "fixtures" / "store_v1.db", path)
    plain = '"arithmetic_version":1,"augmentation":"none","batch_size":32,"epochs":10,'
    recipe = (
        '{"accumulator":true,' + plain + '"error_format":"A","learning_rate":0.001,"loss":"cross_entropy",'
        '"min_steps":0,"network":"resnet8","optimizer":"sgd","optimizer_options":[["momentum",0.9],'
        '["weight_decay",0.0005]],"resolution":0,"rounding":"stochastic"}'
    )
    other_recipe = (
        '{"accumulator":false,' + plain + '"error_format":"B","learning_rate":0.01,"loss":"cross_entropy",'
        '"min_steps":0,"network":"resnet18","optimizer":"sgd","optimizer_options":[["momentum",0.0]],'
        '"resolution":32,"rounding":"nearest"}'
    )
    finished = {
        "task": "synthetic-digits",
        "fingerprint": "synthetic-f1",
        "group": "synthetic-source",
        "configuration": "1-4-1/1-6-7",
        "recipe_digest": "a5de77e3782a888c",
        "seed": 0,
        "repeat": 0,
        "outcome": "finished",
        "test_error": 0.125,
        "train_error": 0.1,
        "chance_error": 0.9,
        "curve": "[[1,0.5],[3,0.25],[10,0.125]]",
        "seconds": 2.5,
        "weights": 100,
        "activations": 2000,
        "gradients": 300,
        "states": '{"accumulator":300,"momentum":300}',
        "raw": 16,
        "working": 4096,
        "recipe": recipe,
        "provenance": '{"processor":"synthetic, \\"quoted\\" \\u00e9","torch":"2.13.0"}',
    }
    diverged = finished | {
        "task": "synthetic-letters",
        "fingerprint": "synthetic-f2",
        "configuration": "1-4-3@ocp/1-8-11",
        "recipe_digest": "e918b733e3c8dab8",
        "recipe": other_recipe,
        "seed": 7,
        "repeat": 1,
        "outcome": "diverged",
        "test_error": 0.75,
        "train_error": 0.75,
        "chance_error": 0.75,
        "curve": "[]",
        "seconds": 0.1,
        "weights": 1,
        "activations": 2,
        "gradients": 3,
        "states": "{}",
        "raw": 0,
        "working": 0,
        "provenance": "{}",
    }
    reference = finished | {
        "configuration": "fp32/fp32",
        "test_error": 1 / 3,
        "train_error": 0.0,
        "curve": "[[10,0.3333333333333333]]",
        "seconds": 1e-05,
        "weights": 10**12,
        "activations": 0,
        "gradients": 0,
        "states": '{"momentum":0}',
        "raw": 0,
        "working": 0,
        "provenance": "{}",
    }
    with Store.open(path) as store:
        measurements = store.measurements()
        assert [to_record(measurement) for measurement in measurements] == [finished, diverged, reference]
        assert measurements == [from_record(record, "") for record in (finished, diverged, reference)]
        assert store.keys() == {
            ("synthetic-f1", "1-4-1/1-6-7", "a5de77e3782a888c", 0, 0),
            ("synthetic-f2", "1-4-3@ocp/1-8-11", "e918b733e3c8dab8", 7, 1),
            ("synthetic-f1", "fp32/fp32", "a5de77e3782a888c", 0, 0),
        }
        assert store.add(MEASURED)
        assert not store.add(measurements[0])


def test_a_store_of_version_1_is_brought_to_this_one(tmp_path):
    path = tmp_path / "old.db"
    shutil.copy(Path(__file__).parent / "fixtures" / "store_v1.db", path)
    before = sql(path, "SELECT * FROM measurements")
    Store.open(path).close()
    assert sql(path, "SELECT * FROM peppp_store") == [(SCHEMA_VERSION,)]
    assert sql(path, "SELECT * FROM measurements") == before
    Store.open(tmp_path / "new.db").close()
    schemas = [
        set(sql(tmp_path / name, "SELECT type, name, tbl_name FROM sqlite_master"))
        for name in ("old.db", "new.db")
    ]
    assert schemas[0] == schemas[1]


def test_a_store_of_version_1_can_be_read_as_it_is(tmp_path):
    path = tmp_path / "old.db"
    shutil.copy(Path(__file__).parent / "fixtures" / "store_v1.db", path)
    before = path.read_bytes()
    with Store.open(path, create=False) as store:
        assert store.version == 1
        assert len(store.measurements()) == 3
        assert error_matrix(store.measurements()).values.shape == (2, 2)
        assert len(store.seconds()) == 2
    assert path.read_bytes() == before


def test_the_steps_between_versions_are_the_same_in_postgresql(postgres):
    with Store.open(postgres) as store:
        store.add(MEASURED)
        with store.writing() as connection:  # as version 1 was
            schema.cells.drop(connection)
            for index in schema.measurements.indexes:
                index.drop(connection)
            connection.exec_driver_sql("UPDATE peppp_store SET schema_version = 1")
    with Store.open(postgres, create=False) as store:
        assert (store.version, store.measurements()) == (1, [MEASURED])
    with Store.open(postgres) as store:
        assert (store.version, store.measurements()) == (SCHEMA_VERSION, [MEASURED])
        assert store.add(OTHERS[0])
        with store.reading() as connection:
            assert schema.version(connection) == SCHEMA_VERSION


# --- several processes


def write_some(job):
    path, start = job
    with Store.open(path) as store:  # the first of them makes it
        return [store.add(replace(MEASURED, seed=seed)) for seed in range(start, start + 20)]


def test_four_processes_write_at_once_and_nothing_is_stored_twice(shared_place):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        added = pool.map(write_some, [(shared_place, start) for start in (0, 10, 20, 0)], chunksize=1)
        pool.close()
        pool.join()
    assert sum(map(sum, added)) == 40
    with Store.open(shared_place) as store:
        assert sorted(m.seed for m in store) == list(range(40))
    if "://" not in shared_place:
        path = Path(shared_place)
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
        assert sql(path, "PRAGMA journal_mode") == [("wal",)]
        assert sql(path, "SELECT * FROM peppp_store") == [(SCHEMA_VERSION,)]
        assert files(path.parent) == ["runs.db"]


def test_a_store_that_another_process_made_meanwhile_is_taken(tmp_path):
    path = tmp_path / "runs.db"
    with Store.open(path) as store:
        store.add(MEASURED)
    database._create_file(path)
    with Store.open(path) as store:
        assert store.keys() == {MEASURED.key}
    assert files(tmp_path) == ["runs.db"]


def test_a_file_system_without_hard_links_holds_a_store(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with Store.open(tmp_path / "runs.db") as store:
        assert store.add(MEASURED)
    assert files(tmp_path) == ["runs.db"]


def test_a_writer_that_waits_too_long_says_so(tmp_path, monkeypatch):
    path = tmp_path / "runs.db"
    monkeypatch.setattr(database, "_PATIENCE", 0.01)
    with Store.open(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"runs\.db: database is locked"):
            store.add(MEASURED)
        assert store.keys() == set()  # readers never wait
        other.execute("ROLLBACK")
        assert store.add(MEASURED)


# --- what is no store


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\x00" + b"?" * 4096])
def test_a_file_that_is_no_store_is_refused_untouched(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"notes\.txt is not a store") as caught:
        Store.open(path)
    one_line(caught)
    assert path.read_bytes() == content
    assert files(tmp_path) == ["notes.txt"]


def test_a_damaged_store_is_said_to_be_so(tmp_path):
    path = tmp_path / "runs.db"
    with Store.open(path) as store:
        store.add_all([MEASURED, *OTHERS])
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)  # what a disk may leave of all pages but the first
    path.write_bytes(content)
    damaged = "the file is damaged: restore a backup, or give a new name"
    with pytest.raises(StoreError, match=damaged), Store.open(path) as store:
        store.measurements()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_of_something_else_is_refused_untouched(tmp_path, mode):
    path = tmp_path / "browser.db"
    sql(path, f"PRAGMA journal_mode={mode}")
    sql(path, "CREATE TABLE measurements (x)")
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=r"browser\.db is not a store of peppp and was not changed"
    ) as caught:
        Store.open(path)
    one_line(caught)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["browser.db"]


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "runs.db"
    Store.open(path).close()
    sql(path, f"UPDATE peppp_store SET schema_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=r"newer peppp .* upgrade peppp") as caught:
        Store.open(path)
    one_line(caught)


def test_a_store_without_its_version_is_refused(tmp_path):
    path = tmp_path / "runs.db"
    Store.open(path).close()
    sql(path, "DELETE FROM peppp_store")
    with pytest.raises(StoreError, match="cannot open the store"):
        Store.open(path)


def test_no_file_is_made_where_there_is_no_folder_or_none_was_wanted(tmp_path):
    with pytest.raises(StoreError, match=r"there is no folder .*missing; create it first"):
        Store.open(tmp_path / "missing" / "runs.db")
    with pytest.raises(StoreError, match=r"there is no store .*runs\.db"):
        Store.open(tmp_path / "runs.db", create=False)
    with pytest.raises(StoreError, match="is a folder, not a store"):
        Store.open(tmp_path)
    assert not files(tmp_path)


def test_no_file_is_left_where_a_store_could_not_be_finished(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(schema, "create", full)
    with pytest.raises(StoreError, match=r"cannot make the store .*runs\.db: No space left on device"):
        Store.open(tmp_path / "runs.db")
    assert not files(tmp_path)


def test_a_folder_that_cannot_be_written_holds_no_store(tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere but here
        folder = Path("/sys")
        if not folder.is_dir():
            pytest.skip("needs a folder that this user cannot write")
    with pytest.raises(
        StoreError, match=r"cannot make the store .*runs\.db: .*not permitted|denied|read-only"
    ):
        Store.open(folder / "runs.db")


def test_a_store_that_cannot_be_written_says_so_before_anything_is_measured(tmp_path, monkeypatch):
    path = tmp_path / "runs.db"
    with Store.open(path) as store:
        store.add(MEASURED)
    engine_of = database.engine_of
    # Read-only by address, as root may write to any file.
    monkeypatch.setattr(
        database,
        "engine_of",
        lambda url: engine_of(url.set(database=f"file:{path}", query={"mode": "ro", "uri": "true"})),
    )
    with pytest.raises(StoreError, match=r"cannot open the store .*readonly database") as caught:
        Store.open(path)
    one_line(caught)
    with Store.open(path, create=False) as store:
        assert store.keys() == {MEASURED.key}
        with pytest.raises(StoreError, match=r"cannot write to the store .*readonly database"):
            store.add(replace(MEASURED, seed=9))


def test_urls_are_passed_on_and_passwords_never_shown(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/runs.db") as store:
        assert store.add(MEASURED)
    for url in ("mysql://me:secret@host/x", "://me:secret@host", "postgresql+nodriver://me:secret@host/x"):
        with pytest.raises(PepppError) as caught:
            Store.open(url)
        assert "secret" not in one_line(caught)
    assert files(tmp_path) == ["runs.db"]


def test_a_postgresql_that_is_not_there_is_named_without_its_password():
    with pytest.raises(StoreError, match=r"cannot open the store postgresql://me:\*\*\*@") as caught:
        Store.open("postgresql://me:secret@127.0.0.1:9/none?connect_timeout=2")
    assert "secret" not in one_line(caught)


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'peppp\[postgres\]'") as caught:
        Store.open("postgresql://me:secret@127.0.0.1:9/none")
    assert "secret" not in one_line(caught)


MOUNTS = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:40 / /mnt/my\\040home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /mnt/my\\040home/scratch rw - xfs /dev/sdb rw
32 21 0:42 / /lab rw - fuse.sshfs me@server:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/x/runs.db", "ext4"),
        ("/mnt/my home/runs.db", "nfs4"),
        ("/mnt/my home/scratch/runs.db", "xfs"),
        ("/mnt/my homes/runs.db", "ext4"),
        ("/lab/a/b/runs.db", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(tmp_path, monkeypatch, path, kind):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(database, "_MOUNTS", tmp_path / "mountinfo")
    assert database._file_system(Path(path)) == kind


@pytest.mark.parametrize("create", [True, False])
def test_a_network_file_system_is_refused_with_the_reason(tmp_path, monkeypatch, create):
    Store.open(tmp_path / "there.db").close()
    (tmp_path / "mountinfo").write_text(f"1 0 0:1 / {tmp_path.resolve()} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(database, "_MOUNTS", tmp_path / "mountinfo")
    for name in ("there.db", "new.db"):
        with pytest.raises(StoreError, match=r"network file system \(nfs4\).*locks.*PostgreSQL") as caught:
            Store.open(tmp_path / name, create=create)
        one_line(caught)
    assert not (tmp_path / "new.db").exists()


def test_a_full_disk_is_said_in_one_line_and_nothing_half_written(tmp_path):
    path = tmp_path / "runs.db"
    with Store.open(path) as store:
        store.add(MEASURED)
        with store.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        event.listen(
            store.engine, "checkout", lambda c, *_: c.execute(f"PRAGMA max_page_count={pages}") and None
        )
        big = [replace(MEASURED, seed=seed, provenance={"note": "x" * 200}) for seed in range(100, 400)]
        with pytest.raises(
            StoreError, match=r"cannot write to the store .*runs\.db: database or disk is full"
        ):
            store.add_all(big)
        assert store.measurements() == [MEASURED]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
