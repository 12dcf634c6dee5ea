"""Recomputed blocks: the same numbers in less memory, as planned and as torch's allocator says."""

import copy
import sys
from contextlib import nullcontext
from itertools import chain, combinations
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import peppp
from peppp.errors import BudgetError, NetworkError
from peppp.footprint.fakes import classification_loss
from peppp.footprint.measuring import measure_step, measure_training
from peppp.tasks.networks import build
from peppp.training.blocks import coarse_blocks, compute_again, finer_blocks, observed
from peppp.training.planning import Planning

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import budgets

PAIR = "1-4-1/1-6-7"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def encoder(dropout=0.0):
    """Four encoder layers of width 32."""
    return budgets.Encoder(12, 32, 4, dropout)


class UNet(nn.Module):
    """Two steps down and up again, with skips that are joined as views of one memory."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs, stride=1):
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.SiLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.SiLU(),
            )  # fmt: skip

        self.down, self.deeper = block(3, 8), block(8, 16, 2)
        self.up, self.joined, self.out = nn.ConvTranspose2d(16, 8, 2, 2), block(16, 8), nn.Conv2d(8, 10, 1)

    def forward(self, x):
        wide = self.down(x)
        deep = self.deeper(wide)
        return self.out(self.joined(torch.cat([self.up(deep), wide], 1)))


def residual():
    return build("resnet18-w16", classes=10, channels=3).to(memory_format=torch.channels_last)


def images(count=8, side=16):
    torch.manual_seed(5)
    return torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)


def sequences():
    torch.manual_seed(5)
    return torch.randn(8, 16, 12)


NETWORKS = {"encoder": (encoder, sequences), "unet": (UNet, images), "resnet": (residual, images)}
STORAGES = ("fp32", "simulated", "packed")


def training(network, inputs, storage, change=None, optimizer=None):
    """The network, its forward pass and what ends a step."""
    torch.manual_seed(0)
    net, x = network().train(), inputs()
    if change is not None:
        change(net)
    stepper = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    if storage != "fp32":
        peppp.low_precision(net, PAIR, seed=3)
        how = {"gradients": "in_backward"} if storage == "packed" else {}
        stepper = peppp.low_precision_optimizer(stepper, net, storage=storage, **how)

    def finish():
        stepper.step()
        stepper.zero_grad()

    return net, lambda: classification_loss(net(x)), finish


def planning(network, inputs, storage):
    if storage == "fp32":
        return Planning(network(), inputs(), loss=classification_loss)
    return Planning(network(), inputs(), precision=PAIR, storage=storage, loss=classification_loss)


def trained(network, inputs, storage, change=None, steps=3):
    torch.manual_seed(9)
    net, forward, finish = training(network, inputs, storage, change)
    for _ in range(steps):
        forward().backward()
        finish()
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_plan_is_within_its_budget_as_the_allocator_says(name, storage):
    network, inputs = NETWORKS[name]
    plans = planning(network, inputs, storage)
    most = plans.within(1 << 40).peak
    last = most
    for share in (0.95, 0.85, 0.75, 0.6):
        try:
            found = plans.within(int(share * most))
        except BudgetError:
            break
        real = measure_step(lambda found=found: training(network, inputs, storage, found.apply)[1:])
        assert real.peak <= share * most
        assert found.peak == pytest.approx(real.peak, rel=0.02)
        assert found.kept == pytest.approx(real.kept, rel=0.005)
        assert found.peak <= last
        last = found.peak
    # In a packed network one block may outweigh all that it could save: then nothing below is planned.
    assert last < most or (storage == "packed" and plans.lowest() > int(0.95 * most))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", NETWORKS)
def test_numbers_and_statistics_stay_bit_for_bit(name, storage):
    network, inputs = NETWORKS[name]
    found = observed(network(), inputs(), None, nullcontext())
    names = coarse_blocks(network(), found)
    assert len(names) >= 3
    before = trained(network, inputs, storage)
    after = trained(network, inputs, storage, lambda n: compute_again(n, names))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_module_that_is_converted_before_it_recomputes():
    found = observed(residual(), images(), None, nullcontext())
    net, forward, finish = training(residual, images, "packed")
    compute_again(net, coarse_blocks(net, found))
    for _ in range(3):
        forward().backward()
        finish()
    before = trained(residual, images, "packed")
    assert all(torch.equal(before[k], value) for k, value in net.state_dict().items())


@pytest.mark.parametrize("storage", ["fp32", "packed"])
def test_the_planner_s_peak_of_any_choice_is_that_of_its_rehearsal(storage):
    plans = planning(UNet, images, storage)
    planner = plans._planner(*plans._cut(0), plans._configuration)
    every = chain.from_iterable(combinations(planner.blocks, n) for n in range(len(planner.blocks) + 1))
    peaks = {}
    for chosen in every:
        found = plans._rehearsal(chosen)
        peaks[chosen] = found.peak(plans._configuration)
        assert planner.peak(chosen) == peaks[chosen]
    assert planner.lowest().peak == min(peaks.values())
    for peak in peaks.values():  # the cheapest of all that fit
        assert planner.plan(peak).extra == pytest.approx(
            min(
                sum(dict(zip(planner.blocks, planner._shares, strict=True))[b] for b in chosen)
                for chosen, own in peaks.items()
                if own <= peak
            ),
            abs=0.002,
        )


def test_random_numbers_are_drawn_as_they_were():
    def network():
        return encoder(dropout=0.3)

    found = observed(network(), sequences(), None, nullcontext())
    assert all(found[f"blocks.{i}"].draws for i in range(4))
    before = trained(network, sequences, "fp32")
    after = trained(
        network,
        sequences,
        "fp32",
        lambda n: compute_again(n, ["blocks.1", "blocks.2"], draws=["blocks.1", "blocks.2"]),
    )
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_attention_that_is_given_one_tensor_three_times():
    found = observed(encoder(), sequences(), None, nullcontext())
    assert finer_blocks(encoder(), found, "blocks.0") == ["blocks.0.self_attn"]
    for storage in STORAGES:
        before = trained(encoder, sequences, storage)
        after = trained(encoder, sequences, storage, lambda n: compute_again(n, ["blocks.0.self_attn"]))
        assert all(torch.equal(before[k], after[k]) for k in before)


class Kinds(nn.Module):
    """Blocks that cannot be computed again, and three that can."""

    class Plain(nn.Module):
        def __init__(self, *, inplace=False):
            super().__init__()
            self.relu, self.linear = nn.ReLU(inplace), nn.Linear(8, 8)

        def forward(self, x):
            return self.linear(self.relu(x))

    class Counting(Plain):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    class Dicts(Plain):
        def forward(self, x):
            return {"x": super().forward(x["x"])}

    class Objects(Plain):
        def forward(self, x, memory):
            memory.seen = x
            return super().forward(x)

    def __init__(self):
        super().__init__()
        self.frozen = self.Plain().requires_grad_(False)
        self.good, self.shared, self.never = self.Plain(), self.Plain(), self.Plain()
        self.writes, self.counts = self.Plain(inplace=True), self.Counting()
        self.dicts, self.objects = self.Dicts(), self.Objects()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.normed = nn.Sequential(nn.Conv1d(8, 8, 1), nn.InstanceNorm1d(8, track_running_stats=True))

    def forward(self, x):
        x = self.good(self.frozen(x))
        x = self.counts(self.writes(self.shared(self.shared(x))))
        x = self.objects(self.dicts({"x": x})["x"], self)
        x = self.lstm(x[:, None].expand(-1, 4, -1))[0]
        return self.normed(x.transpose(1, 2)).mean(2)


def test_what_cannot_be_computed_again_is_left_out():
    found = observed(Kinds(), torch.zeros(2, 8), None, nullcontext())
    against = {name: block.against for name, block in found.items() if block.against}
    assert against == {
        "frozen": "it returns nothing that is trained",
        "shared": "it is called 2 times in a forward pass",
        "never": "it is called 0 times in a forward pass",
        "writes": "it writes to its input or to a buffer",
        "counts": "it writes to its input or to a buffer",
        "objects": "it is given other things than tensors",
    }
    assert coarse_blocks(Kinds(), found) == ["good", "dicts", "lstm", "normed"]
    before = trained(Kinds, lambda: torch.ones(2, 8), "fp32")
    after = trained(
        Kinds,
        lambda: torch.ones(2, 8),
        "fp32",
        lambda n: compute_again(n, ["good", "dicts", "lstm", "normed"]),
    )
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_recomputed_module_is_used_as_before(tmp_path):
    net = residual()
    plain = copy.deepcopy(net)
    budget = int(0.95 * peppp.training_memory(net, images()).peak)
    found = peppp.recompute(net, images(), budget=budget)
    assert found.blocks
    assert 0 < found.extra < 0.4  # not more than one of three passes
    assert found.peak <= budget < found.peak_without
    assert list(net.state_dict()) == list(plain.state_dict())
    torch.save(net, tmp_path / "net.pt")
    for other in (copy.deepcopy(net), torch.load(tmp_path / "net.pt", weights_only=False)):
        assert measure_training(other, images()).peak == pytest.approx(found.peak, rel=0.005)
    net.eval()
    plain.eval()
    with torch.no_grad():
        assert torch.equal(net(images()), plain(images()))
    copied = copy.deepcopy(net)
    for parameter in copied.parameters():
        parameter.data.zero_()  # a copy computes with its own weights
    assert not torch.equal(copied(images()), net(images()))


@pytest.mark.parametrize("precision", ["amp-bf16", "bf16", "fp32-adamw8bit"])
def test_it_goes_with_what_people_train_in(precision):
    net = encoder()
    most = peppp.training_memory(net, sequences(), precision=precision).peak
    found = peppp.recompute(net, sequences(), budget=int(0.8 * most), precision=precision)
    assert found.blocks
    assert found.peak <= 0.8 * most
    if precision != "fp32-adamw8bit":
        real = measure_training(net, sequences(), precision=precision)
        assert found.peak == pytest.approx(real.peak, rel=0.01)


def test_a_budget_that_nothing_fits_names_the_block_and_the_smallest_that_works():
    with pytest.raises(
        BudgetError, match=r"the smallest budget that works is (\d+) bytes .* alone needs"
    ) as error:
        peppp.recompute(encoder(), sequences(), budget="100kB")
    least = int(str(error.value).split("works is ")[1].split()[0])
    assert peppp.recompute(encoder(), sequences(), budget=least).peak <= least
    with pytest.raises(BudgetError):
        peppp.recompute(encoder(), sequences(), budget=least - 1)


def test_wrong_input_is_said():
    with pytest.raises(NetworkError, match="recompute comes before low_precision"):
        peppp.recompute(peppp.low_precision(encoder(), PAIR), sequences(), budget="1MB")
    with pytest.raises(NetworkError, match="unknown precision"):
        peppp.recompute(encoder(), sequences(), budget="1MB", precision="fp31")
    with pytest.raises(NetworkError, match="cannot be rehearsed"):
        peppp.recompute(encoder(), torch.zeros(2, 5), budget="1MB")
    with pytest.raises(BudgetError, match="has no block that could be recomputed"):
        peppp.recompute(nn.Linear(100, 10), torch.zeros(4, 100), budget="1kB")
    with pytest.raises(NetworkError, match="no optimizer 'adafactor'"):
        peppp.recompute(encoder(), sequences(), budget="1MB", precision=PAIR, optimizer="adafactor")


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_views_are_rounded_as_other_tensors(rounding):
    torch.manual_seed(1)
    whole = torch.randn(3, 10, 6, 5) * 4
    views = [whole[:, 2:7], whole[..., 1:4], whole.transpose(1, 3)[:, 1:], whole.permute(2, 0, 3, 1)]
    for view in views:
        expected = peppp.quantize(view.contiguous(), "1-4-1", rounding=rounding, seed=4)
        assert torch.equal(peppp.quantize(view, "1-4-1", rounding=rounding, seed=4), expected)
        inside = whole.clone()
        target = inside.as_strided(view.shape, view.stride(), view.storage_offset())
        peppp.quantize(target, "1-4-1", rounding=rounding, seed=4, out=target)
        assert torch.equal(target, expected)
        assert torch.equal(functional.relu(target), expected.relu())
