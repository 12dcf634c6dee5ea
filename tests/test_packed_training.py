"""Training with packed storage against its simulation in float32: equal to the last bit."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint

from peppp.errors import NetworkError
from peppp.formats import FloatFormat
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.packing.packed_tensor import PackedTensor
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.quantize import quantize
from peppp.lowprec.storage.pooling import max_pool2d, pack_places, unpack_places
from peppp.tasks import networks

CONFIGURATION = "1-4-1/1-6-7"


class Small(nn.Module):
    """Convolutions, batch norm, a residual, two kinds of pooling, a view, a linear layer with a bias."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = self.pool(F.relu(self.norm2(self.conv(x)) + x))
        return self.head(F.max_pool2d(x, 3, stride=1, padding=1).mean((2, 3)))


class Attention(nn.Module):
    """One transformer block over 16 patches: what attention and GELU keep is partly not Format A's."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 2, 2)
        self.place = nn.Parameter(torch.randn(1, 16, 16) * 0.1)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = self.qkv(self.norm(x)).view(-1, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return self.head((x + self.mlp(x)).mean(1))


class Tied(nn.Module):
    """One weight used by two operations, once transposed, outside of the module that owns it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(192, 64)
        self.head = nn.Linear(192, 3)

    def forward(self, x):
        y = F.relu(self.inner(x.flatten(1)))
        return self.head(F.linear(y, self.inner.weight.t()))


