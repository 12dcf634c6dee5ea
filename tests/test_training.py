"""One training: it learns, it diverges when it must, and nothing but its arguments decides its errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from peppp.errors import FormatError, NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.records import Outcome, Recipe
from peppp.tasks.readers import load
from peppp.training.loop import run_seed, train
from peppp.training.measurement import footprint, measure

RECIPE = Recipe(network="resnet8-w4", epochs=2)
COARSE = Configuration.parse("1-4-1/1-6-7")


@pytest.fixture(scope="module")
def digits():
    return load("digits:014?train=128&test=60")


def mean_error(data, text, seeds=3):
    return np.mean(
        [measure(data, Configuration.parse(text), Recipe(), seed).test_error for seed in range(seeds)]
    )


def test_it_learns_as_well_as_fp32_with_enough_bits_and_far_worse_with_too_few():
    data = load("digits?train=1200")
    fp32 = mean_error(data, "fp32/fp32")
    assert fp32 < 0.12
    assert abs(mean_error(data, "1-5-3/1-8-11") - fp32) < 0.05
    assert mean_error(data, "1-3-1/1-6-7") - fp32 > 0.3


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_same_arguments_give_the_same_weights_and_errors(digits, rounding):
    recipe = replace(RECIPE, rounding=rounding)
    first, second = (train(digits, COARSE, recipe, seed=3) for _ in range(2))
    for p, q in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(p, q)
    assert first.curve == second.curve


def test_a_training_takes_nothing_from_torch_s_generator_and_leaves_it_alone(digits):
    torch.manual_seed(1)
    first = train(digits, COARSE, RECIPE, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = train(digits, COARSE, RECIPE, seed=3)
    assert first.curve == second.curve
    assert torch.equal(before, torch.get_rng_state())


def test_each_cell_has_its_own_seed():
    """With one seed for all, formats that round alike are copies: 99 columns would be 33."""
    seeds = {
        run_seed(seed, fingerprint, Configuration.parse(text))
        for seed in (0, 1)
        for fingerprint in ("a", "b")
        for text in ("1-4-1/1-6-7", "1-4-1/1-7-7", "1-4-1/1-8-7")
    }
    assert len(seeds) == 12


def test_a_training_that_diverges_is_given_the_error_of_guessing(digits):
    recipe = replace(RECIPE, learning_rate=1e30)
    for configuration in (FP32_CONFIGURATION, Configuration.parse("bf16/bf16")):
        m = measure(digits, configuration, recipe)
        assert m.outcome is Outcome.DIVERGED
        assert m.test_error == m.train_error == m.chance_error == pytest.approx(2 / 3)
        assert m.curve[-1] == (1, m.chance_error)


def test_epochs_batches_and_the_curve(digits):
    assert train(digits, COARSE, replace(RECIPE, epochs=5), 0).steps == 5 * 4
    long = train(digits, COARSE, replace(RECIPE, min_steps=17), 0)
    assert (long.steps, [epoch for epoch, _ in long.curve]) == (20, [1, 3, 5])
    assert train(digits, COARSE, replace(RECIPE, batch_size=50), 0).steps == 2 * 2  # 28 images are left over
    assert train(digits, COARSE, replace(RECIPE, batch_size=1000), 0).steps == 2  # one batch of all


def test_progress_is_called_after_each_epoch(digits):
    seen = []
    train(digits, COARSE, RECIPE, 0, progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]


def test_a_measurement_says_what_it_was(digits):
    m = measure(digits, COARSE, RECIPE, seed=7)
    assert (m.task, m.group, m.fingerprint, m.seed) == ("digits-014", "digits", digits.fingerprint, 7)
    assert m.recipe == replace(RECIPE, resolution=8)
    assert m.footprint == footprint(digits, COARSE, RECIPE)
    assert m.curve[-1] == (2, m.test_error)
    assert m.provenance["torch"] == torch.__version__
    assert m.seconds > 0
    assert 0 <= m.train_error <= 1


def test_adamw_keeps_its_moments_in_format_b(digits):
    recipe = replace(RECIPE, optimizer="adamw", optimizer_options=(("weight_decay", 0.01),))
    m = measure(digits, COARSE, recipe)
    assert set(m.footprint.states) == {"exp_avg", "exp_avg_sq", "accumulator"}
    assert m.outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": "lion"}, NetworkError, "unknown optimizer 'lion'; known: sgd"),
        ({"optimizer_options": (("speed", 1.0),)}, NetworkError, "sgd refuses"),
        ({"loss": "hinge"}, NetworkError, "unknown loss"),
        ({"augmentation": "flip"}, FormatError, "unknown augmentation"),
        ({"rounding": "up"}, FormatError, "not a rounding: 'up'"),
        ({"error_format": "C"}, FormatError, "not a format: 'C'"),
    ],
)
def test_wrong_recipes(digits, change, error, message):
    with pytest.raises(error, match=message):
        train(digits, COARSE, replace(RECIPE, **change), 0)
