"""A network at low precision against the same network written out by hand, rounding by rounding."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint

from peppp.errors import NetworkError
from peppp.formats import FP32, Configuration, FloatFormat, TwoLevelFormat, paper_grid
from peppp.lowprec.network.conversion import low_precision, low_precision_state, rounding_points
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.rounding.quantize import quantize
from tensors import CONFIGURATION, A, B, equal, representable, rounded


class Residual(nn.Module):
    """A stem, one residual block written with functions, a pooled head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        y = F.relu(self.norm2(self.conv(x)) + x)
        return self.head(F.max_pool2d(y, 2).mean((2, 3)))


def by_hand(net, x, e=A):
    q = lambda t: rounded(t, e)  # noqa: E731
    x = F.relu(q(net.norm(q(net.stem(q(x))))))
    y = F.relu(q(q(net.norm2(q(net.conv(x)))) + x))
    return net.head(q(F.max_pool2d(y, 2).mean((2, 3))))


def images(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 6, generator=generator), torch.arange(count) % 3


def network(seed=0, kind=Residual):
    torch.manual_seed(seed)
    return kind()


def converted(rounding="nearest", error_format="A", seed=5, kind=Residual):
    return low_precision(
        network(kind=kind), CONFIGURATION, rounding=rounding, error_format=error_format, seed=seed
    )


def sgd(net, **options):
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4} | options
    return low_precision_optimizer(torch.optim.SGD(net.parameters(), **options), net)


def train(net, optimizer, steps=3, forward=None, start=0):
    for step in range(start, start + steps):
        x, y = images(seed=step)
        loss = F.cross_entropy((forward or net)(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("error_format", ["A", "B", "fp32", "1-5-2@ocp"])
def test_forward_and_backward_equal_the_network_written_out(error_format):
    e = {"A": A, "B": B}.get(error_format) or FloatFormat.parse(error_format)
    ours, twin = converted(error_format=error_format), network()
    for p in twin.parameters():
        p.data = quantize(p.data, A)
    x, y = images()
    logits, expected = ours(x), by_hand(twin, x, e)
    assert torch.equal(logits, expected)
    F.cross_entropy(logits, y).backward()
    F.cross_entropy(expected, y).backward()
    assert equal([p.grad for p in ours.parameters()], [p.grad for p in twin.parameters()])


def test_a_training_equals_the_one_written_out():
    ours, twin = converted(), network()
    result = train(ours, sgd(ours))

    accumulators = [quantize(p.data, B) for p in twin.parameters()]
    momenta = [torch.zeros_like(p) for p in twin.parameters()]
    for p, acc in zip(twin.parameters(), accumulators, strict=True):
        p.data = quantize(acc, A)
    for step in range(3):
        x, y = images(seed=step)
        twin.zero_grad()
        F.cross_entropy(by_hand(twin, x), y).backward()
        for p, acc, v in zip(twin.parameters(), accumulators, momenta, strict=True):
            g = quantize(p.grad, B)
            d = g + torch.tensor(5e-4) * acc
            unrounded = torch.tensor(0.9) * v + d
            acc.copy_(quantize(acc - torch.tensor(0.05) * unrounded, B))
            v.copy_(quantize(unrounded, B))
            p.data = quantize(acc, A)
    assert equal(result, list(twin.parameters()))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_all_that_is_kept_is_representable(kind, rounding):
    net = converted(rounding)
    optimizer = low_precision_optimizer(kind(net.parameters(), lr=0.01), net)
    before = [p.detach().clone() for p in net.parameters()]
    after = train(net, optimizer)
    assert not equal(before, after)
    assert all(representable(p.detach(), A) for p in net.parameters())
    assert all(representable(acc, B) for acc in optimizer.accumulators.values())
    states = [v for state in optimizer.state.values() for v in state.values() if v.dim() > 0]
    assert all(representable(v, B) for v in states)


def test_without_an_accumulator_the_update_falls_on_the_weights():
    net = converted()
    optimizer = low_precision_optimizer(torch.optim.SGD(net.parameters(), lr=1e-6), net, accumulator=False)
    before = [p.detach().clone() for p in net.parameters()]
    assert equal(before, train(net, optimizer))  # far less than half a step: nearest rounding loses it
    assert optimizer.accumulators == {}


def test_the_module_s_own_result_stays_unrounded_also_when_reshaped():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1)

        def forward(self, x):
            return self.head(x).squeeze(1)

    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    for kind in (Squeezed, lambda: nn.Linear(3, 1)):
        net = converted(kind=kind)
        result = net(x)
        linear = net.head if hasattr(net, "head") else net
        expected = quantize(x, A) @ linear.weight.T + linear.bias
        assert torch.allclose(result.flatten(), expected.flatten(), atol=1e-6)
        assert not representable(result.detach(), A)


def test_softmax_as_the_last_layer_is_given_back_unrounded():
    net = converted(kind=lambda: nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)))
    result = net(torch.ones(2, 3))
    assert torch.allclose(result.sum(1), torch.ones(2), atol=1e-6)
    assert not representable(result.detach(), A)


