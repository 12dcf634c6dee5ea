import itertools
import subprocess
import sys

import pytest
import torch

from peppp.formats import FP32, Configuration, FloatFormat
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.quantize import quantize, quantize_eagerly
from peppp.lowprec.rounding.streams import ACCUMULATOR, FIRST_STATE, GRADIENT, WEIGHT, mix
from peppp.records import RoundingModes
from tensors import FORMATS, LAYOUTS, difficult, float32, same_bits

pytestmark = pytest.mark.skipif(not kernels.available(), reason="numba cannot be imported here")

KEYS = [None, mix(11, 12)]
FMT = FloatFormat.parse("1-4-1")
NANS = torch.tensor([0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1, -0x3FFFFF], dtype=torch.int32).view(
    torch.float32
)


def images(channels, layout):
    """[2, channels, 5, 3] with zeros of both signs, infinities and NaN."""
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, 5, 3, generator=generator) * torch.rand(
        1, channels, 1, 1, generator=generator
    )
    x.view(-1)[::7] = 0.0
    x.view(-1)[3::11] = -0.0
    x.view(-1)[:3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    return LAYOUTS[layout](x)


# Rounding


@pytest.mark.parametrize("key", KEYS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_equal_to_eager_form_bit_for_bit(fmt, key):
    x = torch.cat([float32(difficult(fmt)), NANS])
    expected = quantize_eagerly(x, fmt, key)
    out = torch.empty_like(x)
    assert kernels.round_into(x, out, fmt, key)
    assert same_bits(out, expected)
    assert kernels.round_into(x, x, fmt, key)
    assert same_bits(x, expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [1, 2, 3, 16, 17, 64, 1023, 1025, 2048])
def test_channels_and_blocks_of_any_size(channels, layout):
    x = images(channels, layout)
    for key in KEYS:
        out = torch.empty_like(x)
        assert kernels.round_into(x, out, FMT, key)
        assert same_bits(out, quantize_eagerly(x, FMT, key))


@pytest.mark.parametrize("key", KEYS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("text", ["1-4-1", "1-8-7", "1-3-2@ieee", "1-4-3@ocp", "1-3-1@qpytorch-0.2", "fp32"])
def test_relu_equals_rounding_and_relu(text, layout, key):
    fmt, x = FloatFormat.parse(text), images(18, layout)
    x[0, 0, 1, :2] = torch.tensor([-1e-9, 1e-9])
    rounded = x.clone() if fmt == FP32 else quantize_eagerly(x, fmt, key)
    out = torch.empty_like(x)
    assert kernels.relu_round_into(x, out, fmt, key)
    assert same_bits(out, torch.relu(rounded))
    assert out.isnan().any()
    assert kernels.relu_round_into(x, x, fmt, key)
    assert same_bits(x, out)


@pytest.mark.parametrize("key", KEYS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("text", ["1-4-1", "1-8-7", "1-3-2@ieee", "fp32"])
def test_masked_rounds_where_result_is_positive(text, layout, key):
    fmt, g = FloatFormat.parse(text), images(18, layout)
    result = torch.relu(images(18, layout).flip(0)).contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )
    rounded = g.clone() if fmt == FP32 else quantize_eagerly(g, fmt, key)
    expected = torch.where(result > 0, rounded, 0.0)
    out = torch.empty_like(g)
    assert kernels.masked_round_into(g, result, out, fmt, key)
    assert same_bits(out, expected)
    into_result = result.clone()
    assert kernels.masked_round_into(g, into_result, into_result, fmt, key)
    assert same_bits(into_result, expected)
    assert kernels.masked_round_into(g, result, g, fmt, key)
    assert same_bits(g, expected)


# Where the kernels leave the work to others


def refused():
    """Pairs (x, out) by the reason."""
    x, memory = torch.randn(2, 3, 4, 5), torch.randn(101)
    return {
        "two shapes": (x, torch.zeros(2, 3, 4, 6)),
        "float64": (x.double(), x.double()),
        "meta": (x.to("meta"), x.to("meta")),
        "overlapping": (memory[:-1], memory[1:]),
        "subclass": (x.as_subclass(type("Own", (torch.Tensor,), {})), x),
    }


@pytest.mark.parametrize("reason", refused())
def test_refuses_and_does_nothing(reason):
    x, out = refused()[reason]
    version, before = out._version, None if out.is_meta else out.clone()
    assert not kernels.round_into(x, out, FMT, 1)
    assert not kernels.relu_round_into(x, out, FMT, 1)
    assert not kernels.masked_round_into(x, x, out, FMT, 1)
    assert out._version == version
    assert before is None or torch.equal(out, before)


def scattered():
    """Pairs (x, out) that lie in no layout of the loops, and are rounded in copies."""
    x = torch.randn(2, 3, 4, 5)
    return {
        "sliced": (x[..., ::2], torch.zeros(2, 3, 4, 3)),
        "into sliced": (torch.randn(2, 3, 4, 3), x[..., ::2]),
        "two layouts": (x, LAYOUTS["channels_last"](torch.zeros(2, 3, 4, 5))),
        "expanded": (x[:1].expand(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)),
        "in place": (x[:, 1:], x[:, 1:]),
    }


@pytest.mark.parametrize("kind", scattered())
def test_scattered_memory_is_rounded_in_copies(kind):
    x, out = scattered()[kind]
    expected = quantize_eagerly(x.contiguous(), FMT, 1)
    around, version = out._base.clone() if out._base is not None else None, out._version
    assert kernels.round_into(x, out, FMT, 1)
    assert torch.equal(out, expected)
    assert out._version > version
    if around is not None and kind == "in place":
        assert torch.equal(out._base[:, :1], around[:, :1])  # what lies beside stays


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3, 2, 2), (4, 0, 2, 2), (2, 3, 4, 5, 6), (3, 1, 2, 2)])
def test_shapes_without_much_in_them(shape):
    x = torch.randn(shape)
    out = torch.full_like(x, 7)
    assert kernels.round_into(x, out, FMT, 3)
    assert same_bits(out, quantize_eagerly(x, FMT, 3))


