"""Strided 1x1 convolutions of few channels: right in all our trainings, named in a loop of the user's own."""

import copy
import os
import stat
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import peppp
from peppp.lowprec.network import convolutions
from peppp.lowprec.network.convolutions import holds_narrow, is_channels_last, is_narrow, repair
from peppp.tasks import networks

pytestmark = pytest.mark.case("0")
LAST = torch.channels_last
# The fault depends on the processor's instructions; these are all that the library can be limited to.
SETS = ["DEFAULT", "AVX2"]


@given(
    channels=st.integers(1, 20),
    stride=st.sampled_from([1, 2, 3, (1, 2), (2, 1), [2, 2]]),
    padding=st.sampled_from([0, (0, 0), 1, "valid"]),
    groups=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 3, (1, 3)]),
    layout=st.sampled_from([torch.contiguous_format, LAST]),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    batched=st.booleans(),
    bias=st.booleans(),
    transposed=st.booleans(),
    frozen=st.booleans(),
)
def test_repaired_gradients_are_those_of_float64(
    channels, stride, padding, groups, kernel, layout, size, batched, bias, transposed, frozen
):
    """Every kind of convolution goes through the replacement, once it is there."""
    repair()
    channels *= groups
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    padding = 0 if transposed and padding == "valid" else padding
    layer = kind(channels, 4, kernel, stride, padding, groups=groups, bias=bias)
    layer.weight.requires_grad_(not frozen)
    x = torch.randn(2, channels, *size).contiguous(memory_format=layout)
    x = (x if batched else x[0]).requires_grad_()
    exact_layer, exact_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    y, expected = layer(x), exact_layer(exact_x)
    error = torch.randn_like(y)
    y.backward(error)
    expected.backward(error.double())
    assert x.grad.stride() == x.stride()
    torch.testing.assert_close(x.grad.double(), exact_x.grad, rtol=1e-4, atol=1e-5)
    for ours, wanted in zip(layer.parameters(), exact_layer.parameters(), strict=True):
        assert (ours.grad is None) == (wanted.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad.double(), wanted.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "stride", "padding", "narrow"),
    [
        ((8, 4, 1, 1), 2, 0, True),
        ((8, 15, 1, 1), (1, 2), "valid", True),
        ((8, 16, 1, 1), 2, 0, False),
        ((8, 4, 3, 3), 2, 0, False),
        ((8, 4, 1, 1), 1, 0, False),
        ((8, 4, 1, 1), 2, 1, False),
        ((8, 4, 1), 2, 0, False),
    ],
)
def test_only_strided_1x1_convolutions_of_few_channels_are_computed_otherwise(shape, stride, padding, narrow):
    assert is_narrow(torch.ones(shape), stride, padding) is narrow


@given(
    shape=st.tuples(*[st.integers(1, 3)] * 4),
    layout=st.sampled_from([torch.contiguous_format, LAST]),
)
def test_the_layout_is_the_one_that_torch_computes_in(shape, layout):
    """An elementwise operation of torch keeps the layout that it sees."""
    tensor = torch.randn(shape).contiguous(memory_format=layout)
    if is_channels_last(tensor):
        assert tensor.is_contiguous(memory_format=LAST)
    elif min(shape) > 1:
        assert layout is torch.contiguous_format


# What trains 12 steps and prints by how much its weights differ from those of the same network in the layout
# that is right. Where memory is written past its end, it crashes.
_TRAINING = """
import sys, torch
from torch import nn
import peppp
from peppp.training import loop
from test_convolutions import NETWORKS, data

channels, pixels, name, configuration = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
recipe = peppp.Recipe(network="test_convolutions:build", epochs=1, learning_rate=0.01, batch_size=8)
trained = []
for plain in (False, True):
    NETWORKS["chosen"] = channels, name
    if plain:
        loop.fresh_network = lambda d, r, key, fresh=loop.fresh_network: fresh(d, r, key).to(
            memory_format=torch.contiguous_format)
        loop.Batches.__getitem__ = lambda self, i, get=loop.Batches.__getitem__: get(self, i).contiguous()
    training = loop.train(data(pixels), peppp.Configuration.parse(configuration), recipe, 0)
    trained.append(torch.cat([p.detach().flatten() for p in training.network.parameters()]))
print(float((trained[0] - trained[1]).abs().max()))
"""
NETWORKS: dict[str, tuple[int, str]] = {}