def test_the_input_is_not_changed():
    net = converted()
    x, _ = images()
    kept = x.clone()
    net(x).sum().backward()
    assert torch.equal(x, kept)


def test_integers_go_through_and_lists_and_dicts_of_tensors_come_out():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, words):
            embedded = self.embedding(words)
            return {"embedded": embedded, "logits": [self.head(embedded)]}

    net = converted(kind=Words)
    out = net(torch.tensor([[1, 2], [3, 4]]))
    assert representable(out["embedded"].detach(), A)
    assert not representable(out["logits"][0].detach(), A)


def test_a_value_used_twice_is_rounded_for_both_uses():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            y = self.linear(x)
            return self.head(F.relu(y)) + self.head(y)

    ours, twin = converted(kind=Twice), network(kind=Twice)
    for p in twin.parameters():
        p.data = quantize(p.data, A)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    y = rounded(twin.linear(rounded(x)))
    expected = rounded(twin.head(F.relu(y))) + rounded(twin.head(y))
    result = ours(x)
    assert torch.equal(result, expected)


def test_an_error_that_two_branches_share_is_not_changed_under_either():
    """A residual addition hands one gradient tensor to both summands."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) + self.b(x)

    ours, twin = converted(kind=Branches), network(kind=Branches)
    for p in twin.parameters():
        p.data = quantize(p.data, A)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    kept = upstream.clone()
    ours(x).backward(upstream)
    q = rounded(x)
    (rounded(twin.a(q)) + rounded(twin.b(q))).backward(kept.clone())
    assert torch.equal(upstream, kept)
    assert equal([p.grad for p in ours.parameters()], [p.grad for p in twin.parameters()])


def test_in_place_operations():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            y = self.relu(self.norm(self.stem(x)))
            z = y * 0.5
            z += 0.25
            return self.head(z.mean((2, 3)))

    ours, twin = converted(kind=InPlace), network(kind=InPlace)
    for p in twin.parameters():
        p.data = quantize(p.data, A)
    x, y = images()
    h = F.relu(rounded(twin.norm(rounded(twin.stem(rounded(x))))))
    expected = twin.head(rounded(rounded(rounded(h * 0.5) + 0.25).mean((2, 3))))
    result = ours(x)
    assert torch.equal(result, expected)
    F.cross_entropy(result, y).backward()
    F.cross_entropy(expected, y).backward()
    assert equal([p.grad for p in ours.parameters()], [p.grad for p in twin.parameters()])


def test_an_operation_that_nothing_is_known_about_is_reported_by_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.special.bessel_j0(x))

    net = converted(kind=Odd)
    with pytest.warns(UserWarning, match="bessel_j0"):
        net(torch.ones(1, 3))
    assert low_precision_state(net).unrounded == ["special_bessel_j0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(torch.ones(1, 3))  # once is enough


def test_rounding_points_are_listed_by_module_and_operation():
    points = [str(p) for p in rounding_points(converted(), images()[0])]
    assert points == [
        "input: input",
        "stem: conv2d",
        "norm: batch_norm",
        "conv: conv2d",
        "norm2: batch_norm",
        "(module): add",
        "(module): mean",
    ]


def test_listing_the_points_changes_no_training():
    plain, listed = converted("stochastic"), converted("stochastic")
    optimizers = sgd(plain), sgd(listed)
    statistics = copy.deepcopy(listed.state_dict())
    rounding_points(listed, images()[0])
    listed.load_state_dict(statistics)  # batch norm has seen one batch more
    assert equal(train(plain, optimizers[0]), train(listed, optimizers[1]))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_resuming_from_state_dicts_goes_on_bit_for_bit(rounding, tmp_path):
    whole = converted(rounding)
    whole_optimizer = sgd(whole)
    train(whole, whole_optimizer, steps=2)
    torch.save([whole.state_dict(), whole_optimizer.state_dict()], tmp_path / "state.pt")
    expected = train(whole, whole_optimizer, steps=2, start=2)

    resumed = low_precision(network(seed=9), CONFIGURATION, rounding=rounding, seed=99)
    optimizer = sgd(resumed)
    weights, state = torch.load(tmp_path / "state.pt")
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(state)
    assert equal(expected, train(resumed, optimizer, steps=2, start=2))


def test_testing_in_between_changes_no_training():
    plain, tested = converted("stochastic"), converted("stochastic")
    optimizers = sgd(plain), sgd(tested)

    def forward_with_tests(x):
        tested.eval()
        with torch.no_grad():
            tested(x)
        return tested.train()(x)

    assert equal(train(plain, optimizers[0]), train(tested, optimizers[1], forward=forward_with_tests))


def test_a_copy_goes_its_own_way():
    net = converted("stochastic")
    other = copy.deepcopy(net)
    expected = train(net, sgd(net))
    assert equal(expected, train(other, sgd(other)))


def test_seeds_decide_the_random_bits():
    results = [train(net, sgd(net)) for net in (converted("stochastic", seed=s) for s in (1, 1, 2))]
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


def test_memory_layout_changes_no_bits_of_a_rounding():
    net, other = converted("stochastic"), converted("stochastic")
    x, _ = images()
    with torch.no_grad():
        ours = net(x)
        theirs = other(x.to(memory_format=torch.channels_last))
    assert torch.allclose(ours, theirs, atol=1e-5)  # convolutions may sum in another order


def test_gradients_of_micro_batches_are_rounded_one_by_one():
    ours, twin = converted(), network()
    for p in twin.parameters():
        p.data = quantize(quantize(p.data, B), A)
    expected = [torch.zeros_like(p) for p in twin.parameters()]
    optimizer = sgd(ours, lr=0.0)
    for part in range(2):
        x, y = images(seed=part)
        F.cross_entropy(ours(x), y).backward()
        twin.zero_grad()
        F.cross_entropy(by_hand(twin, x), y).backward()
        expected = [quantize(total + p.grad, B) for total, p in zip(expected, twin.parameters(), strict=True)]
    optimizer.step()
    assert equal([quantize(p.grad, B) for p in ours.parameters()], expected)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_recomputing_a_block_meets_the_same_random_bits(rounding):
    class Blocks(nn.Module):
        def __init__(self, recompute):
            super().__init__()
            self.recompute = recompute
            self.block = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU())
            self.head = nn.Linear(3, 3)

        def forward(self, x):
            y = checkpoint(self.block, x, use_reentrant=False) if self.recompute else self.block(x)
            return self.head(y)

    results = []
    for recompute in (False, True):
        net = converted(rounding, kind=lambda r=recompute: Blocks(r))
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(4))
        F.cross_entropy(net(x), torch.arange(16) % 3).backward()
        results.append([p.grad for p in net.parameters()])
    assert equal(*results)


def test_fp32_changes_nothing():
    plain, net = network(), low_precision(network(), Configuration(FP32, FP32), seed=0)
    x, _ = images()
    assert torch.equal(plain(x), net(x))


@pytest.mark.parametrize("configuration", [paper_grid()[0], paper_grid()[-1]])
def test_the_forward_pass_holds_format_a_values_only(configuration):
    seen = []
    net = network()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda m, args: seen.extend([args[0], m.weight]))
    low_precision(net, configuration, seed=1)
    net(images()[0])
    assert len(seen) == 6
    assert all(representable(value.detach(), configuration.format_a) for value in seen)


def test_what_cannot_be_converted_says_so():
    net = converted()
    with pytest.raises(NetworkError, match="Residual is at low precision already"):
        low_precision(net, CONFIGURATION)
    with pytest.raises(NetworkError, match="0 is at low precision already"):
        low_precision(nn.Sequential(net), CONFIGURATION)
    with pytest.raises(NetworkError, match="call low_precision on it first"):
        low_precision_optimizer(torch.optim.SGD(nn.Linear(1, 1).parameters()), nn.Linear(1, 1))
    with pytest.raises(NetworkError, match="not one of Residual's"):
        low_precision_optimizer(torch.optim.SGD(nn.Linear(1, 1).parameters()), net)
    with pytest.raises(NetworkError, match="nesterov"):
        sgd(net, nesterov=True)
    plain = torch.optim.SGD(net.parameters(), momentum=0.9, lr=0.1)
    net(images()[0]).sum().backward()
    plain.step()
    with pytest.raises(NetworkError, match="has stepped already"):
        low_precision_optimizer(plain, net)


@pytest.mark.parametrize(
    "text",
    [
        "mx-1-4-3/32/1-6-7",
        "int8/1-6-7",
        "fixed-8-5/1-8-11",
        "1-4-1/int16",
        "mx-1-2-1/32/mx-1-4-3/32",
        "mx-1-4-3/32@even/1-6-7",
        "nvfp4/1-6-7",
        "scaled-1-4-3/1-6-7",
    ],
)
def test_formats_with_a_scale_train(text):
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    low_precision(net, text, seed=1)
    optimizer = low_precision_optimizer(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), net)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    fmt = Configuration.parse(text).format_a
    for parameter in net.parameters():
        # A draw can send NVFP4's largest number of a block to 4 rather than 6, and so change its scale.
        if not isinstance(fmt, TwoLevelFormat):
            assert torch.allclose(quantize(parameter.data, fmt), parameter.data, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (2, 3, 5, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_inputs_with_more_axes_give_what_they_give_flat(shape, bias):
    """Torch makes a view there: it must be rounded once, and let errors pass."""
    torch.manual_seed(0)
    first, second = nn.Linear(8, 6, bias=bias), nn.Linear(6, 4, bias=bias)
    x = torch.randn(shape)
    results = []
    for inputs in (x, x.reshape(-1, 8)):
        network = copy.deepcopy(nn.Sequential(first, nn.GELU(), second))
        low_precision(network, "1-4-1/1-6-7", rounding="nearest", seed=0)
        y = network(inputs)
        y.square().sum().backward()
        results.append((y.detach().reshape(-1, 4), [p.grad for p in network.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-6)
