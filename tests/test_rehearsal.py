"""The estimate of a step against the bytes that torch's allocator hands out, and against arithmetic."""

import statistics

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peppp.errors import BudgetError, FormatError, NetworkError
from peppp.footprint.counting import count_elements, count_layers, count_outputs
from peppp.footprint.estimate import Choices, estimate, inference_footprint, largest_batch, preset_bytes
from peppp.footprint.measuring import measure_step
from peppp.footprint.moment import Moment
from peppp.footprint.rehearsal import rehearse
from peppp.formats import FP32_CONFIGURATION, Configuration, paper_grid
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.tasks import networks

COARSE = Configuration.parse("1-4-1/1-6-7")


class Pooled(nn.Module):
    """VGG's ingredients: convolutions with a bias, batch norm, ReLU, pooling."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for outputs in (32, 64, 128):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            inputs = outputs
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Transformer(nn.Module):
    """Two blocks of attention and perceptrons over 64 patches."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 96, 4, 4)
        self.norms = nn.ModuleList([nn.LayerNorm(96) for _ in range(4)])
        self.qkv = nn.ModuleList([nn.Linear(96, 288) for _ in range(2)])
        self.mlp = nn.ModuleList(
            [nn.Sequential(nn.Linear(96, 384), nn.GELU(), nn.Linear(384, 96)) for _ in range(2)]
        )
        self.head = nn.Linear(96, 10)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        for i in range(2):
            q, k, v = self.qkv[i](self.norms[2 * i](x)).view(-1, 64, 3, 4, 24).permute(2, 0, 3, 1, 4)
            x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.mlp[i](self.norms[2 * i + 1](x))
        return self.head(x.mean(1))


def resnet(name):
    return lambda: networks.build(name, classes=10)


def on_meta(kind):
    return kind().to("meta").to(memory_format=torch.channels_last)


class Recurrent(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.LSTM(96, 64, 2, batch_first=True), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.recurrent(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


class Encoder(nn.Module):
    """Torch's own encoder layers, whose attention is within one function."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 96, 4, 4)
        layers = [nn.TransformerEncoderLayer(96, 4, 384, dropout=0.0, batch_first=True) for _ in range(2)]
        self.blocks, self.head = nn.Sequential(*layers), nn.Linear(96, 10)

    def forward(self, x):
        return self.head(self.blocks(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


class Checkpointed(nn.Module):
    """Two blocks, recomputed in the backward pass, and dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.1)) for _ in range(2)]
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.head(x.mean((2, 3)))


def frozen_stem():
    network = Pooled()
    network.layers[:8].requires_grad_(False)
    return network


def wide_linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 300), nn.ReLU(), nn.Linear(300, 10))


def flattened():
    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(12 * 16 * 16, 10))


def depthwise():
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.SiLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.SiLU(),
        nn.Conv2d(24, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 10),
    )  # fmt: skip


def training(kind, storage, side, batch, options):
    def build():
        torch.manual_seed(0)
        net = kind().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
        if storage != "fp32":
            low_precision(net, COARSE, seed=0)
            steps = {"gradients": "in_backward"} | options
            optimizer = low_precision_optimizer(optimizer, net, storage=storage, **steps)
        x = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
        y = torch.randint(10, (batch,))

        def finish():
            optimizer.step()
            optimizer.zero_grad()

        return lambda: nn.functional.cross_entropy(net(x), y), finish

    return build


def assert_estimate_is_what_is_measured(kind, storage, side=32, batch=16, **options):
    measured = measure_step(training(kind, storage, side, batch, options))
    rehearsed = rehearse(on_meta(kind), (3, side, side), batch, storage=storage, **options)
    configuration = FP32_CONFIGURATION if storage == "fp32" else COARSE
    assert rehearsed.at_rest.bytes(configuration) == pytest.approx(measured.at_rest, rel=0.02)
    assert rehearsed.kept.bytes(configuration) == pytest.approx(measured.kept, rel=0.02)
    assert rehearsed.peak(configuration) == pytest.approx(measured.peak, rel=0.1)