class Held(nn.Module):
    """Code that holds what it computed: features used again and again, viewed, changed in place."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 * (i + 1), 3, 3, padding=1) for i in range(4))
        self.head = nn.Linear(15, 3)
        self.features = []

    def forward(self, x):
        self.features = [x]
        for conv in self.convs:
            self.features.append(F.relu(conv(torch.cat(self.features, 1))))
        rows = self.features[1].flatten(2)  # a view of memory that is emptied
        self.penalty = F.mse_loss(self.features[2], self.features[3]) + rows.square().mean()
        added = self.features[4] + self.features[1]
        added += self.features[2]
        return self.head(torch.cat([*self.features[:4], added], 1).amax((2, 3)))


def build(kind, rounding, storage, optimizer="sgd", channels_last=False, seed=5, **options):
    torch.manual_seed(0)
    net = kind()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    low_precision(net, CONFIGURATION, rounding=rounding, seed=seed)
    if optimizer == "sgd":
        base = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    else:
        base = {"adam": torch.optim.Adam, "plain": torch.optim.SGD}[optimizer](net.parameters(), lr=0.01)
    return net, low_precision_optimizer(base, net, storage=storage, **options)


def batch(step, side=8, count=12, channels_last=False):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(count, 3, side, side, generator=generator)
    y = torch.arange(count) % 3
    return (x.to(memory_format=torch.channels_last) if channels_last else x), y


def train(net, optimizer, steps=3, start=0, **options):
    losses = []
    for step in range(start, start + steps):
        x, y = batch(step, **options)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_states(ours, theirs):
    one, other = ours.state_dict(), theirs.state_dict()
    return all(torch.equal(one[name], other[name]) for name in other) and len(one) == len(other)


def same_optimizers(ours, theirs):
    one, other = ours.state_dict(), theirs.state_dict()
    accumulators = zip(one["accumulators"], other["accumulators"], strict=True)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in accumulators)
    assert one["clock"] == other["clock"]
    for index, state in other["state"].items():
        assert all(torch.equal(value, one["state"][index][name]) for name, value in state.items())
    return True


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("kind", [Small, Attention, Tied, Held])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "plain"])
@pytest.mark.parametrize("weights", ["packed", "recomputed"])
def test_losses_weights_and_states_are_the_simulation_s(kind, rounding, optimizer, weights):
    ours, our_optimizer = build(kind, rounding, "packed", optimizer, weights=weights)
    theirs, their_optimizer = build(kind, rounding, "simulated", optimizer)
    assert train(ours, our_optimizer) == train(theirs, their_optimizer)
    assert same_states(ours, theirs)
    assert same_optimizers(our_optimizer, their_optimizer)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_an_epoch_of_resnet8_in_channels_last(rounding):
    kind = lambda: networks.build("resnet8", classes=3)  # noqa: E731
    options = {"steps": 16, "side": 12, "count": 16, "channels_last": True}
    ours, theirs = (build(kind, rounding, s, channels_last=True) for s in ("packed", "simulated"))
    assert train(*ours, **options) == train(*theirs, **options)
    assert same_states(ours[0], theirs[0])


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_steps_of_resnet18_whose_layers_are_stepped_in_segments(rounding):
    kind = lambda: networks.build("resnet18", classes=3)  # noqa: E731
    options = {"steps": 3, "side": 16, "count": 4, "channels_last": True}
    ours, theirs = (build(kind, rounding, s, channels_last=True) for s in ("packed", "simulated"))
    largest = max(ours[1].packed, key=lambda parameter: parameter.numel())
    assert len(ours[1].packed[largest]["accumulator"].segments()) > 10
    assert train(*ours, **options) == train(*theirs, **options)
    assert same_states(ours[0], theirs[0])
    assert same_optimizers(ours[1], theirs[1])


@pytest.mark.parametrize("channels_last", [False, True])
def test_segments_of_one_layer_draw_the_bits_of_the_whole(channels_last, monkeypatch):
    monkeypatch.setattr("peppp.lowprec.storage.weights.SEGMENT", 100)
    options = {"channels_last": channels_last}
    ours, theirs = (build(Small, "stochastic", s, **options) for s in ("packed", "simulated"))
    assert len(ours[1].packed[ours[0].conv.weight]["accumulator"].segments()) == 8
    assert train(*ours, **options) == train(*theirs, **options)
    assert same_states(ours[0], theirs[0])


def test_without_kernels_and_without_an_accumulator(monkeypatch):
    for options in ({"accumulator": False}, {}):
        theirs = build(Small, "stochastic", "simulated", **options)
        expected = train(*theirs)
        ours = build(Small, "stochastic", "packed", **options)
        assert train(*ours) == expected
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "_loops", lambda: None)
            patch.setattr("peppp.lowprec.packing.codes._loops", lambda: None)
            plain = build(Small, "stochastic", "packed", **options)
            assert train(*plain) == expected
            assert same_states(plain[0], theirs[0])


@pytest.mark.parametrize("gradients", ["packed", "fp32"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_micro_batches_add_up_as_in_the_simulation(gradients, rounding):
    results = []
    for storage in ("packed", "simulated"):
        options = {"gradients": gradients} if storage == "packed" else {}
        net, optimizer = build(Small, rounding, storage, **options)
        for step in range(2):
            optimizer.zero_grad()
            for part in range(3):
                x, y = batch(3 * step + part)
                F.cross_entropy(net(x), y).backward()
            optimizer.step()
        results.append(net)
    assert same_states(*results)


def test_gradients_used_up_in_the_backward_pass_cannot_add_up():
    net, optimizer = build(Small, "nearest", "packed", gradients="in_backward")
    x, y = batch(0)
    F.cross_entropy(net(x), y).backward()
    for p in net.parameters():
        assert p.grad.untyped_storage().nbytes() == 4
        with pytest.raises(NetworkError, match=r"not kept in float32.*gradients='fp32'"):
            p.grad.norm()
    with pytest.raises(NetworkError, match=r'a second backward pass before step.*gradients="packed"'):
        F.cross_entropy(net(x), y).backward()
    del optimizer


def test_clipping_sees_gradients_where_they_are_kept():
    results = []
    for storage, options in (("packed", {"gradients": "fp32"}), ("simulated", {})):
        net, optimizer = build(Small, "stochastic", storage, **options)
        x, y = batch(0)
        F.cross_entropy(net(x), y).backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        results.append((net, norm))
    assert results[0][1] == results[1][1] > 0.1
    assert same_states(results[0][0], results[1][0])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_each_storage_goes_on_from_the_other_s_state(rounding, tmp_path):
    expected_net, expected_optimizer = build(Small, rounding, "simulated")
    losses = train(expected_net, expected_optimizer, steps=4)
    for first, second in (("packed", "simulated"), ("simulated", "packed"), ("packed", "packed")):
        net, optimizer = build(Small, rounding, first)
        train(net, optimizer, steps=2)
        torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
        resumed, resumed_optimizer = build(Small, rounding, second, seed=77)
        weights, state = torch.load(tmp_path / "state.pt")
        resumed.load_state_dict(weights)
        resumed_optimizer.load_state_dict(state)
        assert train(resumed, resumed_optimizer, steps=2, start=2) == losses[2:]
        assert same_states(resumed, expected_net)


def test_a_deep_copy_goes_its_own_way():
    net, optimizer = build(Small, "stochastic", "packed")
    train(net, optimizer, steps=1)
    other = copy.deepcopy(net)
    kept = {name: value.clone() for name, value in other.state_dict().items()}
    x, _ = batch(9)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), other.eval()(x))
    train(net.train(), optimizer, steps=1)
    assert all(torch.equal(value, kept[name]) for name, value in other.state_dict().items())
    train(
        other.train(), low_precision_optimizer(torch.optim.SGD(other.parameters()), other, storage="packed")
    )
    assert not same_states(other, net)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_recomputed_blocks(rounding):
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(checkpoint(self.block, x, use_reentrant=False).relu().mean((2, 3)))

    ours, theirs = (build(Blocks, rounding, storage) for storage in ("packed", "simulated"))
    assert train(*ours) == train(*theirs)
    assert same_states(ours[0], theirs[0])


def test_memory_that_several_operations_keep_is_packed_once():
    net, optimizer = build(Small, "nearest", "packed")
    x, y = batch(0)
    loss = F.cross_entropy(net(x), y)
    saved = optimizer.storage.saved
    values = 12 * (3 + 4 * 8) * 64  # the input, both convolutions' results, both ReLUs'
    pooled = 12 * 8
    assert sum(memory.shape.numel() for memory in saved.memories()) == values + pooled
    loss.backward()
    assert saved.memories() == []


def test_memory_that_is_packed_is_empty_while_the_network_s_own_code_holds_it():
    net, _ = build(Held, "nearest", "packed")
    empty = []

    def look(module, inputs):
        empty.append([f.untyped_storage().nbytes() == 0 for f in net.features])

    for conv in net.convs:
        conv.register_forward_pre_hook(look)
    x, y = batch(0)
    F.cross_entropy(net(x), y)
    assert [len(flags) for flags in empty] == [1, 2, 3, 4]
    # Nothing keeps the input, which has only been concatenated; ReLU keeps its results.
    assert all(flags[0] is False and flags[1:] == [True] * (len(flags) - 1) for flags in empty)


def test_what_the_caller_still_holds_after_a_pass_has_its_numbers():
    (ours, _), (theirs, _) = (build(Held, "stochastic", storage) for storage in ("packed", "simulated"))
    x, y = batch(0)
    for net in (ours, theirs):
        (F.cross_entropy(net(x), y) + net.penalty).backward()
    assert torch.equal(ours.penalty, theirs.penalty)
    for feature, expected in zip(ours.features, theirs.features, strict=True):
        assert torch.equal(feature, expected)
    assert ours.penalty > 0


def test_what_cannot_be_packed_is_kept_counted_and_named():
    net, optimizer = build(Attention, "nearest", "packed")
    x, y = batch(0)
    F.cross_entropy(net(x), y)
    raw = optimizer.storage.saved.raw
    attention = [name for name in raw if name.startswith("scaled_dot_product_attention")]
    assert attention
    assert sum(raw[name] for name in attention) >= 12 * 16 * 16 * 4  # its own unrounded result
    assert all(name.split()[0] in ("layer_norm", "scaled_dot_product_attention") for name in raw)


def test_a_parameter_between_uses_cannot_be_read_and_costs_one_number():
    net, optimizer = build(Small, "nearest", "packed")
    for p in net.parameters():
        assert p.untyped_storage().nbytes() == 4
        with pytest.raises(NetworkError, match=r"packed parameter has no numbers.*state_dict"):
            p.isnan()
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in Small().parameters())
    assert all(not value.isnan().any() for value in net.state_dict().values())
    del optimizer


def test_divergence_shows_as_in_the_simulation():
    for storage in ("packed", "simulated"):
        net, optimizer = build(Small, "nearest", storage)
        x, y = batch(0)
        (F.cross_entropy(net(x), y) * math.nan).backward()
        optimizer.step()
        assert F.cross_entropy(net(x), y).isnan()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_float32_weights_that_are_loaded_are_rounded_as_in_the_simulation(rounding):
    torch.manual_seed(3)
    weights = Small().state_dict()
    ours, theirs = (build(Small, rounding, storage) for storage in ("packed", "simulated"))
    for net, _ in (ours, theirs):
        net.load_state_dict(weights)
    assert train(*ours) == train(*theirs)
    assert same_states(ours[0], theirs[0])


def test_unknown_ways_to_store_are_refused():
    with pytest.raises(NetworkError, match="unknown storage 'zip'; known: simulated, packed"):
        build(Small, "nearest", "zip")
    with pytest.raises(NetworkError, match="unknown gradients='none'"):
        build(Small, "nearest", "packed", gradients="none")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("window", "stride", "padding", "ceil"),
    [(2, 2, 0, False), (3, 2, 1, False), (3, 1, 1, False), ((2, 3), (1, 2), (1, 0), True), (5, 3, 2, True)],
)
def test_pooling_keeps_places_in_few_bits(memory_format, window, stride, padding, ceil):
    x = quantize(torch.randn(3, 4, 11, 9), FloatFormat(4, 1)).contiguous(memory_format=memory_format)
    pairs = [(v, v) if isinstance(v, int) else v for v in (window, stride, padding)]
    _, indices = F.max_pool2d(x, window, stride, padding, ceil_mode=ceil, return_indices=True)
    words = pack_places(indices, 9, *pairs)
    again = torch.full_like(indices, -1)
    unpack_places(words, again, 9, *pairs)
    assert torch.equal(again, indices)
    bits = (pairs[0][0] * pairs[0][1] - 1).bit_length()
    assert words.numel() == math.ceil(indices.numel() / 32) * bits
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    one = max_pool2d(ours, window, stride, padding, ceil_mode=ceil)
    other = F.max_pool2d(theirs, window, stride, padding, ceil_mode=ceil)
    assert torch.equal(one, other)
    error = torch.randn(one.shape)
    one.backward(error)
    other.backward(error)
    assert torch.equal(ours.grad, theirs.grad)
    assert ours.grad.stride() == theirs.grad.stride()


def test_all_that_lives_between_steps_is_words():
    net, optimizer = build(Small, "nearest", "packed", weights="packed")
    train(net, optimizer, steps=1)
    count = sum(p.numel() for p in net.parameters())
    words = [p for states in optimizer.packed.values() for p in states.values()]
    words += optimizer.storage.weights.packed.values()
    assert all(isinstance(p, PackedTensor) for p in words)
    assert sum(p.shape.numel() for p in words) == 3 * count  # weights, accumulator, momentum
    assert all(not state for state in optimizer.state.values())
    assert optimizer.accumulators == {}