@torch.jit.script
def scripted(x, weight):
    return torch.conv2d(x, weight, stride=[2, 2])


class Layers(nn.Module):
    """A stem, something strided and narrow, and a head."""

    def __init__(self, channels, kind):
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.narrow = nn.Conv2d(channels, 16, 1, stride=2)
        self.head = nn.Linear(16, 4)

    def strided(self, x):
        if self.kind == "script":
            return scripted(x, self.narrow.weight)
        if self.kind == "functional":
            return functional.conv2d(x, self.narrow.weight, stride=(2, 2))
        return self.narrow(x)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        if self.kind.startswith("recomputed"):
            y = checkpoint(self.strided, x, use_reentrant="reentrant" in self.kind)
        else:
            y = self.strided(x)
        return self.head(functional.relu(y).mean((2, 3)))


def build(classes, channels):
    return Layers(*NETWORKS["chosen"])


def data(pixels):
    import numpy as np

    from peppp.tasks.dataset import Dataset

    x = np.random.default_rng(0).integers(0, 256, (96, pixels, pixels, 3)).astype(np.uint8)
    labels = np.arange(96) % 4
    return Dataset("noise", "noise", "noise", tuple("abcd"), x, labels, x[:8], labels[:8])


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize(
    ("channels", "pixels", "kind", "configuration"),
    [
        (4, 16, "layer", "fp32/fp32"),
        (8, 64, "layer", "fp32/fp32"),
        (4, 16, "layer", "1-5-10/1-8-20"),
        (8, 64, "functional", "1-5-10/1-8-20"),
        (4, 16, "functional", "fp32/fp32"),
        (4, 16, "script", "fp32/fp32"),
        (4, 16, "recomputed", "fp32/fp32"),
        (4, 16, "recomputed reentrant", "fp32/fp32"),
    ],
)
def test_networks_of_the_user_s_own_train_right(instructions, channels, pixels, kind, configuration):
    ended = subprocess.run(
        [sys.executable, "-c", _TRAINING, str(channels), str(pixels), kind, configuration],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions, "OMP_NUM_THREADS": "1"},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < (1e-4 if configuration == "fp32/fp32" else 1e-2)


@pytest.mark.parametrize(
    ("network", "narrow"),
    [
        ("resnet8", False),
        ("resnet8-w8", True),
        ("resnet34-w15", True),
        ("vgg11-w8", False),
        ("resnet18", False),
    ],
)
def test_of_the_named_networks_only_narrow_resnets_need_the_repair(network, narrow):
    assert holds_narrow(networks.build(network, classes=4)) is narrow


def narrow_network():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 8, 1, 2)), nn.Flatten())
    return peppp.low_precision(net, "1-4-3/1-6-7", seed=0)


def test_a_loop_of_the_user_s_own_is_warned_once_and_the_layer_named():
    net = narrow_network().to(memory_format=LAST)
    images = torch.ones(2, 3, 8, 8).to(memory_format=LAST)
    with pytest.warns(UserWarning, match=r"^1\.0: torch's CPU library crashes .* of 4 channels"):
        net(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(images)


def test_nothing_is_said_where_the_layout_is_the_other():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        narrow_network()(torch.ones(2, 3, 8, 8))


@pytest.mark.parametrize("instructions", SETS)
def test_what_our_trainings_do_is_right_under_every_instruction_set(instructions, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", instructions)
    assert convolutions.examine(repaired=True) == "right"
    assert convolutions.examine() in ("right", "wrong", "crashed")


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("echo right", "right"),
        ("echo wrong", "wrong"),
        ("echo right; kill -SEGV $$", "crashed"),
        ("exit 1", "crashed"),
        ("exec sleep 60", "crashed"),
    ],
)
def test_a_crash_or_a_hang_of_the_examined_process_is_a_verdict(script, verdict, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(convolutions, "_SECONDS", 2)
    assert convolutions.examine() == verdict
