"""What is wrong with a line is said in one line, before data is read where it can be known by then."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from peppp.advise.session import pick
from peppp.cli import app
from peppp.errors import BudgetError, NetworkError, PepppError
from peppp.formats import Configuration
from peppp.records import Recipe
from peppp.table.select import SHIPPED_TABLE
from peppp.tasks import folders
from peppp.tasks.readers import load
from peppp.training.sizes import footprint

NETWORKS = """
import sys
from torch import nn

def raises(classes, channels): raise KeyError("no such layer")
def takes_nothing(): return nn.Linear(2, 2)
def exits(classes, channels): sys.exit("bye")
def returns_text(classes, channels): return "a network"
def returns_a_tuple(classes, channels): return Layer(channels, classes, lambda y: (y, y))
def returns_a_dict(classes, channels): return Layer(channels, classes, lambda y: {"logits": y})
def returns_too_few(classes, channels): return Layer(channels, classes - 1, lambda y: y)
def returns_maps(classes, channels): return Layer(channels, classes, lambda y: y[:, :, None])
def lacks_a_layer(classes, channels): return Layer(channels, classes, lambda y: y.nothing)
def returns_more(classes, channels): return Layer(channels, classes + 1, lambda y: y)

class Layer(nn.Module):
    def __init__(self, channels, classes, last):
        super().__init__()
        self.conv, self.last = nn.Conv2d(channels, classes, 1), last
    def forward(self, x):
        return self.last(self.conv(x).mean((2, 3)))
