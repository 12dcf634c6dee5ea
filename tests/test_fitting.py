"""Trainings within a budget: micro-batches, recomputation, and what the commands say of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import answer, peppp, refused, synthetic_table
from peppp.advise.peaks import Steps
from peppp.advise.session import pick
from peppp.errors import BudgetError, NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration, paper_grid
from peppp.records import Recipe
from peppp.tasks.dataset import Dataset, blank_images
from peppp.tasks.readers import load
from peppp.training.fitting import fitting
from peppp.training.kept_training import train_in_folder
from peppp.training.loop import Run
from peppp.training.sizes import with_resolution

COARSE = Configuration.parse("1-4-1/1-6-7")


@pytest.fixture(scope="module")
def numbers():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(128, 6)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    return Dataset("n", "n", "cafe", ("a", "b"), inputs[:96], labels[:96], inputs[96:], labels[96:])


def recipe_of(dataset, network, **how):
    return with_resolution(Recipe(**{"network": network, "epochs": 1, "learning_rate": 0.05} | how), dataset)


def test_gradients_of_micro_batches_are_those_of_the_whole_batch(numbers):
    recipe = recipe_of(numbers, "mlp", epochs=3)
    whole = Run(numbers, FP32_CONFIGURATION, recipe, 0)
    fit = fitting(numbers, recipe, "fp32").within(None, micro_batch=8)
    assert (fit.micro_batch, fit.caution) == (8, "")
    parts = Run(numbers, FP32_CONFIGURATION, recipe, 0, fit=fit)
    for _ in range(3):
        assert parts.train_epoch() == pytest.approx(whole.train_epoch(), abs=0.03)
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("storage", ["packed", "simulated"])
def test_packed_micro_batches_are_the_simulated_ones_bit_for_bit(storage):
    dataset = load("digits:0123?train=64&test=32")
    recipe = recipe_of(dataset, "resnet8")
    fit = fitting(dataset, recipe, storage).within(None, COARSE, micro_batch=1)
    assert fit.caution == "another training: each micro-batch is rounded for itself"
    runs = [Run(dataset, COARSE, recipe, 0, storage=s, fit=fit) for s in ("packed", "simulated")]
    assert runs[0].train_epoch() == runs[1].train_epoch()
    a, b = (run.network.state_dict() for run in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("network", "first"), [("resnet8", "recomputed"), ("mlp", "micro-batches")])
def test_auto_begins_with_what_changes_no_number(network, first, numbers):
    dataset = numbers if network == "mlp" else load("digits:0123?train=64&test=32")
    ways = fitting(dataset, recipe_of(dataset, network), "fp32")
    whole = ways.within(None).peak
    assert ways.within(whole, micro_batch="auto").micro_batch is None
    fit = ways.within(int(0.95 * whole), micro_batch="auto")
    assert fit.peak <= 0.95 * whole
    assert first in str(fit)
    assert ("micro-batches" in str(fit)) != ("recomputed" in str(fit))


def test_what_cannot_fit_is_said(numbers):
    ways = fitting(numbers, recipe_of(numbers, "mlp"), "packed")
    with pytest.raises(NetworkError, match="micro-batches of 5 do not make up a batch of 32"):
        ways.within(None, COARSE, micro_batch=5)
    for how in ({}, {"recompute": False}, {"micro_batch": "auto"}):
        with pytest.raises(BudgetError) as error:
            ways.within(1000, COARSE, **how)
        assert "\n" not in str(error.value)
        assert error.value.needed > 1000


@pytest.mark.parametrize("configuration", [COARSE, FP32_CONFIGURATION])
@pytest.mark.parametrize("share", [0.99, 0.97, 0.95])
def test_a_kept_training_stays_within_its_budget(tmp_path, configuration, share):
    dataset = load("digits:0123?train=128&test=32")
    recipe = recipe_of(dataset, "resnet8")
    ways = fitting(dataset, recipe, "fp32" if configuration.is_fp32 else "packed")
    chosen = None if configuration.is_fp32 else configuration
    budget = int(share * ways.within(None, chosen).peak)
    fit = ways.within(budget, chosen, micro_batch="auto")
    found = train_in_folder(dataset, configuration, recipe, 0, tmp_path, fit=fit)
    assert 0 < found.peak <= budget
    assert fit.peak == pytest.approx(found.peak, rel=0.02)


def test_recomputation_changes_no_weight_of_a_kept_training(tmp_path):
    dataset = load("digits:0123?train=128&test=32")
    recipe = recipe_of(dataset, "resnet8")
    ways = fitting(dataset, recipe, "packed")
    fit = ways.within(ways.within(None, COARSE).peak - 1, COARSE)
    assert fit.recomputation.blocks
    plain = train_in_folder(dataset, COARSE, recipe, 0, tmp_path / "plain")
    again = train_in_folder(dataset, COARSE, recipe, 0, tmp_path / "again", fit=fit)
    assert plain.weights.read_bytes() == again.weights.read_bytes()


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    table = tmp_path_factory.mktemp("table") / "synthetic.csv.gz"
    synthetic_table(table)
    data = "digits:0123?train=120&test=60"
    return ("pick", data, "--network", "resnet8", "--table", table, "--measurements", 1, "--epochs", 1,
            "--workers", 0)  # fmt: skip


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5, 1])
def test_a_pick_trained_on_stays_within_its_budget(tmp_path, line, share):
    dataset = load(line[1])
    steps = Steps(dataset, recipe_of(dataset, "resnet8"), recompute=True, micro_batch=None)
    low = min(fit.peak for fit in steps.all_within(0, paper_grid()).values())
    high = max(fit.peak for fit in steps.all_within(1 << 40, paper_grid()).values())
    limit = int(low + share * (high - low))
    said = peppp(*line, "--budget", f"{limit}B", "--train", "--out", "run", "--json", cwd=tmp_path).stdout
    chosen, training = map(json.loads, said.splitlines())
    assert chosen["budget"] == limit
    assert chosen["peak"] <= limit
    assert training["peak_measured"] <= limit
    assert training["peak_measured"] == pytest.approx(chosen["peak"], rel=0.02)
    assert training["fit"]["recomputed"] == chosen["recomputed"]


class Reads(nn.Module):
    """Reads a number on its way, as a rehearsal can, or chooses by numbers, which it cannot."""

    def __init__(self, classes, *, chooses):
        super().__init__()
        self.layers, self.chooses = nn.Linear(13, classes), chooses

    def forward(self, x):
        scale = float(x.abs().mean().item() > 1e9) + 1
        return self.layers(x[x[:, 0] > -1e9] if self.chooses else x) * scale


def reads(classes, channels):
    return Reads(classes, chooses=False)


def chooses(classes, channels):
    return Reads(classes, chooses=True)


def test_networks_that_read_numbers_are_fitted_and_others_trained_without_an_estimate(tmp_path):
    line = ("train", "wine", "--configuration", "fp32", "--epochs", 1, "--out", "run", "--network")
    assert answer(*line, "test_fitting:reads", cwd=tmp_path)["peak_estimated"] > 0
    said = peppp(*line[:-2], "other", "--network", "test_fitting:chooses", cwd=tmp_path)
    assert "estimate  unknown: " in said.stdout
    assert "not estimated, measured" in said.stdout
    refusal = refused(*line, "test_fitting:chooses", "--budget", "1MB", cwd=tmp_path)
    assert "cannot be rehearsed" in refusal


def test_the_paper_s_count_is_another_budget(tmp_path, line):
    kept = answer(*line, "--budget", "800kB", "--count", "kept", cwd=tmp_path)
    assert kept["peak"] is None
    assert kept["footprint"]["total"] <= 800_000
    assert "below every peak; the smallest that works is" in refused(*line, "--budget", "800kB", cwd=tmp_path)
    done = peppp(*line, "--budget", "800kB", "--count", "kept", "--train", "--out", "r", cwd=tmp_path)
    assert "over the budget that this was picked for" in done.stdout
    assert "over the budget" in done.stdout.splitlines()[-3]
    said = refused(*line, "--budget", "800kB", "--count", "kept", "--micro-batch", "8", cwd=tmp_path)
    assert "micro-batches lower the peak" in said
    assert "unknown count 'all'; known: peak, kept" in refused(*line, "--budget", "1MB", "--count", "all")


def test_a_pick_says_where_the_budget_decides_nothing():
    chosen = pick("digits:0123?train=120&test=60", budget="100MB", dry_run=True)
    assert any("the budget decides nothing" in note for note in chosen.notes)
    peaks = [p.peak for p in chosen.predictions]
    assert chosen.peak == next(p.peak for p in chosen.predictions if p.configuration == chosen.configuration)
    assert f"peak {chosen.peak / 1e6:.2f} MB" in str(chosen)
    assert chosen.page_data()["counts"] == "peak"
    assert [row["total"] for row in chosen.page_data()["rows"]] == peaks


def test_what_fits_by_recomputing_blocks_counts_as_the_whole_budget():
    data = "digits:0123?train=120&test=60"
    peaks = sorted(p.peak for p in pick(data, budget="1GB", dry_run=True).predictions)
    chosen = pick(data, budget=peaks[-10], dry_run=True)
    plain = pick(data, budget=peaks[-10], dry_run=True, recompute=False)
    recomputed = [p for p in chosen.predictions if p.permissible and p.peak == chosen.budget]
    assert len(recomputed) > 1
    assert [p.permissible for p in plain.predictions].count(True) < len(
        [p for p in chosen.predictions if p.permissible]
    )
    assert not chosen.recomputed  # as nothing that is recomputed errs less
    assert chosen.configuration == plain.configuration


def test_images_that_a_budget_forbids_are_not_decoded(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(80):
            Image.new("RGB", (16, 16)).save(folder / f"{number}.png")
    (tmp_path / "photos" / "a" / "80.png").write_bytes(
        (tmp_path / "photos" / "a" / "0.png").read_bytes()[:60]  # its size can be read, and nothing else
    )
    assert "below every peak" in refused("pick", "photos", "--budget", "2MB", cwd=tmp_path)
    wide = refused("pick", "photos", "--budget", "2MB", "--resolution", "2000", cwd=tmp_path)
    assert "a resolution of 2000 pixels is not between 4 and 1024" in wide


def test_a_blank_data_set_needs_what_a_real_one_does():
    dataset = load("digits")
    recipe = recipe_of(dataset, "resnet8")
    blank = blank_images(10, dataset.resolution, len(dataset.train_targets))
    peaks = [fitting(d, recipe, "packed").within(None, COARSE).peak for d in (dataset, blank)]
    assert peaks[0] == peaks[1]


def test_memory_says_how_a_training_fits():
    line = ("memory", "resnet18-w16", "--input", "3x16x16")
    plain = answer(*line, "--precision", "fp32")["peak"]
    budget = f"{int(0.95 * plain)}B"
    found = answer(*line, "--precision", "fp32", "--budget", budget, "--recompute")
    assert found["recomputed"]
    assert found["peak"] <= 0.95 * plain
    assert (
        "more operations a step"
        in peppp(*line, "--precision", "fp32", "--budget", budget, "--recompute").stdout
    )
    rows = answer(*line, "--configurations", "fp32+1-4-1/1-6-7", "--budget", "7.5MB", "--recompute")
    assert [row["fits"] for row in rows] == [row.get("peak", 10**9) <= 7_500_000 for row in rows]
    assert answer(*line, "--precision", "fp32", "--micro-batch", 8)["micro_batch"] == 8
    table = peppp(*line, "--configurations", "1-4-1/1-6-7", "--micro-batch", 8).stdout
    assert "another training: each micro-batch is rounded for itself" in table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recompute",), "--recompute fits a step into a budget; give one"),
        (("--micro-batch", "auto"), "--micro-batch auto fits a step into a budget; give one"),
        (("--micro-batch", "many"), "not a micro-batch: 'many'"),
        (("--micro-batch", "5"), "do not make up a batch of 32"),
        (("--budget", "1MB", "--recompute", "--layers"), "leave out --measure, --layers"),
        (("--precision", "fp32", "--accumulate", "2", "--micro-batch", "8"), "give one of them"),
        (("--precision", "fp32", "--budget", "1kB", "--recompute"), "the smallest budget that works is"),
    ],
)
def test_wrong_wishes_are_refused(words, said):
    assert said in refused("memory", "resnet8", "--input", "3x8x8", *words)
