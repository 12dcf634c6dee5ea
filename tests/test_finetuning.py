"""Trainings that begin from weights of a file, or leave parts of the network as they are."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers import answer, peppp, refused

from peppp import pick
from peppp.errors import NetworkError
from peppp.precisions.known import parse_precision
from peppp.records import Recipe
from peppp.tasks import networks
from peppp.tasks.readers import load
from peppp.training.fitting import fitting
from peppp.training.loop import Run
from peppp.training.measurement import measure
from peppp.training.pretrained import freeze, load_into, named_with_digest
from peppp.training.runs_here import lacking
from peppp.training.sizes import footprint, with_resolution
from peppp.training.snippets import snippet

BEGUN, NEW = "digits:01234?train=320&test=300", "digits:56789?train=40&test=300"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of resnet8-w8, trained on other digits."""
    folder = tmp_path_factory.mktemp("begun")
    line = ["train", BEGUN, "--network", "resnet8-w8", "--precision", "fp32", "--epochs", "6"]
    found = answer(*line, "--learning-rate", "0.02", "--out", folder / "run")
    assert found["test_error"] < 0.2
    return folder / "run" / "weights.safetensors"


def recipe(data, **changes):
    return with_resolution(
        Recipe(**{"network": "resnet8-w8", "epochs": 8, "learning_rate": 0.02} | changes), data
    )


def test_beginning_from_weights_errs_less_than_from_scratch(weights):
    data = load(NEW)
    how = {"pretrained": named_with_digest(weights)}
    for precision in map(parse_precision, ("fp32", "amp-bf16", "1-5-3/1-8-11")):
        scratch, begun = (
            np.mean(
                [
                    measure(data, parse_precision(precision), recipe(data, **more), s).test_error
                    for s in range(3)
                ]
            )
            for more in ({}, how)
        )
        assert begun < scratch - 0.05, str(precision)


@pytest.mark.parametrize(
    "precision", ["fp32", "bf16", "bf16-kahan", "amp-bf16", "1-5-3/1-8-11", "fp32-sgd8bit"]
)
@pytest.mark.parametrize("storage", ["simulated", "real", "packed"])
def test_what_is_frozen_stays_and_the_rest_is_trained(precision, storage):
    named = "/" not in precision and precision != "fp32"
    if storage == ("packed" if named or precision == "fp32" else "real") or (storage == "real" and not named):
        pytest.skip("not a way to train this")
    if storage == "real" and (lack := lacking(precision)):
        pytest.skip(lack)
    data = load(NEW)
    how = recipe(data, epochs=1, freeze=("conv", "blocks.0"))
    run = Run(data, parse_precision(precision), how, 0, storage=storage)
    trained = dict(run.network.named_parameters())
    before = {name: x.float().clone() for name, x in run.network.state_dict().items()}
    run.train_epoch()
    for name, x in run.network.state_dict().items():
        if name not in trained:
            continue
        if name.startswith(("conv", "blocks.0")):
            assert torch.allclose(x.float(), before[name], atol=0.13), name  # rounded once, where at all
        elif x.numel() > 100:
            assert not torch.equal(x.float(), before[name]), name


def test_frozen_weights_take_no_gradient_and_no_states():
    data = load(NEW)
    for precision in ("1-4-1/1-6-7", "amp-bf16"):
        whole = footprint(data, parse_precision(precision), recipe(data))
        most = footprint(data, parse_precision(precision), recipe(data, freeze=("blocks",)))
        assert most.optimizer < 0.4 * whole.optimizer
        assert most.weights == whole.weights
    peaks = [
        fitting(data, recipe(data, freeze=f), "packed").within(None).peak for f in ((), ("blocks", "conv"))
    ]
    assert peaks[1] < peaks[0]


def test_recipes_of_trainings_from_scratch_keep_their_text():
    assert "pretrained" not in Recipe().to_json()
    begun = Recipe(pretrained="a#b", freeze=("x",))
    assert Recipe.from_json(begun.to_json()) == begun
    assert begun.digest != Recipe().digest


def test_what_does_not_fit_is_listed(weights, tmp_path):
    data = load("digits:0123456789?train=40&test=40")
    said = load_into(networks.build_for("resnet8-w8", data), named_with_digest(weights))
    assert any("another shape in the file" in line for line in said)
    net = networks.build_for("resnet8-w8", load(NEW))
    assert load_into(net, named_with_digest(weights)) == []
    other = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(3)}, other)
    with pytest.raises(NetworkError, match="weights of another network"):
        load_into(net, str(other))
    with pytest.raises(NetworkError, match="no file of weights"):
        load_into(net, str(tmp_path / "none"))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(NetworkError, match="not a safetensors file"):
        load_into(net, str(tmp_path / "text"))
    numbers = load_file(weights)
    changed = tmp_path / "changed.safetensors"
    save_file(numbers, changed)
    named = named_with_digest(changed)
    assert load_into(net, named) == []
    save_file({name: x + 1 for name, x in numbers.items()}, changed)
    with pytest.raises(NetworkError, match="other weights than when this began"):
        load_into(net, named)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("nothing.*", "no parameter is called 'nothing.*'"), ("*", "freezes the whole network")],
)
def test_a_pattern_that_freezes_all_or_nothing_is_refused(pattern, said):
    with pytest.raises(NetworkError, match=r"freezes the whole|no parameter") as raised:
        freeze(networks.build_for("resnet8-w8", load(NEW)), [pattern])
    assert said in str(raised.value)
    line = ["train", NEW, "--network", "resnet8-w8", "--precision", "fp32", "--out", "never"]
    assert said in refused(*line, "--freeze", pattern)


def test_a_pick_for_fine_tuning_says_what_it_rests_on(weights):
    data = load(NEW)
    how = recipe(data, pretrained=named_with_digest(weights), freeze=("conv",))
    found = pick(NEW, budget="2MB", network="resnet8-w8", recipe=how, dry_run=True)
    assert any("trainings from scratch" in note for note in found.notes)
    assert f"--pretrained {weights} --freeze conv" in found.line
    assert "freeze(net, ['conv'])" in found.snippet
    line = ["train", NEW, "--network", "resnet8-w8", "--precision", "amp-bf16", "--epochs", "1"]
    text = peppp(*line, "--pretrained", weights, "--freeze", "conv", "--out", weights.parent / "again").stdout
    assert "error" in text
    assert json.loads(found.to_json())["train"] == found.line


def test_snippets_freeze_and_load(weights):
    data = load(NEW)
    net = networks.build_for("resnet8-w8", data)
    how = recipe(data, pretrained=named_with_digest(weights), freeze=("conv",))
    x, y = torch.randn(4, 3, 8, 8), torch.randint(5, (4,))
    for precision in ("fp32", "amp-bf16"):
        exec(snippet(parse_precision(precision), how), {"net": net, "loader": [(x, y)]})
    assert [n for n, p in net.named_parameters() if not p.requires_grad and n.startswith("conv")]
