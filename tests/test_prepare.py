"""Precisions by name trained for real: beside their simulation, within their memory, resumed, refused."""

import copy

import pytest
import torch
from tests.helpers import answer, refused
from tests.helpers import peppp as line
from torch import nn

import peppp
from peppp.errors import NetworkError, StoreError
from peppp.precisions.known import PRECISIONS, is_of_formats, parse_precision
from peppp.records import Recipe
from peppp.tasks.readers import load
from peppp.training import runs_here
from peppp.training.fitting import fitting
from peppp.training.kept_training import train_in_folder
from peppp.training.loop import Run
from peppp.training.prepare import prepare
from peppp.training.runs_here import lacking, runnable
from peppp.training.sizes import with_resolution

DATA = "digits:01234?train=320&test=300"
HERE = [p.name for p in runnable() if p.optimizer != "adamw"]
needs = pytest.mark.skipif(len(HERE) < 8, reason="needs pip install 'peppp[lowbit]'")


def recipe(data, **changes):
    options = {"network": "resnet8-w8", "epochs": 3, "learning_rate": 0.01}
    return with_resolution(Recipe(**options | changes), data)


@needs
@pytest.mark.parametrize("name", HERE)
def test_a_real_training_errs_as_its_simulation(name):
    data, found = load(DATA), {}
    for storage in ("simulated", "real"):
        run = Run(data, PRECISIONS[name], recipe(data), 0, storage=storage)
        train = [run.train_epoch() for _ in range(run.epochs)]
        found[storage] = train, run.test()
    # Initial weights and the order are the same; what differs is where low bits are cut.
    assert found["real"][0] == pytest.approx(found["simulated"][0], abs=0.05)
    assert found["real"][1] == pytest.approx(found["simulated"][1], abs=0.05)
    assert found["real"][1] < 0.3


@needs
@pytest.mark.parametrize("name", ["amp-bf16", "bf16", "bf16-sr", "bf16-kahan", "fp32-sgd8bit"])
def test_the_peak_is_the_estimate(name, tmp_path):
    data = load(DATA)
    kept = train_in_folder(
        data, PRECISIONS[name], recipe(data, network="resnet8", epochs=1), 0, tmp_path / "run", storage="real"
    )
    estimated = fitting(data, recipe(data, network="resnet8"), name).within(None).peak
    assert kept.peak == pytest.approx(estimated, rel=0.03)


@needs
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(name, "sgd") for name in ("amp-fp16", "bf16", "bf16-sr", "bf16-kahan", "bf16-sr-sgd8bit")]
    + [("bf16-kahan", "adamw")],
)
def test_a_training_goes_on_bit_for_bit(name, optimizer, tmp_path, monkeypatch):
    data = load(DATA)
    options = {} if optimizer == "sgd" else {"optimizer_options": (), "learning_rate": 0.001}
    how = (PRECISIONS[name], recipe(data, network="resnet8", optimizer=optimizer, **options), 3)
    whole = train_in_folder(data, *how, tmp_path / "whole", storage="real")
    again = Run.train_epoch
    calls = []

    def dies(self, around=None):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return again(self, around)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            train_in_folder(data, *how, tmp_path / "parts", storage="real")
    parts = train_in_folder(data, *how, tmp_path / "parts", storage="real")
    assert parts.resumed_after == 1
    assert (parts.test_error, parts.curve) == (whole.test_error, whole.curve)
    assert parts.weights.read_bytes() == whole.weights.read_bytes()


def losses(precision, steps=40, **more):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 128), nn.ReLU(), nn.Sequential(nn.Linear(128, 64), nn.ReLU()), nn.Linear(64, 3)
    )
    x, y = torch.randn(64, 20), torch.randint(3, (64,))
    ready = prepare(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), precision, **more)
    found = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(ready.forward(x), y)
        ready.backward(loss)
        ready.step()
        found.append(loss.item())
    return found


@needs
@pytest.mark.parametrize("precision", ["fp32", *HERE, "1-5-3/1-8-11"])
def test_any_module_trains_by_three_calls(precision):
    found = losses(precision)
    assert found[-1] < 0.3 * found[0]


def test_blocks_are_recomputed_in_it_and_change_no_number():
    assert losses("amp-bf16", recompute=["2"]) == losses("amp-bf16")
    assert losses("1-5-3/1-8-11", recompute=["2"]) == losses("1-5-3/1-8-11")
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(4)])
    x = torch.randn(256, 64)
    plan = peppp.recompute(copy.deepcopy(net), x, budget="750kB", precision="amp-bf16")
    assert plan.blocks
    ready = peppp.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), "amp-bf16", recompute=plan)
    ready.backward(ready.forward(x).square().mean())
    assert all(p.grad is not None for p in net.parameters())


def test_results_are_float32_whatever_holds_them():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, *, scale):
            return {"a": self.layer(x) * scale, "b": (x.argmax(1), self.layer(x))}

    net = Two()
    ready = prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), "bf16")
    found = ready.forward(torch.randn(3, 4), scale=2)
    assert net.layer.weight.dtype == torch.bfloat16
    assert found["a"].dtype == found["b"][1].dtype == torch.float32
    assert found["b"][0].dtype == torch.int64


