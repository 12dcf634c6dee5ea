"""Precisions by name: their texts, what autocast leaves in float32, products, updates, states of 8 bits."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from peppp.errors import FormatError, NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration, parse_format
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.network.scaled_products import along, convolution, linear
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.rounding.quantize import quantize
from peppp.precisions.known import MEASURED, PRECISIONS, parse_precision
from peppp.precisions.named import NamedPrecision

BF16, FP16 = torch.bfloat16, torch.float16


class _Round(torch.autograd.Function):
    """Through torch's own type and back, in both directions."""

    @staticmethod
    def forward(ctx, x, dtype):
        ctx.dtype = dtype
        return x.to(dtype).float()

    @staticmethod
    def backward(ctx, error):
        return error.to(ctx.dtype).float(), None


def rounded(x, dtype=BF16):
    return _Round.apply(x, dtype)


def same(a, b):
    return torch.equal(a.detach().view(torch.int32), b.detach().view(torch.int32))


# Texts


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_name_parses_back(name):
    found = parse_precision(name)
    assert isinstance(found, NamedPrecision)
    assert str(found) == name
    assert parse_precision(str(found)) is found
    assert parse_precision(found) is found
    assert not found.is_fp32
    assert "+" not in name  # which joins parts of a list of configurations
    assert found.about
    assert found.needs


