"""The command line as a user types it: answers, JSON, and one line for each wrong input."""

import importlib
import re
import subprocess
import sys
from typing import get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image

from helpers import answer, peppp, refused, synthetic_table
from peppp.formats import paper_grid
from peppp.table.csv import read_table
from peppp.table.store.store import Store


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A synthetic table of four tasks: fewer bits of A, higher error."""
    path = tmp_path_factory.mktemp("table") / "synthetic.csv.gz"
    synthetic_table(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pets"
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(80 + 90 * label, 30, (10, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


SMALL = ("--network", "resnet8-w4", "--epochs", 2, "--workers", 0, "--resolution", 8)


def test_every_command_has_help_with_an_example():
    tables = ("export", "import", "merge", "validate", "show", "matrix", "schema")
    commands = (
        "demo",
        "pick",
        "train",
        "measure",
        "status",
        "memory",
        "formats",
        *(f"table {name}" for name in tables),
    )
    for command in commands:
        done = peppp(*command.split(), "--help")
        assert done.returncode == 0
        assert f"Example: peppp {command}" in " ".join(done.stdout.replace("│", " ").split())
    assert all(command.split()[0] in peppp("--help").stdout for command in commands)
    assert peppp("--version").stdout.startswith("peppp 0.")


EVERYDAY = ("pick", "train", "measure", "memory", "evaluate")


@pytest.mark.parametrize("command", EVERYDAY)
def test_help_shows_everyday_options_and_help_all_the_others(command):
    short, whole = peppp(command, "--help").stdout, peppp(command, "--help-all").stdout
    assert "--help-all" in short
    assert max(map(len, short.splitlines())) <= 80
    listed = [set(re.findall(r"^[│|] +[*]? *(--[a-z0-9-]+)", text, re.M)) for text in (short, whole)]
    assert listed[0] < listed[1]
    assert {"pick": "--rank", "measure": "--tries", "train": "--rounding", "memory": "--preset",
            "evaluate": "--shrinkage"}[command] in listed[1] - listed[0]  # fmt: skip


def test_help_shows_every_word_that_was_written(monkeypatch):
    """Rich takes [words in brackets] for its markup and drops them, which defaults once were."""
    monkeypatch.setenv("COLUMNS", "400")
    for command in ("pick", "train", "measure", "report", "memory", "evaluate", "hardware", "reproduce"):
        shown = peppp(command, "--help-all" if command in EVERYDAY else "--help").stdout
        helps = _option_helps(command)
        assert helps
        for text in helps:
            assert text in shown


def _option_helps(command):
    """What a command's function says of its options and arguments."""
    hints = get_type_hints(importlib.import_module(f"peppp.cli.{command}").command, include_extras=True)
    return [part.help for hint in hints.values() for part in get_args(hint) if getattr(part, "help", None)]


def test_fp32_stands_in_a_list_of_configurations(tmp_path):
    line = ("measure", "runs.db", "--data", "digits:01", "--configurations", "fp32,1-4-1/1-6-7", "--dry-run")
    assert answer(*line, cwd=tmp_path)["asked"] == 2


def test_a_dry_run_of_one_training_names_one_size(tmp_path):
    line = ("measure", "runs.db", "--data", "digits:01", "--configurations", "fp32", "--dry-run")
    said = peppp(*line, cwd=tmp_path).stdout
    assert "a training keeps " in said
    assert "MB to " not in said


