"""A training kept in a folder: it goes on bit for bit, refuses what is not its own, leaves its weights."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from helpers import peppp
from peppp.errors import StoreError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.lowprec.rounding.quantize import quantize
from peppp.records import Outcome, Recipe
from peppp.tasks.dataset import Dataset
from peppp.training.kept_training import CHECKPOINT, train_in_folder
from peppp.training.loop import Run, train

COARSE = Configuration.parse("1-4-1/1-6-7")
RECIPE = Recipe(network="resnet8-w8", epochs=3, batch_size=16, learning_rate=0.05, resolution=8)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = rng.integers(0, 160, (96, 8, 8, 3), dtype=np.uint8)
    images[np.arange(96), :, :, labels] += 90
    return Dataset(
        "colours", "colours", "c0ffee", ("r", "g", "b"), images[:64], labels[:64], images[64:], labels[64:]
    )


def stopping_after(epoch):
    def progress(done, _):
        if done == epoch:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("storage", ["packed", "simulated"])
@pytest.mark.parametrize("configuration", [COARSE, FP32_CONFIGURATION])
def test_a_stopped_training_goes_on_to_the_same_weights(dataset, tmp_path, storage, configuration):
    expected = train(dataset, configuration, RECIPE, 1)
    with pytest.raises(KeyboardInterrupt):
        train_in_folder(
            dataset, configuration, RECIPE, 1, tmp_path, storage=storage, progress=stopping_after(2)
        )
    done = train_in_folder(dataset, configuration, RECIPE, 1, tmp_path, storage=storage)
    assert (done.resumed_after, done.epochs, done.outcome) == (2, 3, Outcome.FINISHED)
    assert done.test_error == expected.test_error
    (tmp_path / "other").touch()
    assert done.weights.stat().st_mode == (tmp_path / "other").stat().st_mode  # whoever may read others
    weights = load_file(done.weights)
    for name, value in expected.network.state_dict().items():
        assert torch.equal(weights[name], value)
    assert not list(tmp_path.glob("*.part"))
    again = train_in_folder(dataset, configuration, RECIPE, 1, tmp_path, storage=storage)
    assert (again.resumed_after, again.peak, again.test_error) == (3, done.peak, done.test_error)


def test_weights_come_with_what_made_them_and_are_format_a_s(dataset, tmp_path):
    done = train_in_folder(dataset, COARSE, RECIPE, 1, tmp_path)
    assert done.peak > 0
    with safe_open(done.weights, framework="pt") as file:
        about = json.loads(file.metadata()["peppp"])
    assert about["configuration"] == "1-4-1/1-6-7"
    assert Recipe.from_json(about["recipe"]) == RECIPE
    assert about["classes"] == ["r", "g", "b"]
    assert about["test_error"] == done.test_error
    weight = load_file(done.weights)["conv.weight"]
    assert torch.equal(quantize(weight, COARSE.format_a), weight)


def test_a_folder_of_another_training_or_of_rubbish_is_refused(dataset, tmp_path):
    train_in_folder(dataset, COARSE, RECIPE, 1, tmp_path)
    with pytest.raises(StoreError, match="of another training: its seed is 1, not 2; take another folder"):
        train_in_folder(dataset, COARSE, RECIPE, 2, tmp_path)
    longer = replace(RECIPE, epochs=RECIPE.epochs + 1)
    with pytest.raises(StoreError, match=f"its epochs is {RECIPE.epochs}, not {longer.epochs}; take another"):
        train_in_folder(dataset, COARSE, longer, 1, tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"\x80\x04rubbish")
    with pytest.raises(StoreError, match="is not a checkpoint"):
        train_in_folder(dataset, COARSE, RECIPE, 1, tmp_path)


def test_divergence_is_an_outcome(dataset, tmp_path):
    recipe = Recipe(network="resnet8-w8", epochs=2, batch_size=16, learning_rate=1e30, resolution=8)
    done = train_in_folder(dataset, FP32_CONFIGURATION, recipe, 0, tmp_path)
    assert done.outcome is Outcome.DIVERGED
    assert done.test_error == dataset.chance_error


def test_elsewhere_than_on_the_cpu_its_arithmetic_is_that_of_a_measurement(dataset, tmp_path, monkeypatch):
    """Torch's own setting is TF32 for all convolutions, which would cut bits of fp32."""
    seen, step = [], Run._step

    def watched(run, indices):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return step(run, indices)

    monkeypatch.setattr(Run, "_step", watched)
    for configuration, expected in ((FP32_CONFIGURATION, "ieee"), (COARSE, "tf32")):
        recipe, folder = replace(RECIPE, epochs=1), tmp_path / expected
        train_in_folder(dataset, configuration, recipe, 1, folder, storage="simulated", device="cpu:0")
        assert set(seen) == {expected}
        seen.clear()


def test_a_folder_is_for_one_training_at_a_time(tmp_path):
    from filelock import FileLock

    from peppp.training.kept_training import LOCK

    (tmp_path / "run").mkdir()
    line = ["train", "digits:01", "--network", "resnet8-w4", "--precision", "fp32", "--epochs", 1]
    with FileLock(tmp_path / "run" / LOCK):
        done = peppp(*line, "--out", "run", cwd=tmp_path)
        assert done.returncode == 2
        assert "another training is at work in the folder run" in done.stderr.splitlines()[-1]
    assert peppp(*line, "--out", "run", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="only POSIX limits the size of files")
def test_a_disk_that_fills_is_one_line_and_leaves_nothing_half_written(tmp_path):
    """Files of more than 40 kB cannot be written here, as on a disk that is full."""
    limited = (
        "import resource, signal, sys; from peppp.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); main()"
    )
    line = ["train", "digits:01", "--network", "resnet8-w4", "--precision", "fp32", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", limited, *line, "--out", "run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("peppp: cannot write run/checkpoint.safetensors: ")
    assert "make room" in last
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) in ([], [".lock"])
