"""Simulated optimizers beside the libraries that run them: bitsandbytes, torch-optimi and torch itself."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peppp.formats import parse_format
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.rounding.quantize import quantize

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("signed", [True, False])
def test_dynamic_codes_are_those_of_bitsandbytes(signed):
    library = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    text = "dynamic8/256" if signed else "dynamic8u/256"
    theirs = library.create_dynamic_map(signed=signed)
    assert torch.allclose(torch.tensor(parse_format(text).numbers), theirs, rtol=1e-6, atol=0)
    x = torch.randn(256 * 40, generator=torch.Generator().manual_seed(0))
    x = x if signed else x.abs()
    codes, state = library.quantize_blockwise(x, code=theirs, blocksize=256)
    found, wanted = quantize(x, text), library.dequantize_blockwise(codes, state)
    # Their CPU kernel looks codes up in a coarse table: it takes a neighbour now and then, and rounds the
    # smallest numbers by more.
    scale = x.reshape(-1, 256).abs().amax(1).repeat_interleave(256)
    large = x.abs() > 1e-3 * scale
    assert ((found - wanted).abs() < 1e-5 * scale)[large].float().mean() > 0.95
    assert (found - x).abs().sum() <= (wanted - x).abs().sum()
    assert ((found - wanted).abs() <= 0.015 * scale)[large].all()


def trained(make, name, precision=None, dtype=torch.float32, steps=200):
    """The losses of an MLP on fixed numbers: by a library where ``precision`` is None, else simulated."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(80, 64), nn.ReLU(), nn.Linear(64, 4))
    x, y = torch.randn(128, 80), torch.randint(4, (128,))
    net = copy.deepcopy(net).to(dtype)
    if precision is not None:
        low_precision(net, precision, seed=0)
    optimizer = make(net.parameters())
    if precision is not None:
        optimizer = low_precision_optimizer(optimizer, net)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x.to(dtype)).float(), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2, name
    return losses


def test_states_of_8_bits_train_as_those_of_bitsandbytes():
    library = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    real = trained(lambda p: library.optim.SGD8bit(p, lr=0.01, momentum=0.9), "bitsandbytes")
    plain = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)  # noqa: E731
    found = trained(plain, "peppp", "fp32-sgd8bit")
    assert max(abs(a - b) for a, b in zip(real, found, strict=True)) < 0.01


def test_kahan_summation_trains_as_torch_optimi():
    library = pytest.importorskip("optimi", reason="torch-optimi is not installed")
    real = trained(
        lambda p: library.SGD(p, lr=0.01, momentum=0.9, kahan_sum=True), "optimi", dtype=torch.bfloat16
    )
    plain = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)  # noqa: E731
    found = trained(plain, "peppp", "bf16-kahan")
    assert max(abs(a - b) for a, b in zip(real, found, strict=True)) < 0.02


def test_pure_bf16_trains_as_torch():
    make = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)  # noqa: E731
    real, found = trained(make, "torch", dtype=torch.bfloat16), trained(make, "peppp", "bf16")
    assert max(abs(a - b) for a, b in zip(real, found, strict=True)) < 0.03
