"""Rows of arithmetic version 1 go on serving where version 2 repeats them, and nowhere else."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from peppp import Configuration, Footprint, Measurement, Outcome, Recipe, paper_grid, pick
from peppp.arithmetic import current, current_recipe, outdated
from peppp.campaign.cells import Cell
from peppp.campaign.queue import Queue
from peppp.campaign.runner import run_campaign
from peppp.cli import app
from peppp.errors import TableError
from peppp.lowprec.network.convolutions import holds_narrow
from peppp.records import ARITHMETIC_VERSION
from peppp.table.csv import write_table
from peppp.table.measured import error_matrix
from peppp.table.select import SHIPPED_TABLE, open_table, read_current, read_measurements
from peppp.table.slices import largest_slice
from peppp.table.store.schema import cells
from peppp.table.store.store import Store
from peppp.tasks.networks import NETWORKS, build

OLD = Recipe(arithmetic_version=1)
GRID = Configuration.parse("1-4-1/1-6-7")


def row(configuration="1-4-1/1-6-7", error=0.25, task="digits", recipe=OLD, seed=0):
    return Measurement(
        task=task,
        fingerprint=task,
        group=task,
        configuration=Configuration.parse(configuration),
        recipe=recipe,
        seed=seed,
        chance_error=0.9,
        test_error=error,
        train_error=error,
        curve=(),
        footprint=Footprint(1000, 1000, 1000, {}),
        outcome=Outcome.FINISHED,
        seconds=2.0,
    )


def holds(recipe=OLD, configuration="1-4-1/1-6-7"):
    return current_recipe(recipe, Configuration.parse(configuration)).arithmetic_version == ARITHMETIC_VERSION


NAMES = [
    *NETWORKS,
    *(f"resnet{depth}-w{width}" for depth in (8, 18) for width in (1, 4, 8, 15, 16, 17, 32)),
    *("vgg11-w4", "mlp-w8", "transformer-w8"),
]


@pytest.mark.parametrize("name", NAMES)
def test_named_networks_hold_unless_a_convolution_of_theirs_was_computed_wrong(name):
    assert holds(replace(OLD, network=name)) == (not holds_narrow(build(name, classes=10)))


def test_the_networks_that_people_bring_do_not_hold():
    assert not holds(replace(OLD, network="package.module:factory"))


@pytest.mark.parametrize("configuration", [*map(str, paper_grid()), "fp32/fp32"])
def test_every_format_of_the_grid_holds(configuration):
    assert holds(configuration=configuration)


@pytest.mark.parametrize(
    ("configuration", "change", "expected"),
    [
        ("1-5-10/1-5-10", {}, False),  # float16's subnormals begin at 2^-14
        ("1-5-10/1-5-10", {"rounding": "nearest"}, True),
        ("1-4-4/1-5-12", {}, False),
        ("1-4-4/1-6-9", {"error_format": "1-5-8"}, False),
        ("1-4-4/1-6-9", {"error_format": "B"}, True),
        ("1-8-7@ieee/fp32", {}, True),
        ("int8/1-6-9", {}, False),
        ("mx-1-4-3/32/1-6-9", {"rounding": "nearest"}, False),
        (
            "1-4-4/1-5-12",
            {"rounding": "values=stochastic,errors=stochastic,gradient=nearest,states=nearest"},
            True,
        ),
    ],
)
def test_other_formats_hold_where_no_subnormal_could_round_otherwise(configuration, change, expected):
    assert holds(replace(OLD, **change), configuration) is expected


def test_a_row_of_today_stays_itself_and_one_from_a_newer_version_is_not_taken_for_it():
    today, newer = row(recipe=Recipe()), row(recipe=Recipe(arithmetic_version=ARITHMETIC_VERSION + 1))
    assert current(today) is today
    assert current(newer) is newer
    assert outdated([today, newer, row(), row(recipe=replace(OLD, network="a:b"))]) == 2


def test_rows_of_both_versions_meet_in_one_row_of_the_matrix():
    matrix = error_matrix([row(), row("1-4-2/1-6-7", 0.5, recipe=Recipe())])
    assert len(matrix.rows) == 1
    assert matrix.rows[0].recipe == Recipe()


class Idle:
    """An engine that must not be asked for anything."""

    slots = 1

    def submit(self, cell, limit=None):
        raise AssertionError(f"{cell} was measured again")

    def results(self, timeout):
        return []

    def close(self):
        pass


def test_a_campaign_finds_its_cells_measured_under_the_older_version(tmp_path):
    cells = [
        Cell("digits", "digits", "digits", Configuration.parse(text), Recipe()) for text in ("1-4-1/1-6-7",)
    ]
    with Store.open(tmp_path / "runs.db") as store:
        store.add_all([row(), row(recipe=replace(OLD, network="own:net")), row(seed=1)])
        found = store.present()
        assert cells[0].key in found.keys
        assert found.outdated == 1
        summary = run_campaign(store, cells, Idle())
        assert (summary.already_there, summary.done, summary.left, summary.outdated) == (1, 0, 0, 1)
        assert [m.recipe.arithmetic_version for m in store] == [1, 1, 1]  # stored rows stay as they are
        assert store.seconds()[("digits", Recipe().digest)] == (2, 2.0, 2.0)


def test_a_table_of_rows_that_no_longer_hold_is_refused_and_of_some_is_used(tmp_path):
    own = replace(OLD, network="own:net")
    write_table(tmp_path / "old.csv", [row(recipe=own), row("1-4-2/1-6-7", recipe=own)])
    with pytest.raises(TableError, match="arithmetic versions other than 2"):
        open_table(tmp_path / "old.csv", Recipe())
    write_table(tmp_path / "both.csv", [row(recipe=own), row("1-4-2/1-6-7")])
    assert open_table(tmp_path / "both.csv", Recipe()).values.tolist() == [[0.25]]


def test_pick_measure_and_table_show_say_how_many_rows_are_not_used(tmp_path, monkeypatch):
    own = replace(OLD, network="own:net")
    errors = {str(c): 0.2 + 0.005 * i for i, c in enumerate(paper_grid())}
    table = [row(c, e, task) for c, e in errors.items() for task in ("one", "two", "three")]
    write_table(tmp_path / "table.csv", [*table, row(recipe=own), row(recipe=own, seed=1)])
    chosen = pick("digits", network="resnet8", budget="1GB", table=tmp_path / "table.csv", dry_run=True)
    assert "2 measurements are not used" in chosen.notes[0]
    assert "another arithmetic version, and version 2 would not" in chosen.notes[0]

    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["table", "show", "table.csv"])
    assert "2 measurements are not used: table.csv holds them" in shown.stdout
    with Store.open("runs.db") as store:
        store.add_all([row(recipe=own)])
    line = ["measure", "runs.db", "--data", "digits", "--configurations", "1-4-1/1-6-7", "--dry-run"]
    told = CliRunner().invoke(app, line)
    assert "1 measurement is not used: runs.db holds them" in told.stdout
    assert json.loads(CliRunner().invoke(app, [*line, "--json"]).stdout)["outdated"] == 1


def test_what_is_compared_on_the_shipped_table_is_of_one_version():
    """Figures that compare networks take rows of equal recipes; some of the table's are of version 1."""
    versions = Counter(m.recipe.arithmetic_version for m in read_measurements(SHIPPED_TABLE))
    assert set(versions) == {1, 2}
    assert {m.recipe.arithmetic_version for m in read_current(SHIPPED_TABLE)} == {ARITHMETIC_VERSION}
    narrow = largest_slice(read_current(SHIPPED_TABLE), {"network": "resnet8-w8"})
    assert {m.recipe.network for m in narrow} == {"resnet8-w8"}


def test_cells_that_an_older_version_asked_for_are_asked_for_anew(tmp_path):
    old, other = (
        Cell("digits", "digits", "digits", GRID, recipe) for recipe in (OLD, replace(OLD, network="own:net"))
    )
    with Store.open(tmp_path / "runs.db") as store:
        with Queue(store) as queue:
            queue.ask([old, other])
        with Queue(store) as queue:
            queue.ask([replace(old, recipe=Recipe())])
        with store.reading() as connection:
            waiting = {digest for (digest,) in connection.execute(select(cells.c.recipe_digest))}
    assert waiting == {Recipe().digest, other.recipe.digest}
