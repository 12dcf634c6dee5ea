"""The code and the line that an answer ends with: each is run, and trains what the pick stands for."""

import json
import shlex

import pytest
import torch
from tests.helpers import answer
from torch import nn

from peppp import pick
from peppp.advise.running import text_of, train_line
from peppp.precisions.known import parse_precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Recipe
from peppp.training.losses import find_loss
from peppp.training.prepare import prepare
from peppp.training.runs_here import runnable
from peppp.training.snippets import snippet

HERE = ["fp32", *(p.name for p in runnable()), "1-5-3/1-8-11"]
RECIPE = Recipe(learning_rate=0.05, batch_size=8)


def network():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 4, 3), inner, nn.Flatten(), nn.Linear(64, 3))


def batches():
    draw = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 1, 6, 6, generator=draw), torch.randint(3, (8,), generator=draw)) for _ in range(6)
    ]


def recipe_for(precision):
    if isinstance(precision, NamedPrecision) and precision.optimizer == "adamw":
        return Recipe(learning_rate=0.01, batch_size=8, optimizer="adamw", optimizer_options=())
    return RECIPE


def executed(code, net):
    exec(compile(code, "snippet", "exec"), {"net": net, "loader": batches()})
    return net.float()


def by_hand(precision, recipe, **more):
    net = network()
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[recipe.optimizer](
        net.parameters(), lr=recipe.learning_rate, **dict(recipe.optimizer_options)
    )
    ready = prepare(net, optimizer, precision, **more)
    for x, y in batches():
        ready.backward(find_loss("cross_entropy").function(ready.forward(x), y))
        ready.step()
    return net


def numbers(net):
    return [p.detach().float() for p in net.state_dict().values()]


@pytest.mark.parametrize("name", HERE)
def test_snippets_train_as_prepare_does(name):
    precision = parse_precision(name)
    recipe = recipe_for(precision)
    before = numbers(network())
    net = network()
    executed(snippet(precision, recipe), net)
    expected = by_hand(precision, recipe)
    after = numbers(net)
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after, numbers(expected), strict=True))


@pytest.mark.parametrize("name", HERE)
def test_snippets_recompute_blocks_and_take_micro_batches(name):
    precision = parse_precision(name)
    recipe = recipe_for(precision)
    code = snippet(precision, recipe, recomputed=["1"], micro_batch=4)
    assert "recompute=['1']" in code
    assert "split(4)" in code
    net = network()
    before = numbers(network())
    executed(code, net)
    assert any(not torch.equal(a, b) for a, b in zip(numbers(net), before, strict=True))


def test_snippets_of_parts_of_a_batch_have_its_gradient():
    recipe = Recipe(learning_rate=0.05, batch_size=8, optimizer_options=())
    nets = []
    for parts in (None, 2):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        exec(snippet(parse_precision("fp32"), recipe, micro_batch=parts), {"net": net, "loader": batches()})
        nets.append(net)
    assert torch.allclose(nets[0][1].weight, nets[1][1].weight, rtol=1e-5, atol=1e-6)


def test_snippets_for_tokens():
    torch.manual_seed(0)
    for name in ("fp32", "amp-bf16", "bf16"):
        net = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11))
        x = torch.randint(11, (4, 7))
        code = snippet(parse_precision(name), RECIPE, of_tokens=True)
        exec(code, {"net": net, "loader": [(x, x)]})


def test_the_line_has_every_option_that_is_not_the_usual_one():
    recipe = Recipe(
        network="resnet8-w8", epochs=3, min_steps=9, batch_size=8, learning_rate=0.5, optimizer="adamw",
        optimizer_options=(("weight_decay", 0.1),), augmentation="flip-crop", rounding="nearest",
    )  # fmt: skip
    line = train_line(
        "a b", parse_precision("1-4-1/1-6-7"), recipe, budget=9, recomputed=["x"], micro_batch=4
    )
    assert shlex.split(line) == [
        "peppp", "train", "a b", "--network", "resnet8-w8", "--precision", "packed:1-4-1/1-6-7",
        "--epochs", "3", "--min-steps", "9", "--batch", "8", "--learning-rate", "0.5",
        "--rounding", "nearest", "--augmentation", "flip-crop", "--optimizer", "adamw,weight_decay=0.1",
        "--budget", "9B",
        "--micro-batch", "4",
    ]  # fmt: skip
    assert text_of(parse_precision("fp32")) == "fp32"


def test_a_picks_line_and_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(epochs=1)
    data = "digits:01234?train=64&test=64"
    found = pick(data, budget="1.25MB", network="resnet8", recipe=recipe, measurements=0)
    line = shlex.split(found.line)
    assert line[:3] == ["peppp", "train", data]
    trained = answer(*line[1:], "--out", tmp_path / "run")
    assert trained["peak_measured"] <= 1_250_000
    assert json.loads(found.to_json())["snippet"] == found.snippet
    compile(found.snippet, "snippet", "exec")
