"""What the scripts for a GPU do without one: the table's shards resume and merge, the benchmark says no."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from peppp.campaign.cells import plan, rows_of
from peppp.campaign.worker import source
from peppp.formats import Configuration, paper_grid
from peppp.records import Recipe
from peppp.table.csv import read_table
from peppp.tasks.readers import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(monkeypatch):
    return script("gpu_table", monkeypatch)


@pytest.fixture
def gpu(monkeypatch):
    return script("gpu", monkeypatch)


def test_a_dry_run_does_every_part_and_the_same_line_again_only_what_failed(gpu, tmp_path, monkeypatch):
    """But for the processes side by side, which a slow test starts."""
    file, parts = tmp_path / "gpu.json", [part for part in gpu.PARTS if part != "together"]
    working = dict(gpu.PARTS)
    monkeypatch.setitem(gpu.PARTS, "cifar10", lambda setting: 1 / 0)
    assert not gpu.run(gpu.DRY, parts, file)
    facts = json.loads(file.read_text())
    assert facts["cifar10"] == {"failed": "ZeroDivisionError: division by zero"}
    assert facts["rounding"]["bits_equal_to_cpu"]
    assert facts["steps"]["replayed_ms"] > 0
    assert facts["alone"]["seconds"] > 0
    assert set(facts["streams"]) == {"1_ms", "2_ms"}
    for part in parts:
        monkeypatch.setitem(gpu.PARTS, part, working[part] if part == "cifar10" else lambda setting: 1 / 0)
    assert gpu.run(gpu.DRY, parts, file)
    again = json.loads(file.read_text())
    assert again["cifar10"]["seconds"] > 0
    assert {part: again[part] for part in parts if part != "cifar10"} == {
        part: facts[part] for part in parts if part != "cifar10"
    }
    file.write_text(json.dumps(again | {"torch": "1.0"}))
    with pytest.raises(SystemExit, match="other versions"):
        gpu.run(gpu.DRY, parts, file)


@pytest.mark.slow
def test_processes_side_by_side(tmp_path):
    line = [sys.executable, str(BENCHMARKS / "gpu.py"), "try.json", "--dry-run", "--parts", "together"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["together"]["processes"] == 2


def test_shards_resume_where_the_last_one_ended_and_merge(table, tmp_path, monkeypatch, capsys):
    text = "digits:01?train=64&test=30"
    configurations = [Configuration.parse(f"1-{e}-1/1-6-7") for e in (3, 4, 5)]
    recipe = Recipe(network="resnet8-w8", epochs=1)
    asked = plan(rows_of([source(text, load(text))], [recipe]), configurations)
    monkeypatch.setattr(table, "cells", lambda folder: asked)
    for left in (2, 1, 0):  # no minutes: one measurement a shard
        table.measure(tmp_path, tmp_path / "out", 0.0, 0, "cpu")
        assert f"{left} of 3 left" in capsys.readouterr().out
    table.measure(tmp_path, tmp_path / "out", 0.0, 0, "cpu")
    assert "0 measured, 0 of 3 left" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["", "merge", str(tmp_path / "out"), str(tmp_path / "table.csv")])
    table.main()
    assert {m.key for m in read_table(tmp_path / "table.csv")} == {cell.key for cell in asked}


@pytest.mark.slow
def test_the_table_is_the_papers(table, shared):
    cells = table.cells(shared / "data")
    first = [cell for cell in cells if cell.recipe.network == "resnet18" and cell.task != "cifar10"]
    tasks = {cell.task for cell in first}
    assert all(task.startswith("cifar100_") for task in tasks)
    assert len(tasks) == 19
    assert len(first) == len(tasks) * (99 + 1)
    assert cells[: len(first)] == first
    cifar10 = {cell.configuration for cell in cells if cell.task == "cifar10"}
    assert len(cifar10 & set(paper_grid())) == 20
    assert {c.format_b for c in cifar10 & set(paper_grid())} == {c.format_b for c in paper_grid()}
    others = {(cell.recipe.network, cell.task) for cell in cells} - {("resnet18", "cifar10")}
    assert len([pair for pair in others if pair[0] in ("resnet34", "vgg11")]) == 4
    assert all(cell.recipe.epochs == 10 and cell.recipe.resolution == 32 for cell in cells)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("words", [["gpu.py", "gpu.json"], ["gpu_table.py", "measure", ".", "out"]])
def test_without_a_gpu_one_line_says_so(words, tmp_path):
    line = [sys.executable, str(BENCHMARKS / words[0]), *words[1:]]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "GPU" in done.stderr
    assert not list(tmp_path.iterdir())