def test_what_cannot_run_is_said_with_the_nearest_that_can(monkeypatch):
    net = nn.Linear(4, 4)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for name in ("fp8", "mxfp8", "mxfp4", "nvfp4", "fp8-all"):
        with pytest.raises(NetworkError, match="amp-bf16 is the nearest that runs"):
            prepare(net, sgd, name)
    wrong = r"take torch.optim.AdamW" if not lacking("fp32-adamw8bit") else "needs bitsandbytes"
    with pytest.raises(NetworkError, match=wrong):
        prepare(net, sgd, "fp32-adamw8bit")
    sgd.zero_grad()
    net(torch.ones(1, 4)).sum().backward()
    sgd.step()
    with pytest.raises(NetworkError, match="has stepped already"):
        prepare(net, sgd, "amp-bf16")
    import peppp.training.runs_here as here

    monkeypatch.setattr(here, "find_spec", lambda name: None)
    assert "pip install 'peppp[lowbit]'" in lacking("bf16-kahan")
    assert "pip install 'peppp[lowbit]'" in lacking("fp32-sgd8bit")
    monkeypatch.setattr(here, "_recurrent_runs", lambda *_: False)
    assert "torch has no LSTM in bf16 on this processor" in lacking("bf16", nn.LSTM(2, 2))
    assert lacking("fp32", nn.LSTM(2, 2)) == lacking("1-4-1/1-6-7", nn.LSTM(2, 2)) == ""
    assert parse_precision("fp32").is_fp32


def test_train_takes_names_and_packed_pairs(tmp_path):
    data = ["train", DATA, "--network", "resnet8-w8", "--epochs", "1", "--out"]
    found = answer(*data, tmp_path / "a", "--precision", "amp-bf16")
    assert found["peak_measured"] == pytest.approx(found["peak_estimated"], rel=0.03)
    packed = answer(*data, tmp_path / "b", "--precision", "packed:1-4-4/1-6-7")
    alias = answer(*data, tmp_path / "c", "--configuration", "1-4-4/1-6-7")
    assert packed["test_error"] == alias["test_error"]
    assert (
        "simulated"
        not in line(*data, tmp_path / "d", "--precision", "mxfp8", "--storage", "simulated").stdout
    )
    assert "unknown storage 'packed' for bf16; known: real, simulated" in refused(
        *data, tmp_path / "e", "--precision", "bf16", "--storage", "packed"
    )
    assert "nearest that runs" in refused(*data, tmp_path / "e", "--precision", "fp8")
    assert "give --optimizer adamw" in refused(*data, tmp_path / "e", "--precision", "fp32-adamw8bit")
    adam = answer(
        *data, tmp_path / "f", "--precision", "bf16", "--optimizer", "adamw", "--augmentation", "flip-crop"
    )
    assert adam["outcome"] == "finished"


# What a review found


@needs
@pytest.mark.parametrize(
    ("kind", "options", "name", "said"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "maximize": True}, "fp32-sgd8bit", "no SGD with maximize=True"),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, "bf16-kahan", "no SGD with nesterov=True"),
        (torch.optim.AdamW, {"amsgrad": True}, "fp32-adamw8bit", "no AdamW with amsgrad=True"),
        (torch.optim.SGD, {}, "fp32-sgd8bit", "keeps momentum in 8 bits"),
        (torch.optim.SGD, {"momentum": 0.9}, "bf16-sr-adamw8bit", "take torch.optim.AdamW"),
        (torch.optim.Adagrad, {}, "bf16-kahan", "no Adagrad with Kahan summation"),
    ],
)
def test_what_another_library_would_lose_is_refused_and_nothing_is_changed(kind, options, name, said):
    net = nn.Linear(4, 4)
    with pytest.raises(NetworkError, match=said):
        prepare(net, kind(net.parameters(), lr=0.1, **options), name, recompute=[])
    assert net.weight.dtype == torch.float32


def test_complex_parameters_and_modules_without_any_are_refused():
    net = nn.Linear(4, 4, dtype=torch.complex64)
    with pytest.raises(NetworkError, match="no complex numbers"):
        prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), "bf16")
    other = nn.Linear(1, 1)
    with pytest.raises(NetworkError, match="no parameters to train"):
        prepare(nn.ReLU(), torch.optim.SGD(other.parameters(), lr=0.1), "bf16")


def test_weights_that_are_rounded_stochastically_take_a_closure():
    net = nn.Linear(4, 4)
    ready = prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), "bf16-sr")
    before = net.weight.detach().clone()

    def closure():
        loss = ready.forward(torch.ones(2, 4)).square().mean()
        loss.backward()
        return loss

    assert ready.optimizer.step(closure).item() > 0
    assert not torch.equal(net.weight, before)


