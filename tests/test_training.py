"""One training: it learns, it diverges when it must, and nothing but its arguments decides its errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from peppp.errors import FormatError, NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration, FloatFormat
from peppp.lowprec.rounding.quantize import quantize
from peppp.records import Outcome, Recipe
from peppp.tasks.readers import load
from peppp.training.batches import flip_crop
from peppp.training.loop import run_seed, train
from peppp.training.losses import find_loss
from peppp.training.measurement import measure
from peppp.training.sizes import footprint

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
        ({"loss": "nowhere:loss"}, NetworkError, "cannot load the loss"),
        ({"augmentation": "flip"}, FormatError, "unknown augmentation"),
        ({"rounding": "up"}, FormatError, "not a rounding: 'up'"),
        ({"error_format": "C"}, FormatError, "not a format: 'C'"),
    ],
)
def test_wrong_recipes(digits, change, error, message):
    with pytest.raises(error, match=message):
        train(digits, COARSE, replace(RECIPE, **change), 0)


TASKS = {
    "wine": ("mlp-w16", ["exp_avg", "exp_avg_sq", "accumulator"], 0.25),
    "diabetes": ("mlp-w16", ["exp_avg", "exp_avg_sq", "accumulator"], 0.8),
}


@pytest.mark.parametrize("data", TASKS)
def test_tables_are_learned_at_low_precision_by_adamw(data):
    network, states, enough = TASKS[data]
    recipe = Recipe(
        network=network,
        epochs=20,
        learning_rate=0.01,
        optimizer="adamw",
        optimizer_options=(("weight_decay", 0.01),),
    )
    for configuration in (FP32_CONFIGURATION, Configuration.parse("1-5-3/1-8-11")):
        m = measure(load(data), configuration, recipe)
        assert m.test_error < enough
        assert m.outcome is Outcome.FINISHED
        assert set(m.footprint.states) <= set(states)
    assert m.recipe.loss == ("squared_error" if data == "diabetes" else "cross_entropy")


@pytest.mark.filterwarnings("ignore:not rounded to low precision. the buffer positions")
def test_a_language_model_learns_at_low_precision_with_its_moments_in_format_b():
    data = load("grammar?train=320&test=40&resolution=32")
    recipe = Recipe(
        network="transformer-w32", epochs=4, learning_rate=0.01, optimizer="adamw", optimizer_options=()
    )
    m = measure(data, Configuration.parse("1-5-3/1-8-11"), recipe)
    assert set(m.footprint.states) == {"exp_avg", "exp_avg_sq", "accumulator"}
    assert m.curve[-1][1] == m.test_error < 0.75 < m.chance_error
    trained = train(data, Configuration.parse("1-5-3/1-8-11"), replace(recipe, epochs=1), 0)
    for parameter in trained.network.parameters():
        assert torch.equal(parameter, quantize(parameter.detach(), FloatFormat.parse("1-5-3")))


def test_errors_of_regression_are_shares_of_the_variance():
    loss = find_loss("squared_error")
    targets = torch.tensor([1.0, 2.0, 3.0, 6.0])
    for outputs, error in (
        ([1, 2, 3, 6], 0.0),
        ([3, 3, 3, 3], 1.0),
        ([1, 2, 3, 4], 4 / 14),
        ([9, 9, 9, 9], 1.0),
    ):
        misses = float(loss.misses(torch.tensor(outputs)[:, None], targets))
        assert loss.error(misses, 4, targets) == pytest.approx(error)
    assert loss.error(math.nan, 4, targets) == 1.0


def test_a_loss_of_one_s_own(tmp_path, monkeypatch, digits):
    (tmp_path / "ownloss.py").write_text(
        "from torch.nn.functional import cross_entropy\n"
        "from peppp.training.losses import LOSSES, Loss\n"
        "def smooth(outputs, targets): return cross_entropy(outputs, targets, label_smoothing=0.1)\n"
        "loss = Loss(smooth, LOSSES['cross_entropy'].misses, LOSSES['cross_entropy'].scale)\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    m = measure(replace(digits, loss="ownloss:loss"), COARSE, RECIPE)
    assert m.recipe.loss == "ownloss:loss"
    assert m.recipe.digest != measure(digits, COARSE, RECIPE).recipe.digest
    with pytest.raises(NetworkError, match=r"is a int; give a peppp\.training\.losses\.Loss"):
        find_loss("ownloss:number")


def test_images_are_shifted_and_mirrored_as_by_hand():
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.int32).view(2, 3, 8, 8)
    ways = [(down, right, flip) for down in (-1, 0, 1) for right in (-1, 0, 1) for flip in (False, True)]
    expected = [{way: by_hand(image, *way) for way in ways} for image in images]
    found = set()
    for seed in range(100):
        for moved, known in zip(
            flip_crop(images, torch.Generator().manual_seed(seed)), expected, strict=True
        ):
            (match,) = [way for way in ways if torch.equal(moved, known[way])]
            found.add(match)
    assert found == set(ways)


def by_hand(image, down, right, flip):
    moved = torch.zeros_like(image)
    side = image.shape[1]
    for i in range(side):
        for j in range(side):
            source = i + down, (side - 1 - j if flip else j) + right
            if 0 <= source[0] < side and 0 <= source[1] < side:
                moved[:, i, j] = image[:, source[0], source[1]]
    return moved


def test_augmentation_changes_the_training_and_its_row_only(digits):
    recipe = replace(RECIPE, augmentation="flip-crop")
    first, second = measure(digits, COARSE, recipe), measure(digits, COARSE, recipe)
    assert first.curve == second.curve
    assert recipe.digest != RECIPE.digest
    plain, moved = train(digits, COARSE, RECIPE, 0), train(digits, COARSE, recipe, 0)
    assert not torch.equal(next(plain.network.parameters()), next(moved.network.parameters()))
    with pytest.raises(FormatError, match="augments images; wine holds numbers"):
        train(load("wine"), COARSE, replace(recipe, network="mlp"), 0)


@pytest.mark.parametrize("network", ["resnet34", "vgg16"])
@pytest.mark.parametrize("side", [32, 64])
def test_large_networks_train_a_step_at_low_precision(network, side):
    data = load(f"digits:01?train=4&test=4&resolution={side}")
    m = measure(data, COARSE, Recipe(network=network, epochs=1, batch_size=4))
    assert m.outcome is Outcome.FINISHED
    assert 0 <= m.test_error <= 1
    assert m.footprint.total > 0
