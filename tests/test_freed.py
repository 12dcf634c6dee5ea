"""What a training made is freed when nobody holds it: a process that trains often does not grow."""

import gc
import weakref

import pytest
import torch
from torch import nn

import peppp
from peppp.footprint.measuring import AllocatorTrace, measure_step, measure_training
from peppp.precisions.known import parse_precision
from peppp.records import Recipe
from peppp.tasks.dataset import blank_images
from peppp.training import loop, measurement
from peppp.training.blocks import compute_again
from peppp.training.kept_training import train_in_folder
from peppp.training.loop import fresh_network
from peppp.training.planning import Planning
from peppp.training.prepare import prepare
from peppp.training.sizes import with_resolution

PAIR = "1-4-3/1-6-9"
WAYS = {
    "fp32": None,
    "simulated": {"storage": "simulated"},
    **{f"packed, gradients {how}": {"storage": "packed", "gradients": how} for how in ("fp32", "packed")},
    "packed, in the backward pass": {"storage": "packed", "gradients": "in_backward"},
    "packed, recomputed": {"storage": "packed", "weights": "recomputed"},
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def images():
    return torch.rand(4, 3, 8, 8)


def built():
    net = network()
    net(images())
    return net


def freed(make):
    """Whether all that ``make`` returns is freed once it is dropped and garbage is collected."""
    references = [weakref.ref(found) for found in make()]
    gc.collect()
    return all(reference() is None for reference in references)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_network_and_its_optimizer_are_freed(way, steps):
    def make():
        net = built()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        if WAYS[way] is not None:
            peppp.low_precision(net, PAIR, seed=3)
            optimizer = peppp.low_precision_optimizer(optimizer, net, **WAYS[way])
        for _ in range(steps):
            net(images()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return net, optimizer, *net.parameters()

    assert freed(make)


@pytest.mark.parametrize("precision", [PAIR, "fp32", "amp-bf16", "amp-fp16", "bf16", "bf16-sr", "bf16-kahan"])
def test_a_prepared_training_is_freed(precision):
    if precision == "bf16-kahan":
        pytest.importorskip("optimi")

    def make():
        net = built()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        ready = prepare(net, optimizer, precision)
        ready.backward(ready.forward(images()).square().mean())
        ready.step()
        return net, optimizer, ready, *net.parameters()

    assert freed(make)


@pytest.mark.parametrize("precision", ["fp8-all", "int8-all", "mxfp4-all", "nvfp4-all"])
def test_a_training_in_simulated_products_is_freed(precision):
    def make():
        net = built()
        peppp.low_precision(net, precision, seed=3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        net(images()).square().mean().backward()
        optimizer.step()
        return net, optimizer, *net.parameters()

    assert freed(make)


@pytest.mark.parametrize("storage", ["fp32", "packed"])
def test_a_training_with_recomputed_blocks_is_freed(storage):
    def make():
        net = nn.Sequential(
            nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Sequential(nn.Linear(6, 6)), nn.ReLU()
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        compute_again(net, ["0", "1"])
        if storage == "packed":
            peppp.low_precision(net, PAIR, seed=3)
            optimizer = peppp.low_precision_optimizer(
                optimizer, net, storage="packed", gradients="in_backward"
            )
        for _ in range(2):
            net(torch.rand(4, 6)).square().mean().backward()
            optimizer.step()
        return net, optimizer, *net.parameters()

    assert freed(make)


@pytest.mark.parametrize("precision", ["fp32", PAIR])
def test_a_rehearsed_network_is_freed(precision):
    def make():
        net = built()
        how = {} if precision == "fp32" else {"precision": precision, "storage": "packed"}
        Planning(net, images(), **how).within(1 << 40)
        return net, *net.parameters()

    assert freed(make)


@pytest.mark.parametrize("release", [False, True])
def test_a_measured_training_is_freed(release):
    kept = []

    class Watched(nn.Linear):
        def __deepcopy__(self, memo):
            copied = Watched(5, 5)
            kept.append(weakref.ref(copied.weight))
            return copied

    measure_training(Watched(5, 5), torch.rand(2, 5), release_gradients=release)
    gc.collect()
    assert kept
    assert all(reference() is None for reference in kept)


def test_memory_at_rest_is_without_garbage_of_the_first_step():
    """Compiling a kernel leaves tensors in cycles, so the first training of a process seemed larger."""

    def training(garbage):
        net = nn.Linear(5, 5)
        steps = []

        def forward():
            if garbage and not steps:
                ring = [torch.ones(1000)]
                ring.append(ring)
            steps.append(1)
            return net(torch.ones(2, 5)).square().mean()

        return lambda: (forward, net.zero_grad)

    assert measure_step(training(garbage=True)) == measure_step(training(garbage=False))


def test_a_measurement_of_a_large_network_leaves_nothing_behind(monkeypatch):
    made = []

    def noted(*arguments):
        net = fresh_network(*arguments)
        made.append(weakref.ref(net))
        return net

    monkeypatch.setattr(loop, "fresh_network", noted)
    monkeypatch.setattr(measurement, "LARGE", 1000)
    dataset = blank_images(3, 8, 32)
    measurement.measure(dataset, parse_precision(PAIR), Recipe(network="resnet8-w8", epochs=1, min_steps=0))
    assert len(made) == 1
    assert made[0]() is None


def test_what_others_left_behind_is_not_freed_while_a_training_is_measured(tmp_path, monkeypatch):
    """As another training in this process leaves its network."""
    dataset = blank_images(3, 8, 32)
    recipe = with_resolution(Recipe(network="resnet8-w8", epochs=1, min_steps=0, batch_size=8), dataset)
    pair, step = parse_precision(PAIR), loop.Run._step

    def collecting(self, *arguments):
        """Let the garbage collector run in every step, as it does sooner or later."""
        gc.collect()
        return step(self, *arguments)

    clean = train_in_folder(dataset, pair, recipe, 0, tmp_path / "clean").peak
    monkeypatch.setattr(loop.Run, "_step", collecting)
    gc.disable()
    try:
        # Torch does not count freed memory that it never traced.
        with AllocatorTrace().stretch("all"):
            ring = [torch.ones(1 << 20)]
        ring.append(ring)
        del ring
        dirty = train_in_folder(dataset, pair, recipe, 0, tmp_path / "dirty").peak
    finally:
        gc.enable()
    assert dirty == clean > 0