def test_a_training_refuses_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "notes.txt").write_text("no folder")
    for out in ("notes.txt", "notes.txt/inside"):
        line = ("train", "digits:01", "--configuration", "fp32", "--network", "resnet8-w4", "--epochs", 1)
        assert "notes.txt is not a folder" in refused(*line, "--out", out, cwd=tmp_path)
    line = ("pick", "digits:01", "--budget", "2MB", *SMALL, "--train", "--out", "notes.txt")
    assert "notes.txt is not a folder" in refused(*line, cwd=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_formats():
    assert answer("formats", "1-4-3@ocp")["max"] == 448
    assert len(answer("formats")) == 20
    assert "480" in peppp("formats", "1-4-3").stdout
    assert answer("formats", "nvfp4")["bits"] == 4.5
    assert answer("formats", "mx-1-2-1/32@even")["scale"] == "even"
    assert answer("formats", "scaled-1-4-3")["element"]["max"] == 448
    for text in ("mxfp4", "nvfp4", "scaled-1-2-1"):
        assert "all numbers from zero up (8)" in peppp("formats", text).stdout
    assert "take nvfp4, or" in refused("formats", "nvpf4")
    assert "write 1-EXPONENT-MANTISSA" in refused("formats", "4-3")
    assert "exponent bits are 2 to 8" in refused("formats", "1-9-3")


def test_memory():
    rows = answer("memory", "resnet18", "--configurations", "fp32+1-4-1/1-6-7")
    assert [round(row["total"] / 1e6) for row in rows] == [285, 95]
    assert len(answer("memory", "resnet8", "--input", "3x8x8")) == 100
    assert "95.3" in peppp("memory", "resnet18", "--configurations", "1-4-1/1-6-7").stdout
    assert "unknown network 'resnet99'" in refused("memory", "resnet99")
    assert "not an input shape" in refused("memory", "resnet8", "--input", "32x32")
    assert "not a precision" in refused("memory", "resnet8", "--configurations", "1-4-1")


def test_memory_by_layer_by_batch_and_at_inference():
    layers = answer("memory", "resnet8", "--configurations", "1-4-1/1-6-7", "--layers")
    whole = answer("memory", "resnet8", "--configurations", "1-4-1/1-6-7")
    assert abs(sum(layer["total"] for layer in layers) - whole[0]["total"]) < 200  # bytes are rounded up
    fits = answer("memory", "resnet8", "--configurations", "fp32+1-4-1/1-6-7", "--budget", "50MB")
    assert fits[0]["batch"] < fits[1]["batch"]
    assert max(row["peak"] for row in fits) <= 50 * 10**6
    assert answer("memory", "resnet8", "--configurations", "fp32", "--inference")[0]["states"] == {}
    assert "not proven" in peppp("memory", "resnet8", "--preset", "paper_scale").stdout


def test_a_pick_goes_on_to_be_trained_packed(tmp_path, table):
    line = ("pick", "digits:0123?train=120&test=60", *SMALL[:2], "--budget", "1MB", "--measurements", 1)
    line = (*line, "--table", table, "--epochs", 1, "--workers", 0, "--train", "--out", "run")
    done = peppp(*line, cwd=tmp_path)
    assert done.returncode == 0
    assert "peak of a step: estimated" in done.stdout
    assert (tmp_path / "run" / "weights.safetensors").is_file()


def test_a_training_says_its_memory_and_leaves_weights(tmp_path):
    line = ("train", "digits", "--configuration", "1-4-1/1-6-7", "--epochs", "1", "--out", str(tmp_path))
    found = answer(*line)
    assert abs(found["peak"] / found["peak_estimated"] - 1) < 0.1
    assert (tmp_path / "weights.safetensors").exists()
    assert "unknown storage 'zip'" in refused(*line, "--storage", "zip")


def test_measuring_resumes_and_a_table_comes_out(tmp_path, images):
    line = ("measure", "runs.db", "--data", f"digits:01,{images}", *SMALL)
    line = (*line, "--configurations", "fp32+1-4-1,1-5-2 x 1-6-7")
    assert answer(*line, "--dry-run", cwd=tmp_path)["left"] == 6
    assert not (tmp_path / "runs.db").exists()
    assert answer(*line, "--sample", "0.34", cwd=tmp_path)["done"] == 2
    again = answer(*line, cwd=tmp_path)
    assert (again["done"], again["already_there"], again["left"]) == (4, 2, 0)
    assert answer(*line, "--dry-run", cwd=tmp_path)["left"] == 0
    with Store.open(tmp_path / "runs.db", create=False) as store:
        assert {m.task for m in store.measurements()} == {"digits-01", "pets"}
    done = peppp("table", "export", "runs.db", "table.csv", cwd=tmp_path)
    assert done.stdout == "6 measurements in table.csv\n"
    assert len(read_table(tmp_path / "table.csv")) == 6


def test_worker_processes_measure_the_same_errors(tmp_path):
    errors = []
    for workers in (0, 2):
        line = (
            "measure",
            f"{workers}.db",
            "--data",
            "digits:01",
            *SMALL,
            "--configurations",
            "1-4-1,1-5-2 x 1-6-7",
        )
        assert answer(*line, "--workers", workers, cwd=tmp_path)["done"] == 2
        with Store.open(tmp_path / f"{workers}.db", create=False) as store:
            errors.append({m.key: (m.test_error, m.train_error) for m in store.measurements()})
    assert errors[0] == errors[1]


def test_picking_for_a_folder_of_images(tmp_path, images, table):
    line = (
        "pick",
        images,
        "--method",
        "ed-mf",
        "--budget",
        "1MB",
        "--table",
        table,
        "--measurements",
        2,
        *SMALL,
    )
    line = (*line, "--store", "picks.db", "--html", "report.html")
    first = answer(*line, cwd=tmp_path)
    assert len(first["measured"]) == 2
    assert first["footprint"]["total"] <= 10**6
    assert (first["task"], first["network"]) == ("pets", "resnet8-w4")
    page = (tmp_path / "report.html").read_text()
    assert first["configuration"] in page
    second = answer(*line, cwd=tmp_path)
    assert second == first
    with Store.open(tmp_path / "picks.db", create=False) as store:
        assert len(store.measurements()) == 2  # the second time nothing was trained
    text = peppp(*line, cwd=tmp_path).stdout
    assert "estimated" in text
    assert "measured" in text


def test_a_matrix_of_ones_own_teaches_as_its_table_does(tmp_path, images, table):
    assert peppp("table", "matrix", table, "E.csv", cwd=tmp_path).returncode == 0
    line = (
        "pick",
        images,
        "--method",
        "ed-mf",
        "--budget",
        "1MB",
        "--measurements",
        2,
        *SMALL,
        "--store",
        "picks.db",
    )
    by_table = answer(*line, "--table", table, cwd=tmp_path)
    by_matrix = answer(*line, "--errors", "E.csv", cwd=tmp_path)
    assert (by_matrix["configuration"], by_matrix["measured"]) == (
        by_table["configuration"],
        by_table["measured"],
    )
    estimates = [[p["estimated"] for p in found["predictions"]] for found in (by_matrix, by_table)]
    assert estimates[0] == pytest.approx(estimates[1])
    # A row of the task's own name is not learned from.
    lines = (tmp_path / "E.csv").read_text().splitlines()
    own = "pets" + ",0.5" * (lines[0].count(","))
    (tmp_path / "own.csv").write_text("\n".join([*lines, own]))
    assert answer(*line, "--errors", "own.csv", cwd=tmp_path) == by_matrix
    (tmp_path / "only.csv").write_text("\n".join([lines[0], own]))
    assert "only errors of 'pets' itself" in refused(*line, "--errors", "only.csv", cwd=tmp_path)
    rates = ("--errors", "E.csv", "--learning-rate", "0.01,0.001")
    assert "an error matrix has no learning rates" in refused(*line, *rates, cwd=tmp_path)
    assert "give one of them" in refused(*line, "--errors", "E.csv", "--table", table, cwd=tmp_path)
    assert "take it as --errors" in refused(*line, "--table", "E.csv", cwd=tmp_path)


def test_picking_with_costs(tmp_path, images, table):
    prices = "configuration,euro\n" + "".join(f"{c},{i % 7}\n" for i, c in enumerate(paper_grid()))
    (tmp_path / "prices.csv").write_text(prices)
    costs = [part for cost in ("memory", "time", "energy", "prices.csv:euro") for part in ("--cost", cost)]
    line = (
        "pick",
        images,
        "--method",
        "ed-mf",
        "--budget",
        "1MB",
        "--table",
        table,
        "--measurements",
        1,
        *SMALL,
        *costs,
    )
    found = answer(*line, "--html", "report.html", cwd=tmp_path)
    assert [cost["name"] for cost in found["costs"]] == ["memory", "time", "energy", "euro"]
    assert found["cost_frontier"]
    measured = next(p for p in found["predictions"] if p["measured"] is not None)
    assert measured["costs"]["memory"] == pytest.approx(measured["peak"] / 1e6)
    page = (tmp_path / "report.html").read_text()
    assert all(cost["source"].split(",")[0] in page for cost in found["costs"])


def test_a_dry_run_of_a_pick_leaves_nothing_behind(tmp_path, images, table):
    line = (
        "pick",
        images,
        "--method",
        "ed-mf",
        "--budget",
        "1MB",
        "--table",
        table,
        "--measurements",
        2,
        *SMALL,
    )
    found = answer(*line, "--dry-run", "--store", "picks.db", "--train", cwd=tmp_path)
    assert len(found["planned"]) == 2
    assert not found["measured"]
    assert not (tmp_path / "picks.db").exists()
    assert not (tmp_path / "peppp-run").exists()


def test_a_table_of_other_trainings_is_used_and_said_to_be_one(tmp_path, images, table):
    line = ("pick", images, "--budget", "1MB", "--table", table, "--measurements", 1, *SMALL)
    line = (*line, "--html", "report.html", "--store", "picks.db")
    before = answer(*line, cwd=tmp_path)["notes"]
    assert not any("rounding" in note for note in before)
    line = (*line, "--rounding", "nearest")
    notes = answer(*line, cwd=tmp_path)["notes"]
    assert [note for note in notes if note in before] == before
    (note,) = [note for note in notes if note not in before]
    assert note.startswith(
        "the table has few or no rows with rounding nearest, so the pick learned from stochastic"
    )
    assert "could not be measured" in note  # all its rows round alike
    assert f"note {note}" in " ".join(peppp(*line, cwd=tmp_path).stdout.split())
    assert note in (tmp_path / "report.html").read_text()


def test_wrong_input_for_measure_leaves_nothing_behind(tmp_path, images):
    (tmp_path / "notes.txt").write_text("no store")
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "b").mkdir()
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / "broken" / name).write_bytes(b"not an image")
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        (("runs.db", "--data", "nowhere/"), "no such folder: nowhere"),
        (("runs.db", "--data", "broken"), "broken/a/1.png is not an image"),
        (("runs.db", "--data", "digits", "--configurations", "1-4-1/1-99-7"), "no such format: 1-99-7"),
        (("runs.db", "--data", "digits", "--network", "vgg"), "unknown network 'vgg'"),
        (("runs.db", "--data", "digits", "--rounding", "up"), "not a rounding: 'up'"),
        (("runs.db", "--data", "digits:01", "--engine", "steam", "--dry-run"), "unknown engine 'steam'"),
        (("runs.db", "--data", "digits:01", "--workers", 1, "--worker-memory", "3"), "a worker's libraries"),
        (("runs.db", "--data", "digits:01,"), "'' names no data set"),
        (("runs.db", "--data", "digits:01", "--gpus", 1), "--gpus belongs to --engine ray or --engine slurm"),
        (
            ("runs.db", "--data", "digits:01", "--slurm", "a=b", "--engine", "ray"),
            "belongs to --engine slurm",
        ),
        (("runs.db", "--data", "digits:01", "--address", "x"), "--address belongs to --engine ray"),
        (("runs.db", "--data", "digit"), "no folder and no data set 'digit'; similar names: digits"),
        (("runs.db", "--data", "notes.txt"), "notes.txt is a file; give a folder"),
        (("runs.db", "--data", "broken/a"), "broken/a holds no class folders; it needs at least two"),
        (("runs.db", "--data", "digits", "--device", "abacus"), "no device 'abacus'"),
        (("notes.txt", "--data", "digits:01"), "notes.txt"),
        (("no/such/runs.db", "--data", "digits:01"), "no/such"),
    ):
        assert message in refused("measure", *arguments, cwd=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_input_for_pick_leaves_nothing_behind(tmp_path, images, table):
    (tmp_path / "notes.txt").write_text("no table")
    for arguments, message in (
        (("nowhere", "--budget", "1MB"), "no such folder: nowhere"),
        ((images, "--budget", "much"), "not a size: 'much'"),
        ((images, "--budget", "-1MB"), "not a size"),
        ((images, "--budget", "1KB"), "the smallest that works is"),
        (
            (images, "--budget", "1MB", "--method", "ed-mf", "--measurements", 200),
            "200 measurements were asked for, but 99",
        ),
        ((images, "--budget", "1MB", "--html", "no/such/page.html"), "there is no folder no/such"),
        ((images, "--budget", "1MB", "--table", "nowhere.db"), "no such file: nowhere.db"),
        ((images, "--budget", "1MB", "--html", "."), "it is not a file; name a file"),
        ((images, "--budget", "1MB", "--table", "notes.txt"), "give a table that `peppp table export` wrote"),
        ((images, "--budget", "1MB", "--out", "runs"), "--out is the folder of --train"),
        ((images, "--budget", "1MB", "--cost", "weight"), "no cost 'weight'; there are memory, time, energy"),
        ((images, "--budget", "1MB", "--cost", "nowhere.csv:euro"), "cannot read the table nowhere.csv"),
    ):
        line = ("pick", *arguments, "--network", "resnet8-w4", "--resolution", 8, "--workers", 0)
        line = line if "--table" in line else (*line, "--table", table)
        assert message in refused(*line, cwd=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_a_budget_is_read_before_torch_is_imported():
    line = "import sys; from peppp.cli import main; sys.argv = ['peppp', 'pick', 'x', '--budget', 'much']\n"
    line += "try: main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    assert done.stdout == "2 False\n"
    assert "not a size: 'much'" in done.stderr


def test_a_stopped_pick_says_whether_the_same_line_goes_on(tmp_path, images, table, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("peppp.campaign.runner.run_campaign", interrupted)
    line = (
        "pick",
        images,
        "--method",
        "ed-mf",
        "--budget",
        "1MB",
        "--table",
        table,
        "--measurements",
        1,
        *SMALL,
    )
    done = peppp(*line, cwd=tmp_path)
    kept = "peppp: stopped; no measurement was kept: with --store picks.db the same line goes on\n"
    assert (done.returncode, done.stderr.splitlines()[-1] + "\n") == (130, kept)
    done = peppp(*line, "--store", "picks.db", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        130,
        "peppp: stopped; run the same line again to go on",
    )


def test_as_a_module_and_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "peppp", "pick", "nowhere", "--budget", "1MB"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("line", [("formats", "1-5-3"), ("formats", "--json"), ("--help",)])
def test_a_pipe_that_is_closed_early_ends_it_without_a_word(line):
    command = [sys.executable, "-m", "peppp", *line]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before anything is written
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_options_that_do_not_exist_or_cannot_be():
    assert peppp("pick", "x", "--budget", "1MB", "--measurements", "-1").returncode == 2
    assert peppp("measure", "runs.db").returncode == 2
    assert peppp("conjure").returncode == 2


def test_the_data_sets_are_listed_shown_and_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_DATA", "")  # set by --data-root, and so taken back
    (tmp_path / "bach").mkdir()
    rows = answer("datasets", "--data-root", tmp_path)
    assert len(rows) == 87
    assert {row["name"] for row in rows if row["path"]} == {"bach"}
    facts = answer("datasets", "show", "imagenet-bag", "--data-root", tmp_path)
    assert (facts["points"], facts["class_names"][0], facts["path"]) == (6519, "backpack", None)
    assert "1119  plastic bag" in peppp("datasets", "show", "imagenet-bag").stdout
    assert "imagenet-colubrid-snake" in peppp("datasets").stdout
    assert "similar names: cifar10" in refused("datasets", "show", "cifar11")
    assert "does not download" in refused("datasets", "fetch", "isic")
    assert f"{tmp_path} holds no cifar-10-python.tar.gz" in refused(
        "measure", tmp_path / "runs.db", "--data", "cifar10", "--data-root", tmp_path
    )
    assert not (tmp_path / "runs.db").exists()


def test_networks_are_listed():
    rows = {row["name"]: row for row in answer("networks", "--classes", "10")}
    assert rows["resnet18"]["parameters"] == 11_173_962
    assert rows["transformer"]["takes"] == "text"
    assert "vgg16" in peppp("networks").stdout


def test_tasks_without_images_are_measured_and_picked_for(tmp_path, table):
    store = tmp_path / "runs.db"
    few = ["--epochs", "2", "--learning-rate", "0.01", "--workers", "0"]
    facts = answer(
        "measure",
        store,
        "--data",
        "wine,diabetes",
        "--network",
        "mlp",
        "--configurations",
        "1-5-2/1-6-7",
        *few,
    )
    assert (facts["done"], facts["failed"]) == (2, 0)
    again = ["--data", "diabetes", "--network", "mlp", "--configurations", "1-5-2/1-6-7"]
    assert answer("measure", store, *again, *few)["already_there"] == 1
    picked = answer(
        "pick", "diabetes", "--network", "mlp", "--budget", "200KB", "--measurements", "2", "--table", table,
        "--optimizer", "adamw,weight_decay=0.01", *few,
    )  # fmt: skip
    assert len([p for p in picked["predictions"] if p["measured"]]) == 2
    assert "wine holds numbers; give mlp" in refused("measure", store, "--data", "wine")
    assert "not an optimizer" in refused("measure", store, "--data", "wine", "--optimizer", "adamw,fast")
    assert "unknown augmentation" in refused("measure", store, "--data", "digits", "--augmentation", "cutout")
    assert "unknown optimizer" in refused("measure", store, "--data", "digits", "--optimizer", "lion")
    assert "adamw refuses" in refused("measure", store, "--data", "digits", "--optimizer", "adamw,speed=1")


@pytest.mark.parametrize(
    ("name", "count"),
    [("paper", 8613), ("table5", 4455), ("architectures", 4950), ("epochs", 99), ("learning-rates", 198)],
)
def test_the_plans_of_the_paper_have_its_numbers_even_where_their_data_are_not(tmp_path, name, count):
    facts = answer("measure", "runs.db", "--plan", name, "--dry-run", cwd=tmp_path)
    assert (facts["asked"], facts["left"]) == (count, count)
    assert 0 < facts["smallest_bytes"] < facts["largest_bytes"] < facts["total_bytes"]
    assert not (tmp_path / "runs.db").exists()


def test_a_plan_says_what_it_fixes(tmp_path):
    assert "leave it out" in refused("measure", "x.db", "--plan", "paper", "--epochs", 3, "--dry-run")
    assert "no plan 'all'; there are paper" in refused("measure", "x.db", "--plan", "all", "--dry-run")
    assert "one of them" in refused("measure", "x.db", "--plan", "paper", "--data", "digits", "--dry-run")


def test_lists_of_recipes_limits_and_estimates(tmp_path):
    (tmp_path / "mine.txt").write_text("1-4-1/1-6-7  # cheap\n\n1-5-2@ieee/1-8-9@ieee,1-4-1/1-6-7\n")
    line = ("measure", "runs.db", "--data", "digits:01", "--epochs", 1, "--workers", 0)
    line = (*line, "--network", "resnet8-w4,resnet8-w8", "--learning-rate", "0.01,0.001", "--seed", "0,1")
    line = (*line, "--configurations", "mine.txt", "--no-accumulator")
    first = answer(*line, "--dry-run", cwd=tmp_path)
    assert (first["asked"], first["estimated_seconds"]) == (16, None)
    assert answer(*line, "--max-measurements", 4, cwd=tmp_path)["done"] == 4
    with Store.open(tmp_path / "runs.db") as store:
        rows = [(m.recipe.network, m.recipe.learning_rate) for m in store]
        assert len(set(rows)) == 4  # one of each row
        assert not any(m.recipe.accumulator for m in store)
    then = answer(*line, "--dry-run", cwd=tmp_path)
    assert then["left"] == 12
    assert then["estimated_seconds"] > 0
    small = answer(*line, "--max-memory", f"{first['smallest_bytes']}", "--dry-run", cwd=tmp_path)
    assert 0 < small["asked"] == 16 - small["over_max_memory"] < 16
    assert "every training keeps more" in refused(*line, "--max-memory", "1KB", "--dry-run", cwd=tmp_path)
    sampled = answer(*line, "--by-memory", "--sample", "0.5", "--dry-run", cwd=tmp_path)
    assert 4 <= sampled["asked"] < 16
    for wrong, says in (
        (("--seed", "one"), "--seed 'one' is no list of numbers"),
        (("--learning-rate", "0,1,x"), "is no list of numbers"),
        (("--max-time", "soon"), "is not a time; write one such as 90s"),
        (("--engine", "magic"), "unknown engine 'magic'; known: local, ray, slurm"),
        (("--worker-memory", "1GB"), "give --workers 1 or more"),
        (
            ("--workers", 1, "--worker-memory", "3"),
            "more than the 3 B of --worker-memory; give more, such as 2GB",
        ),
    ):
        assert says in refused(*line, *wrong, cwd=tmp_path)