@pytest.mark.parametrize("storage", ["fp32", "simulated", "packed"])
@pytest.mark.parametrize("kind", [resnet("resnet8-w32"), Pooled, Transformer])
def test_estimates_are_within_2_and_10_percent_of_the_allocator_s_bytes(kind, storage):
    torch.set_num_threads(1)
    assert_estimate_is_what_is_measured(kind, storage)


SMALL = {
    "LSTM": pytest.param(Recurrent, 32, marks=pytest.mark.case("R"), id="LSTM"),
    "frozen": pytest.param(frozen_stem, 32, marks=pytest.mark.case("S"), id="frozen"),
    "linear": pytest.param(wide_linear, 16, marks=pytest.mark.case("AB"), id="a wide linear layer"),
    "flatten": pytest.param(flattened, 16, marks=pytest.mark.case("AB"), id="a flatten that copies"),
    "depthwise": pytest.param(depthwise, 16, marks=pytest.mark.case("AB"), id="depthwise, SiLU, dropout"),
    "checkpoint": pytest.param(Checkpointed, 16, marks=pytest.mark.case("AB"), id="recomputed blocks"),
    "encoder": pytest.param(Encoder, 32, id="torch's encoder"),
}


@pytest.mark.filterwarnings("ignore:not rounded to low precision. what lstm computes inside")
@pytest.mark.parametrize("storage", ["fp32", "simulated", "packed"])
@pytest.mark.parametrize(("kind", "side"), SMALL.values())
def test_estimates_of_small_networks_of_other_kinds(kind, side, storage):
    torch.set_num_threads(1)
    assert_estimate_is_what_is_measured(
        kind, storage, side, 64
    )  # checkpoint keeps 5 kB of random state a block


@pytest.mark.case("S")
def test_frozen_weights_have_no_gradient_and_no_states():
    network = frozen_stem()
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    counts = count_elements(network.to("meta"), (3, 32, 32), 4)
    assert (counts.frozen, counts.weights) == (frozen, frozen + trained)
    footprint = counts.footprint(COARSE)
    assert footprint.gradients == footprint.states["accumulator"] == -(-trained * 14 // 8)


@pytest.mark.parametrize(
    "options",
    [{"gradients": "packed"}, {"gradients": "fp32"}, {"weights": "packed"}, {"accumulator": False}],
)
def test_estimates_know_how_gradients_and_weights_are_stored(options):
    assert_estimate_is_what_is_measured(resnet("resnet8-w32"), "packed", **options)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["fp32", "packed"])
@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("resnet18", 64), ("resnet34", 32)])
def test_estimates_of_the_paper_s_networks(name, side, storage):
    assert_estimate_is_what_is_measured(resnet(name), storage, side, 32)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "least"), [(32, 2.5), (64, 2.8)])
def test_a_packed_step_of_resnet18_needs_less_than_a_plain_one(side, least):
    plain, packed = (measure_step(training(resnet("resnet18"), s, side, 32, {})) for s in ("fp32", "packed"))
    assert plain.peak / packed.peak > least


def test_one_rehearsal_serves_every_configuration():
    build = lambda: on_meta(resnet("resnet8"))  # noqa: E731
    found = estimate(build, (3, 16, 16), 8)
    peaks = {c: found.peak(c) for c in paper_grid()}
    for one in paper_grid():
        for other in paper_grid():
            if one.format_a.bits <= other.format_a.bits and one.format_b.bits <= other.format_b.bits:
                assert peaks[one] <= peaks[other]
    footprint = found.footprint(COARSE)
    assert footprint.total + footprint.working == max(found.peak(COARSE), footprint.total)
    assert found.footprint(FP32_CONFIGURATION).activations == found.counts.activations * 4