@needs
def test_states_of_small_parameters_stay_in_float32_beside_those_of_8_bits():
    net = nn.Sequential(nn.Linear(128, 128), nn.Linear(128, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    ready = prepare(net, optimizer, "bf16-sr-sgd8bit")
    for _ in range(2):
        ready.backward(ready.forward(torch.ones(2, 128)).square().mean())
        ready.step()
    kinds = [
        {x.dtype for x in ready.optimizer.state[p].values() if torch.is_tensor(x) and x.shape == p.shape}
        for p in net.parameters()
    ]
    small = {torch.float32}
    assert kinds == [{torch.uint8}, small, small, small]  # 16384 numbers, 128, 512 and 4


def test_a_simulated_training_is_not_gone_on_with_for_real(tmp_path):
    data = load("digits:01?train=64&test=64")
    how = (PRECISIONS["amp-bf16"], recipe(data, epochs=1), 0, tmp_path / "run")
    train_in_folder(data, *how, storage="simulated")
    with pytest.raises(StoreError, match="its storage is simulated, not real"):
        train_in_folder(data, *how, storage="real")


def test_a_refused_training_leaves_no_folder(tmp_path):
    start = ["train", "digits:01?train=64&test=64", "--network", "resnet8-w8", "--epochs", "1"]
    start += ["--out", tmp_path / "run"]
    assert "no packed form" in refused(*start, "--precision", "int8/int8")
    assert "nearest that runs" in refused(*start, "--precision", "mxfp8")
    options = ["--precision", "mxfp8", "--storage", "simulated", "--budget", "1MB"]
    assert "where neither a budget nor micro-batches apply" in refused(*start, *options)
    momentum = ["--precision", "fp32-sgd8bit", "--optimizer", "sgd,momentum=0"]
    assert "keeps momentum in 8 bits" in refused(*start, *momentum)
    assert not (tmp_path / "run").exists()
    assert "there is no folder" in refused("precisions", "--page", tmp_path / "none" / "page.md")


SECONDS = {"fp32": 1.0, "bf16": 0.5, "fp16": 9.0}  # of a convolution, on a processor with bfloat16 alone


def slow_at(monkeypatch, **seconds):
    monkeypatch.setattr(runs_here, "_convolution_seconds", lambda kind, device: (SECONDS | seconds)[kind])


def test_a_precision_is_slow_if_its_type_is(monkeypatch):
    slow_at(monkeypatch)
    assert all(map(runs_here.is_slow, ("amp-fp16", "amp-fp16-sgd8bit")))
    for name in ("fp32", "fp32-sgd8bit", "1-4-1/1-6-7", "amp-bf16", "bf16-sr", "bf16"):
        assert not runs_here.is_slow(name)
    slow_at(monkeypatch, bf16=3.0)
    assert runs_here.is_slow("bf16-kahan")
    slow_at(monkeypatch, bf16=2.9, fp16=2.9)
    assert not any(map(runs_here.is_slow, ("bf16", "amp-fp16")))


def test_a_training_that_is_slow_here_says_so(monkeypatch, tmp_path):
    slow_at(monkeypatch)
    data = ["train", DATA, "--network", "resnet8-w8", "--epochs", "1", "--min-steps", "2", "--out"]
    for name, said in (("amp-fp16", True), ("amp-bf16", False), ("packed:1-4-4/1-6-7", False)):
        printed = line(*data, tmp_path / name.partition(":")[0], "--precision", name).stdout
        assert (f"note      {name} computes in float16" in printed) == said
    slow_at(monkeypatch, fp16=1.0)
    assert runs_here.slowness("amp-fp16") == ""


def test_what_is_timed_is_a_convolution_in_the_type_itself(monkeypatch):
    run, kinds = runs_here.functional.conv2d, []

    def conv2d(x, weight, **options):
        kinds.append((x.dtype, weight.dtype))
        return run(x, weight, **options)

    monkeypatch.setattr(runs_here.functional, "conv2d", conv2d)
    runs_here._convolution_seconds.cache_clear()
    threads = torch.get_num_threads()
    runs_here.is_slow("amp-bf16")
    runs_here.is_slow("amp-fp16")
    assert torch.get_num_threads() == threads
    types = torch.float32, torch.bfloat16, torch.float16
    assert {*kinds} == {(one, one) for one in types}
    assert len(kinds) == 3 * 4  # four of each type, which is then known


def test_a_pick_that_is_slow_here_names_the_best_that_is_not(monkeypatch):
    def notes():
        found = peppp.pick("digits", budget="40MB", network="resnet8-w8", dry_run=True)
        return found, [note for note in found.notes if "three times" in note]

    slow_at(monkeypatch, bf16=0.5, fp16=0.5)
    assert notes()[1] == []
    slow_at(monkeypatch, bf16=9.0)
    found, (note,) = notes()
    picked = parse_precision(str(found.configuration))
    assert not is_of_formats(picked)
    assert note.startswith(f"{picked} computes in bfloat16")
    fast = [p for p in found.predictions if p.permissible and not runs_here.is_slow(p.configuration)]
    best = min(fast, key=lambda p: p.error)
    assert f"; {best.configuration} is not slow" in note
    assert best.error >= next(p.error for p in found.predictions if p.configuration == picked)