def test_pairs_and_fp32_are_precisions_too():
    assert parse_precision("fp32") == FP32_CONFIGURATION
    assert parse_precision(" 1-4-1/1-6-7 ") == Configuration.parse("1-4-1/1-6-7")
    assert set(MEASURED) <= set(PRECISIONS)
    assert len(MEASURED) == 14


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("amp", "amp-bf16"), ("mxfp9", "mxfp8"), ("bf16-kahn", "bf16-kahan"), ("fp16", "amp-fp16"),
        ("nvfp8", "nvfp4"), ("tf32", "fp32"), ("bfloat", "1-4-1/1-6-7"), ("", "1-4-1/1-6-7"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_answered_with_those_near(text, near):
    with pytest.raises(FormatError) as raised:
        parse_precision(text)
    assert near in str(raised.value)
    assert "\n" not in str(raised.value)


# What autocast does


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = x + self.second(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def residual_twin(net, x, dtype):
    """The same, with each rounding written out."""
    r = lambda value: rounded(value, dtype)  # noqa: E731
    x = r(F.conv2d(r(x), r(net.first.weight), r(net.first.bias), padding=1))
    x = r(F.batch_norm(x, None, None, net.norm.weight, net.norm.bias, training=True))
    x = F.relu(x)
    x = r(x + r(F.conv2d(x, r(net.second.weight), padding=1)))
    x = r(F.adaptive_avg_pool2d(x, 1)).flatten(1)
    return r(F.linear(x, r(net.head.weight), r(net.head.bias)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(6, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        x = x + self.place
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        shares = (q @ k.transpose(-2, -1) / 4).softmax(-1)
        return self.norm(x + self.out(shares @ v)).mean(1)


def attention_twin(net, x):
    r = rounded
    x = x + net.place  # float32 both
    normed = F.layer_norm(x, (16,), net.norm.weight, net.norm.bias)
    qkv = r(F.linear(r(normed), r(net.qkv.weight), r(net.qkv.bias)))
    q, k, v = qkv.chunk(3, -1)
    shares = r(r(q @ k.transpose(-2, -1)) / 4).softmax(-1)  # float32
    mixed = r(r(shares) @ v)
    x = x + r(F.linear(mixed, r(net.out.weight), r(net.out.bias)))
    return F.layer_norm(x, (16,), net.norm.weight, net.norm.bias).mean(1)


@pytest.mark.parametrize(
    ("kind", "twin", "shape", "name"),
    [
        (Residual, lambda net, x: residual_twin(net, x, BF16), (4, 3, 6, 6), "amp-bf16"),
        (Residual, lambda net, x: residual_twin(net, x, FP16), (4, 3, 6, 6), "amp-fp16"),
        (Attention, attention_twin, (4, 6, 16), "amp-bf16"),
    ],
)
def test_autocast_is_the_slow_twin_bit_for_bit(kind, twin, shape, name):
    torch.manual_seed(0)
    net, x = kind(), torch.randn(shape)
    plain = copy.deepcopy(net)
    low_precision(net, name)
    found, wanted = net(x), twin(plain, x)
    assert same(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    for (place, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        # Errors of several branches are added in another order here and there.
        close = torch.allclose(p.grad, q.grad, rtol=2**-7, atol=2**-9 * float(q.grad.abs().max()))
        assert close, place
    last = [*net.parameters()][-1], [*plain.parameters()][-1]
    assert same(last[0].grad, last[1].grad)


def test_autocast_trains_as_torchs_own():
    torch.manual_seed(0)
    net, x, y = Residual(), torch.randn(32, 3, 8, 8), torch.randint(5, (32,))
    real = copy.deepcopy(net)
    low_precision(net, "amp-bf16")
    own = low_precision_optimizer(torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), net)
    theirs = torch.optim.SGD(real.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(20):
        own.zero_grad()
        theirs.zero_grad()
        loss = F.cross_entropy(net(x), y)
        with torch.autocast("cpu", BF16):
            results = real(x)
        real_loss = F.cross_entropy(results.float(), y)
        loss.backward()
        real_loss.backward()
        own.step()
        theirs.step()
        losses.append((loss.item(), real_loss.item()))
    assert losses[-1][1] < losses[0][1] - 0.1  # it trains
    assert max(abs(a - b) for a, b in losses) < 0.02


def test_weights_and_inputs_stay_float32():
    torch.manual_seed(0)
    net, x = Residual(), torch.randn(4, 3, 6, 6)
    before, given = copy.deepcopy(net.state_dict()), x.clone()
    low_precision(net, "amp-bf16")
    net(x).sum().backward()
    assert torch.equal(x, given)
    assert all(
        torch.equal(v, before[k])
        for k, v in net.state_dict().items()
        if "running" not in k and "num" not in k
    )


def test_float_makes_float32_of_few_bits():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            few = self.layer(x)
            return few / 3, few.float() / 3

    torch.manual_seed(0)
    few, wide = low_precision(Net(), "amp-bf16")(torch.randn(8, 4))
    assert torch.equal(few, few.to(BF16).float())
    assert not torch.equal(wide, wide.to(BF16).float())
    assert torch.equal(wide.to(BF16).float(), few)


# Products


def blocks_twin(x, fmt):
    """Rows of x in MX blocks, one number after another."""
    out = torch.empty_like(x)
    for i, row in enumerate(x):
        for start in range(0, len(row), fmt.block):
            out[i, start : start + fmt.block] = quantize(row[start : start + fmt.block].clone(), fmt)
    return out


@given(st.sampled_from(["mx-1-4-3/32@round-up", "mx-1-2-1/8", "mx-1-2-3/4@ceil"]), st.integers(0, 99))
def test_scales_lie_along_what_is_summed(text, seed):
    fmt = parse_format(text)
    draw = torch.Generator().manual_seed(seed)
    x, w = torch.randn(5, 12, generator=draw), torch.randn(7, 12, generator=draw)
    x.requires_grad_()
    w.requires_grad_()
    error = torch.randn(5, 7, generator=draw)
    products = PRECISIONS["mxfp8"].products.__class__(fmt, fmt)
    y = linear(x, w, products=products, key=0)
    y.backward(error)
    twin = lambda values: blocks_twin(values.detach().contiguous(), fmt)  # noqa: E731
    assert same(y, twin(x) @ twin(w).T)
    assert same(x.grad, twin(error) @ twin(w.T).T)
    assert same(w.grad, twin(error.T) @ twin(x.T).T)


@pytest.mark.parametrize("name", ["fp8", "int8", "nvfp4", "mxfp4"])
def test_each_kind_of_products_gives_gradients_near_float32s(name):
    torch.manual_seed(0)
    x, w = torch.randn(64, 48, requires_grad=True), torch.randn(32, 48, requires_grad=True)
    error = torch.randn(64, 32)
    wanted = [x.detach() @ w.detach().T, error @ w.detach(), error.T @ x.detach()]
    y = linear(x, w, products=PRECISIONS[name].products, key=5)
    y.backward(error)
    reach = {"fp8": 0.08, "int8": 0.03, "nvfp4": 0.25, "mxfp4": 0.25}[name]
    for found, exact in zip((y, x.grad, w.grad), wanted, strict=True):
        missed = float((found.detach() - exact).norm() / exact.norm())
        assert 0 < missed < reach


def test_int8_has_a_scale_for_each_row():
    x = torch.tensor([[127.0, 1.4], [1.27, 0.0144]])
    found = along(x, -1, parse_format("int8"), None)
    assert torch.allclose(found, torch.tensor([[127.0, 1.0], [1.27, 0.01]]), rtol=1e-6)


def test_errors_of_nvfp4_are_rounded_without_bias():
    w, x = torch.eye(16, requires_grad=True), torch.zeros(1, 16, requires_grad=True)
    error = torch.rand(1, 16, generator=torch.Generator().manual_seed(1))
    products, total, runs = PRECISIONS["nvfp4"].products, torch.zeros(1, 16), 400
    for key in range(runs):
        (found,) = torch.autograd.grad(linear(x, w, products=products, key=key), x, error)
        total += found
    assert (total / runs - error).abs().max() < 0.05
    nearest = along(error, -1, products.errors, None)
    assert (nearest - error).abs().max() > 0.05


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_convolution_of_products_is_that_of_rounded_operands(size):
    torch.manual_seed(size)
    func = (F.conv1d, F.conv2d, F.conv3d)[size - 1]
    x = torch.randn(2, 8, *[5] * size, requires_grad=True)
    w, b = torch.randn(6, 4, *[3] * size, requires_grad=True), torch.randn(6, requires_grad=True)
    products = PRECISIONS["mxfp8-all"].products
    y = convolution(func, x, w, b, 2, 1, 1, 2, products=products, key=0)
    error = torch.randn_like(y)
    y.backward(error)

    q = lambda t, at: along(t.detach(), at, products.values, None)  # noqa: E731
    twin_x, twin_w = q(x, 1).requires_grad_(), q(w, 1).requires_grad_()
    forward = func(twin_x, twin_w, b.detach(), 2, 1, 1, 2)
    assert torch.allclose(y, forward, rtol=1e-6, atol=1e-6)
    of_x = torch.autograd.grad(func(twin_x, q(w, 0), None, 2, 1, 1, 2), twin_x, q(error, 1))[0]
    of_w = torch.autograd.grad(forward, twin_w, q(error, 1))[0]
    assert torch.allclose(x.grad, of_x, rtol=1e-5, atol=1e-5)
    assert torch.allclose(w.grad, of_w, rtol=1e-5, atol=1e-5)
    assert torch.allclose(b.grad, error.sum([0, *range(2, 2 + size)]), rtol=1e-5, atol=1e-5)


def test_padding_by_word_and_a_single_image():
    torch.manual_seed(0)
    x, w = torch.randn(3, 6, 6), torch.randn(4, 3, 3, 3)
    products = PRECISIONS["fp8-all"].products
    same_size = convolution(torch.conv2d, x, w, padding="same", products=products, key=0)
    by_hand = convolution(torch.conv2d, x, w, padding=1, products=products, key=0)
    assert same_size.shape == (4, 6, 6)
    assert torch.equal(same_size, by_hand)
    with pytest.raises(NetworkError, match="even kernel"):
        convolution(torch.conv2d, x, w[..., :2, :2], padding="same", products=products, key=0)


def test_convolutions_are_left_alone_unless_all_are_asked_for():
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 6, 6), {}
    base = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    for name in ("amp-bf16", "mxfp4", "mxfp4-all"):
        y[name] = low_precision(copy.deepcopy(base), name)(x)
    assert torch.equal(y["amp-bf16"], y["mxfp4"])
    assert not torch.equal(y["amp-bf16"], y["mxfp4-all"])


# Updates


def trained(name, steps=30, kind=torch.optim.SGD, **options):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(80, 64), nn.Tanh(), nn.Linear(64, 4)), torch.randn(64, 80)
    y = torch.randint(4, (64,))
    if name != "fp32":
        low_precision(net, name, seed=1)
    optimizer = kind(net.parameters(), **options)
    if name != "fp32":
        optimizer = low_precision_optimizer(optimizer, net)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, optimizer, F.cross_entropy(net(x), y).item()


def test_small_updates_vanish_in_bf16_but_for_sr_and_kahan():
    options = {"lr": 1e-4, "steps": 400}
    start = trained("fp32", steps=0, lr=1e-4)[2]
    gained = {name: start - trained(name, **options)[2] for name in ("fp32", "bf16", "bf16-sr", "bf16-kahan")}
    assert gained["bf16"] < 0.5 * gained["fp32"]
    assert gained["bf16-kahan"] == pytest.approx(gained["fp32"], rel=0.25)
    assert gained["bf16-sr"] == pytest.approx(gained["fp32"], rel=0.35)


@pytest.mark.parametrize("name", ["bf16", "bf16-sr", "bf16-kahan"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_all_of_a_bf16_training_is_bf16(name, kind):
    net, optimizer, _ = trained(name, kind=kind, lr=0.01)
    numbers = [*net.parameters()]
    numbers += [
        v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v) and v.dim()
    ]
    assert all(torch.equal(x, x.to(BF16).float()) for x in numbers)
    assert bool(optimizer.accumulators) == (name == "bf16-kahan")
    for weight, total in optimizer.accumulators.items():
        lacking = (total - weight).to(BF16).float()
        assert (total - weight - lacking).abs().max() <= 2**-16 * total.abs().max()


# States of 8 bits


@given(st.integers(0, 99), st.sampled_from([True, False]), st.integers(1, 700))
def test_dynamic_codes_are_the_nearest_numbers(seed, signed, size):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)) ** 3
    x = x if signed else x.abs()
    fmt = parse_format("dynamic8/256" if signed else "dynamic8u/256")
    numbers, found = torch.tensor(fmt.numbers), quantize(x, fmt)
    for start in range(0, size, 256):
        part, got = x[start : start + 256], found[start : start + 256]
        scale = part.abs().max()
        nearest = (part[:, None] / scale - numbers).abs().min(1).values
        assert torch.allclose((part / scale - got / scale).abs(), nearest, atol=1e-6)


def test_dynamic_codes_of_nothing_and_of_infinity():
    assert quantize(torch.zeros(300), "dynamic8/256").abs().max() == 0
    assert quantize(torch.zeros(0), "dynamic8/256").shape == (0,)
    found = quantize(torch.tensor([float("inf"), float("nan"), -2.0, 1.0]), "dynamic8/256")
    assert found[0] == float("inf")
    assert found[1].isnan()
    assert found[3] == pytest.approx(1.0, rel=0.02)
    with pytest.raises(FormatError, match="nearest only"):
        quantize(torch.zeros(3), "dynamic8/256", "stochastic", seed=0)


def test_states_of_8_bits_leave_small_tensors_alone():
    net, optimizer, _ = trained("fp32-adamw8bit", kind=torch.optim.AdamW, lr=0.001)
    large, small = net[0].weight, net[2].weight
    assert large.numel() >= 4096 > small.numel()
    squares = optimizer.state[large]["exp_avg_sq"]
    assert torch.allclose(quantize(squares, "dynamic8u/256"), squares, rtol=1e-6, atol=0)
    squares = optimizer.state[small]["exp_avg_sq"]
    assert not torch.allclose(quantize(squares, "dynamic8u/256"), squares, rtol=1e-6, atol=0)
    # Of 256 numbers of a block many share a code; those in float32 are all different.
    different = [len(optimizer.state[p]["exp_avg"].reshape(-1)[:256].unique()) for p in (large, small)]
    assert different[0] < 200 < different[1]


def test_states_of_8_bits_train_as_float32():
    plain, eight = (
        trained("fp32", lr=0.05, momentum=0.9)[2],
        trained("fp32-sgd8bit", lr=0.05, momentum=0.9)[2],
    )
    assert plain != eight
    assert eight == pytest.approx(plain, abs=0.02)


def test_what_cannot_be_is_refused_in_one_line():
    net = low_precision(nn.Linear(4, 4), "fp32-sgd8bit")
    with pytest.raises(NetworkError, match="take sgd, or a precision that ends in -adamw8bit"):
        low_precision_optimizer(torch.optim.AdamW(net.parameters()), net)
    net = low_precision(nn.Linear(4, 4), "amp-bf16")
    with pytest.raises(NetworkError, match="packed storage holds pairs of formats"):
        low_precision_optimizer(torch.optim.SGD(net.parameters(), lr=0.1), net, storage="packed")


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.last, self.reentrant = nn.Linear(8, 16), nn.Linear(16, 3), reentrant
        self.block = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 16))

    def forward(self, x):
        x = self.first(x)
        if self.reentrant is None:
            return self.last(self.block(x))
        return self.last(checkpoint(self.block, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("name", ["amp-bf16", "amp-fp16", "bf16", "mxfp8", "nvfp4", "int8"])
def test_checkpointed_blocks_have_the_same_gradients(name):
    gradients = []
    for reentrant in (None, False, True):
        torch.manual_seed(0)
        net = low_precision(Checkpointed(reentrant), name, seed=1)
        net(torch.randn(32, 8)).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for others in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], others, strict=True))


@pytest.mark.parametrize(
    "cast", [lambda x: x.float(), lambda x: x.to(torch.float32), lambda x: x.type(torch.float32)]
)
def test_every_cast_to_float32_widens(cast):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            few = self.layer(x)
            wide = cast(few) * 1.0037
            return wide, wide.type_as(few)

    torch.manual_seed(0)
    wide, few = low_precision(Net(), "amp-bf16")(torch.randn(64, 4))
    assert not torch.equal(wide, wide.to(BF16).float())
    assert torch.equal(few, wide.to(BF16).float())


def test_running_statistics_have_sixteen_bits_where_the_network_has():
    torch.manual_seed(0)
    for name, narrow in (("bf16", True), ("amp-bf16", False)):
        net = low_precision(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), name)
        for _ in range(3):
            net(torch.randn(8, 3, 6, 6))
        assert torch.equal(net[1].running_var, net[1].running_var.to(BF16).float()) == narrow


def test_an_empty_batch_goes_through_products():
    net = low_precision(nn.Linear(8, 4), "mxfp8")
    result = net(torch.zeros(0, 8))
    assert result.shape == (0, 4)
    result.sum().backward()
    assert net.weight.grad.abs().max() == 0