def test_the_highest_moment_depends_on_the_configuration():
    moments = (Moment(100, 0, 0), Moment(10, 100, 0), Moment(0, 10, 100))
    assert [m.bytes(COARSE) for m in moments] == [100, 10 + 75, 8 + 175]


def test_rehearsing_allocates_nothing():
    with torch.device("meta"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2**20, 2**16))  # 824 GB of weights
    assert rehearse(network, (3, 1024, 1024), 4).peak(COARSE) > 2**36


def test_layers_add_up_to_the_whole():
    layers = count_layers(on_meta(resnet("resnet8")), (3, 32, 32), 4)
    whole = count_elements(on_meta(resnet("resnet8")), (3, 32, 32), 4)
    for part in ("weights", "activations", "raw_bytes"):
        assert sum(getattr(layer.counts, part) for layer in layers) == getattr(whole, part)
    assert {"blocks.0.conv1", "head", "loss"} <= {layer.name for layer in layers}


def test_outputs_of_resnet18_as_worked_out_by_hand():
    assert count_outputs(on_meta(resnet("resnet18")), (3, 32, 32), 1) == 2 * 614_400 + 557_056


def test_the_fitted_preset_gives_the_median_it_was_fitted_to():
    """21 of the paper's data sets have 32 pixels, 66 have 64; all 99 configurations."""
    build = lambda: on_meta(resnet("resnet18"))  # noqa: E731
    totals = []
    for side, sets in ((32, 21), (64, 66)):
        of = preset_bytes(build, (3, side, side), 32, "paper_scale")
        totals += [of(c).total for c in paper_grid()] * sets
    assert statistics.median(totals) / 2**20 == pytest.approx(815, abs=1)
    with pytest.raises(FormatError, match="unknown preset 'other'"):
        preset_bytes(build, (3, 32, 32), 32, "other")


def test_inference_needs_weights_and_the_largest_live_activations():
    kind = lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 100), nn.Linear(100, 10))  # noqa: E731
    footprint = inference_footprint(lambda: on_meta(kind), (3, 4, 4), 2)(FP32_CONFIGURATION)
    assert footprint.weights == 4 * (48 * 100 + 100 + 100 * 10 + 10)
    assert footprint.activations == 4 * 2 * (48 + 100 + 10)  # the caller holds the input
    assert footprint.optimizer == 0


@pytest.mark.parametrize("budget", [1000, 1001, 5000, 123_456])
def test_the_largest_batch_is_the_largest(budget):
    tried = []

    def peak(batch):
        tried.append(batch)
        return max(300 + 10 * batch, 17 * batch)

    found = largest_batch(peak, budget)
    assert peak(found) <= budget < peak(found + 1)
    assert len(tried) < 30


def test_no_batch_at_all_says_what_one_takes():
    with pytest.raises(BudgetError, match="no batch fits in 10 B at 1-4-1/1-6-7; a batch of 1 takes 20 B"):
        largest_batch(lambda batch: 20 * batch, 10, configuration=COARSE)


def test_a_network_that_does_not_fit_its_input_cannot_be_rehearsed():
    with torch.device("meta"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(10, 10))
    with pytest.raises(NetworkError, match="Sequential cannot be rehearsed on inputs of 3x8x8"):
        rehearse(network, (3, 8, 8), 2)
    with pytest.raises(FormatError, match="unknown storage 'disk'"):
        estimate(lambda: network, (3, 8, 8), 2, Choices(storage="disk"))


def test_a_module_whose_parameters_have_no_shape_yet_is_refused_in_one_line():
    from peppp import recompute, training_memory
    from peppp.footprint.counting import count_elements

    lazy = nn.Sequential(nn.LazyLinear(2))
    for call in (
        lambda: training_memory(lazy, torch.ones(2, 3)),
        lambda: count_elements(lazy, (3,), 2),
        lambda: recompute(lazy, torch.ones(2, 3), budget="1MB"),
    ):
        with pytest.raises(NetworkError, match="lazy parameters without a shape"):
            call()
