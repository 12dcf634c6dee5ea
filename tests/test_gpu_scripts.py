"""What the scripts for a GPU do without one: the table's shards resume and merge, the benchmark says no."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from peppp.campaign.cells import plan, rows_of
from peppp.campaign.worker import source
from peppp.formats import Configuration, paper_grid
from peppp.records import Recipe
from peppp.tasks.readers import load
from peppp.textable import read_table

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def table():
    spec = importlib.util.spec_from_file_location("gpu_table", BENCHMARKS / "gpu_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
@pytest.mark.parametrize("script", [["gpu.py"], ["gpu_table.py", "measure", ".", "out"]])
def test_without_a_gpu_one_line_says_so(script, tmp_path):
    line = [sys.executable, str(BENCHMARKS / script[0]), *script[1:]]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "GPU" in done.stderr
    assert not list(tmp_path.iterdir())