def test_refuses_a_mask_that_the_result_would_overwrite():
    g, memory = torch.randn(100), torch.randn(101)
    assert not kernels.masked_round_into(g, memory[:-1], memory[1:], FMT, None)


def test_writing_counts_as_a_modification():
    x, out = torch.randn(4), torch.empty(4)
    version = out._version
    kernels.round_into(x, out, FMT, None)
    assert out._version == version + 1
    with torch.inference_mode():
        assert kernels.round_into(x, torch.empty(4), FMT, None)


def test_rounding_works_without_numba(monkeypatch):
    x = torch.randn(50)
    expected = quantize(x, FMT, "stochastic", seed=2)
    monkeypatch.setitem(sys.modules, "numba", None)
    kernels._loops.cache_clear()
    try:
        assert not kernels.available()
        assert not kernels.round_into(x, x, FMT, None)
        assert same_bits(quantize(x, FMT, "stochastic", seed=2), expected)
    finally:
        kernels._loops.cache_clear()


def test_import_of_rounding_does_not_import_numba():
    code = "import sys, peppp.lowprec.rounding.quantize; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The step of SGD


def sgd_twin(gradient, momentum, accumulator, weight, configuration, rates, keys):
    """DECISIONS' step in torch's own operations: new (momentum, accumulator, weight)."""
    learning_rate, momentum_factor, weight_decay = rates

    def rounded(x, fmt, key):
        return x if fmt == FP32 else quantize_eagerly(x, fmt, key)

    a, b = configuration.format_a, configuration.format_b
    acc = weight if accumulator is None else accumulator
    d = rounded(gradient, b, keys[0])
    if weight_decay:
        d = d + weight_decay * acc
    v = d if momentum is None else momentum_factor * momentum + d
    acc = acc - learning_rate * v
    if accumulator is not None:
        acc = rounded(acc, b, keys[1])
    return rounded(v, b, keys[2]), acc, rounded(acc, a, keys[3])


def parameters(layout, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(20, 7, 3, 3, generator=generator) * scale for _ in range(4)]
    for offset, x in enumerate(tensors):
        x.view(-1)[offset::9] = 0.0
        x.view(-1)[offset::13] *= 2.0**-20
    return [LAYOUTS[layout](x) for x in tensors]


def sgd(gradient, momentum, accumulator, weight, text, rates, mode, *, key=0xFEDCBA9876543210, index=5):
    """One parameter's step by the kernel; whether it did it."""
    columns = [None if x is None else [x] for x in (gradient, momentum, accumulator, weight)]
    return kernels.sgd_step(*columns, [index], Configuration.parse(text).sides, of_step(mode), *rates, key)


def of_step(mode):
    """The modes of the gradient, of momentum and accumulator, and of weights."""
    modes = RoundingModes.parse(mode)
    return modes.gradient, modes.states, modes.values


def check_sgd(text, mode, *, layout="contiguous", momentum=True, accumulator=True, rates=(0.03, 0.9, 5e-4)):
    gradient, v, acc, w = parameters(layout)
    v, acc = v if momentum else None, acc if accumulator else None
    modes = RoundingModes.parse(mode)
    roles = (GRADIENT, ACCUMULATOR, FIRST_STATE, WEIGHT)
    mode_of = (modes.gradient, modes.states, modes.states, modes.values)
    parameter_key = mix(0xFEDCBA9876543210, 5)
    keys = [mix(parameter_key, r) if m == "stochastic" else None for r, m in zip(roles, mode_of, strict=True)]
    expected = sgd_twin(gradient, v, acc, w, Configuration.parse(text), rates, keys)
    before = gradient.clone()
    assert sgd(gradient, v, acc, w, text, rates, mode)
    assert same_bits(gradient, before)
    assert not momentum or same_bits(v, expected[0])
    assert not accumulator or same_bits(acc, expected[1])
    assert same_bits(w, expected[2])