"""
REFUSED = {
    "raises": "raised KeyError: 'no such layer'",
    "takes_nothing": "raised TypeError: .*'classes'",
    "exits": "raised SystemExit: bye",
    "returns_text": "returned a str",
    "returns_a_tuple": "returns a tuple; it must return one tensor",
    "returns_a_dict": "returns a dict; it must return one tensor",
    "returns_too_few": r"returns \[32, 1\] .* into 2 classes needs logits \[32, 2\]",
    "returns_maps": r"returns \[32, 2, 1\] .* needs logits \[32, 2\]",
    "lacks_a_layer": "has no attribute 'nothing'",
    "is_not_there": "has no attribute 'is_not_there'",
}


@pytest.fixture
def own_networks(tmp_path, monkeypatch):
    name = f"nets_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("factory", REFUSED)
def test_a_network_that_cannot_be_trained_is_one_line(factory, own_networks):
    with pytest.raises(NetworkError, match=REFUSED[factory]) as caught:
        pick("digits:01", budget="100MB", network=f"{own_networks}:{factory}", dry_run=True)
    assert "\n" not in str(caught.value)


def test_a_network_may_have_more_outputs_than_classes(own_networks):
    recipe = Recipe(network=f"{own_networks}:returns_more")
    assert footprint(load("digits:01"), Configuration.parse("1-4-1/1-6-7"), recipe).total > 0


def test_a_module_that_exits_when_it_is_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "leaves_at_once.py").write_text("import sys; sys.exit(3)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NetworkError, match="cannot load the network leaves_at_once:net"):
        pick("digits:01", budget="100MB", network="leaves_at_once:net", dry_run=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "bogus"], "no method 'bogus'"),
        (["--method", "ed-mf-per-second"], "no method 'ed-mf-per-second'"),
        (["--spend", "0s"], "--spend '0s' is not a time"),
        (["--until-sure", "7"], "give a probability between 0 and 1, such as 0.9"),
        (["--cost", "bogus"], "no cost 'bogus'"),
        (["--network", "resnet9"], "unknown network 'resnet9'"),
        (["--rounding", "bogus"], "bogus"),
    ],
)
def test_wrong_values_are_refused_before_data_is_read(options, message, tmp_path):
    """The data is not there, which would be the message if it had been looked for."""
    line = [sys.executable, "-m", "peppp", "pick", str(tmp_path / "nowhere"), "--budget", "1MB", *options]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert message in ended.stderr


@pytest.mark.parametrize(("count", "what"), [("peak", "peak"), ("kept", "footprint")])
def test_a_budget_below_everything_is_refused_before_pixels_are_decoded(tmp_path, monkeypatch, count, what):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(3):
            pixels = np.full((16, 16, 3), 40 * i, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    with pytest.raises(BudgetError) as late:  # a named table is read first, and so are the pixels
        pick(tmp_path, budget="1kB", table=SHIPPED_TABLE, dry_run=True, count=count)

    def decoded(*_):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(folders, "decoded", decoded)
    for limits in ({"budget": "1kB"}, {"budget": "1GB", "cap": "1kB"}):
        with pytest.raises(BudgetError, match=f"is below every {what}; the smallest that works is") as early:
            pick(tmp_path, **limits, dry_run=True, count=count)
    with pytest.raises(BudgetError) as early:
        pick(tmp_path, budget="1kB", dry_run=True, count=count)
    assert str(early.value).partition("is below")[2] == str(late.value).partition("is below")[2]


def test_a_plan_of_the_paper_takes_every_option_that_it_does_not_name(tmp_path):
    line = ["measure", str(tmp_path / "runs.db"), "--plan", "epochs", "--dry-run"]
    for further in ([], ["--device", "cpu"], ["--rounding", "nearest", "--device", "cpu"]):
        result = CliRunner().invoke(app, [*line, *further])
        assert result.exit_code == 0, result.output
    for further in (["--network", "resnet8"], ["--device", "cpu", "--epochs", "10"]):
        result = CliRunner().invoke(app, [*line, *further])
        assert isinstance(result.exception, PepppError)
        assert f"says what {further[-2]} is; leave it out" in str(result.exception)


@pytest.mark.parametrize(
    ("option", "values", "asked"),
    [
        ("--data", ["digits:23,digits:45"], 6),
        ("--configurations", ["1-4-1/1-6-9"], 3),
        ("--network", ["resnet8-w4"], 4),
        ("--learning-rate", ["0.01,0.1"], 6),
        ("--seed", ["1", "2,3"], 8),
    ],
)
def test_an_option_that_takes_several_values_may_be_given_several_times(option, values, asked, tmp_path):
    """The first would otherwise be dropped without a word."""
    once = {"--data": "digits:01", "--configurations": "fp32,1-4-1/1-6-7", "--network": "resnet8"}
    once |= {"--learning-rate": "0.001", "--seed": "0"}
    line = ["measure", str(tmp_path / "runs.db"), "--dry-run", "--json"]
    for name, value in [*once.items(), *((option, value) for value in values)]:
        line += [name, value]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert f'"asked": {asked},' in result.output


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("pick digits --budget 3MB --rank 2", "--rank"),
        ("pick digits --budget 3MB --method two-best --rank 2", "--rank"),
        ("pick digits --budget 3MB --count kept --no-recompute", "--no-recompute"),
        ("train digits --precision fp32 --no-recompute", "--no-recompute needs --budget"),
        ("train digits --precision amp-bf16 --rounding nearest", "--rounding"),
        ("train digits --precision fp32 --storage packed", "--storage"),
        (
            "train wine --precision fp32 --network mlp --resolution 9",
            "holds numbers, which have no resolution",
        ),
        ("measure runs.db --plan paper --epochs 3", "--plan paper says what --epochs is"),
        ("memory resnet8 --budget 1GB --inference", "--inference"),
        ("memory resnet8 --layers --preset paper_scale", "--preset"),
        ("evaluate --method gaussian --rank 2", "--rank"),
        ("evaluate --method gaussian,two-best --shrinkage 0.1", "--shrinkage"),
        ("evaluate --method ed-mf --noise 0.1", "--noise belongs to gaussian"),
        ("evaluate --setting I,II --share 0.1", "--share belongs to Settings III to VI"),
        ("evaluate --setting I --cap 1MB", "--cap belongs to Settings II, IV and VI"),
    ],
)
def test_an_option_that_nothing_looks_at_is_refused(line, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, line.split())
    assert isinstance(done.exception, PepppError)
    assert option in str(done.exception)
    assert not any(tmp_path.iterdir())
