"""Bytes before training, against the theory of memory worked out by hand."""

import pytest
import torch
from torch import nn

from peppp.errors import NetworkError
from peppp.footprint.counting import ElementCounts, count_elements
from peppp.formats import FP32_CONFIGURATION, Configuration, paper_grid
from peppp.tasks import networks

COARSE = Configuration.parse("1-4-1/1-6-7")
# What ResNet-18 keeps of one image of 32 pixels: the input, 20 convolutions, 17 ReLUs, pooled features.
INPUT, CONVOLUTIONS, RELUS, POOLED = 3 * 32 * 32, 614_400, 557_056, 512
PARAMETERS = 11_173_962


def counts(name="resnet18", side=32, batch=32):
    return count_elements(networks.build(name, classes=10, device="meta"), (3, side, side), batch)


def test_resnet18_keeps_what_the_theory_says():
    c = counts()
    assert c.weights == PARAMETERS
    assert c.activations == 32 * (INPUT + CONVOLUTIONS + RELUS + POOLED)
    norms = 2 * 4 * 5 * (64 + 128 + 256 + 512)  # mean and deviation of each channel of 20 batch norms
    loss = 32 * (10 * 4 + 8) + 4  # log-probabilities, labels, and the sum of their weights
    assert c.raw_bytes == norms + loss


@pytest.mark.parametrize(
    ("side", "configuration", "megabytes"),
    [
        (32, FP32_CONFIGURATION, 284.5),
        (32, COARSE, 95.2),
        (64, FP32_CONFIGURATION, 735.5),
        (64, COARSE, 179.8),
    ],
)
def test_totals_of_resnet18_at_batch_32(side, configuration, megabytes):
    footprint = counts(side=side).footprint(configuration)
    assert (footprint.total - footprint.raw) / 1e6 == pytest.approx(megabytes, abs=0.06)
    assert footprint.raw < 0.2e6


def test_a_configuration_only_changes_bits():
    c = ElementCounts(weights=1000, activations=80_000, raw_bytes=44)
    f = c.footprint(COARSE)
    assert (f.weights, f.activations, f.gradients, f.raw) == (750, 60_000, 1750, 44)
    assert f.states == {"momentum": 1750, "accumulator": 1750}
    assert f.total == 750 + 60_000 + 3 * 1750 + 44
    assert c.footprint(COARSE, accumulator=False).total == f.total - 1750
    assert set(c.footprint(COARSE, optimizer="adam").states) == {"exp_avg", "exp_avg_sq", "accumulator"}
    assert "accumulator" not in c.footprint(FP32_CONFIGURATION).states
    assert c.footprint(FP32_CONFIGURATION).total == 4 * (1000 + 80_000 + 2 * 1000) + 44


def test_the_whole_grid_is_ordered_by_its_bits():
    c = counts("resnet8", 16)
    totals = {k: c.footprint(k).total for k in paper_grid()}
    for one in paper_grid():
        for other in paper_grid():
            if one.format_a.bits <= other.format_a.bits and one.format_b.bits <= other.format_b.bits:
                assert totals[one] <= totals[other]


def test_activations_grow_with_the_batch_and_nothing_else_does():
    one, four = counts("resnet8", 8, 8), counts("resnet8", 8, 32)
    assert four.activations == 4 * one.activations
    assert four.weights == one.weights


def test_a_storage_that_several_operations_keep_counts_once():
    """ReLU's result and the next layer's input are one tensor; a residual keeps none of its own."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(10, 10)
            self.b = nn.Linear(10, 10)

        def forward(self, x):
            y = torch.relu(self.a(x))
            return self.b(y) + self.a(y)

    with torch.device("meta"):
        network = Shared()
    assert count_elements(network, (10,), 4).activations == 2 * 4 * 10  # the input and y


def test_counting_allocates_nothing():
    with torch.device("meta"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2**20, 2**20))  # 12 TB of weights
    assert count_elements(network, (3, 1024, 1024), 8).weights == 3 * 2**40 + 2**20


def test_a_network_that_does_not_fit_its_input_says_so():
    with torch.device("meta"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(10, 10))
    with pytest.raises(NetworkError, match="Sequential cannot be counted on inputs of 3x8x8"):
        count_elements(network, (3, 8, 8), 2)