ALL, NONE = "stochastic", "nearest"
MIXED = "values=stochastic,errors=nearest,gradient=nearest,states=stochastic"


@pytest.mark.parametrize("mode", [ALL, NONE, MIXED], ids=["stochastic", "nearest", "mixed"])
@pytest.mark.parametrize(("momentum", "accumulator"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_sgd_equals_its_definition_bit_for_bit(layout, momentum, accumulator, mode):
    check_sgd("1-4-1/1-6-7", mode, layout=layout, momentum=momentum, accumulator=accumulator)


@pytest.mark.parametrize("mode", [ALL, NONE])
@pytest.mark.parametrize("text", ["1-3-4/1-8-11", "1-2-0/1-5-22", "fp32/fp32", "1-5-2/fp32", "fp32/1-6-7"])
def test_sgd_in_any_format(text, mode):
    check_sgd(text, mode)


@pytest.mark.parametrize(
    "text", ["1-4-3@ocp/bf16", "1-3-1@qpytorch-0.2/1-6-7@qpytorch-0.2", "1-4-3@ieee/1-6-7"]
)
def test_sgd_in_other_flavours(text):
    check_sgd(text, NONE)


@pytest.mark.parametrize(
    "rates", [(0.1, 0.9, 0.0), (1e-3, 0.0, 1e-4), (1.0, 0.99, 0.1), (1 / 3, 1 / 7, 1 / 11)]
)
def test_sgd_at_any_rate_without_contraction(rates):
    """In fp32 nothing hides a multiplication fused with an addition."""
    check_sgd("fp32/fp32", NONE, rates=rates)
    check_sgd("1-4-1/1-6-7", ALL, rates=rates)


def test_contraction_would_be_noticed():
    """The numbers of these tests tell a fused multiplication and addition from two roundings."""
    _, v, acc, _ = parameters("contiguous")
    fused = (acc.double() - torch.tensor(0.03).double() * v.double()).float()
    assert (fused != acc - 0.03 * v).any()


def test_sgd_of_several_parameters_is_that_of_each():
    together, alone = ([parameters("contiguous"), parameters("channels_last")] for _ in range(2))
    together[1][:] = [x[:, :3, :1, :1].clone() for x in together[1]]
    alone[1][:] = [x[:, :3, :1, :1].clone() for x in alone[1]]
    rates, configuration = (0.1, 0.9, 1e-4), Configuration.parse("1-4-1/1-6-7")
    columns = [list(column) for column in zip(*together, strict=True)]
    assert kernels.sgd_step(*columns, [3, 8], configuration.sides, of_step(ALL), *rates, 77)
    for tensors, index in zip(alone, (3, 8), strict=True):
        assert sgd(*tensors, "1-4-1/1-6-7", rates, ALL, key=77, index=index)
    for tensors, expected in zip(together, alone, strict=True):
        assert all(same_bits(a, b) for a, b in zip(tensors, expected, strict=True))


def test_sgd_counts_as_a_change_of_what_it_changes():
    gradient, v, acc, w = parameters("contiguous")
    versions = [x._version for x in (gradient, v, acc, w)]
    assert sgd(gradient, v, acc, w, "1-4-1/1-6-7", (0.1, 0.9, 0.0), NONE)
    changed = [x._version > before for x, before in zip((gradient, v, acc, w), versions, strict=True)]
    assert changed == [False, True, True, True]


def test_sgd_keeps_nan():
    gradient, v, acc, w = (torch.ones(40) for _ in range(4))
    gradient[5] = torch.nan
    assert sgd(gradient, v, acc, w, "1-4-1/1-6-7", (0.1, 0.9, 0.0), ALL)
    assert [x.isnan().nonzero().tolist() for x in (v, acc, w)] == [[[5]]] * 3


def test_sgd_of_one_tensor_does_not_depend_on_its_layout():
    results = []
    for layout in ("contiguous", "channels_last"):
        gradient, v, acc, w = parameters(layout)
        assert sgd(gradient, v, acc, w, "1-4-1/1-6-7", (0.1, 0.9, 0.0), ALL)
        results.append((v, acc, w))
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_sgd_refuses_layouts_that_differ():
    gradient, v, acc, w = parameters("contiguous")
    before = w.clone()
    gradient = LAYOUTS["channels_last"](gradient)
    assert not sgd(gradient, v, acc, w, "1-4-1/1-6-7", (0.1, 0.9, 0.0), ALL)
    assert torch.equal(w, before)
