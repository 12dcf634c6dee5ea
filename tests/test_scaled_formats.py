"""Formats with a scale against slow twins written from their definitions."""

import math
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peppp.errors import FormatError
from peppp.formats import BlockFormat, Configuration, TwoLevelFormat, parse_format
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.rounding.quantize import quantize

MX = ["mx-1-5-2/32", "mx-1-4-3/32", "mx-1-3-2/32", "mx-1-2-3/32", "mx-1-2-1/32", "mx-1-2-1/3"]
SCALED = ["nvfp4", "nv-1-2-1/3", "scaled-1-5-2", "scaled-1-4-3", "scaled-1-3-2", "scaled-1-2-1"]
MODES = ["mx-1-4-3/32@even", "mx-1-3-2/32@ceil", "mx-1-2-1/32@round-up"]
ALL = [*MX, *MODES, *SCALED, "int8", "int4", "int2", "fixed-8-6", "fixed-8-0", "fixed-4--2"]
SPREAD = torch.randn(3, 70, generator=torch.Generator().manual_seed(0)).exp() * torch.randn(
    3, 70, generator=torch.Generator().manual_seed(1)
)


def nearest_value(x, values):
    """The closest of all values; of two, the one whose place in the positive list is even."""
    magnitudes = [v for v in values if v >= 0]
    gap = min(abs(abs(x) - v) for v in magnitudes)
    closest = [i for i, v in enumerate(magnitudes) if abs(abs(x) - v) == gap]
    chosen = next((i for i in closest if i % 2 == 0), closest[0])
    return math.copysign(magnitudes[chosen], x)


def block_twin(numbers, fmt):
    """MX as the specification says it, number by number in exact arithmetic."""
    out = []
    values = [Fraction(v) for v in fmt.element.values()]
    for start in range(0, len(numbers), fmt.block):
        block = [Fraction(x) for x in numbers[start : start + fmt.block]]
        largest = max(abs(x) for x in block)
        if largest == 0:
            out += [0.0] * len(block)
            continue
        exponent = math.frexp(float(largest))[1] - 1 - fmt.element.max_exponent
        scale = Fraction(2) ** exponent
        out += [float(Fraction(nearest_value(x / scale, values)) * scale) for x in block]
    return out


@pytest.mark.parametrize("text", MX)
def test_blocks_along_the_last_dimension_equal_the_specification(text):
    fmt = parse_format(text)
    expected = [block_twin(row, fmt) for row in SPREAD.tolist()]
    assert quantize(SPREAD, fmt).tolist() == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_of_images_run_along_the_channels(layout):
    fmt = parse_format("mx-1-4-3/8")
    x = torch.randn(2, 20, 3, 4, generator=torch.Generator().manual_seed(2))
    y = quantize(x.to(memory_format=layout), fmt)
    for n, h, w in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        assert y[n, :, h, w].tolist() == block_twin(x[n, :, h, w].tolist(), fmt)


def test_an_mx_block_by_hand():
    """Largest 5.5: exponent 2, of e2m1's 2, so scale 1. Ties go to even: 5.0 to 4, 0.25 to 0, 2.5 to 2."""
    x = torch.tensor([5.5, 5.0, -0.25, 2.5, 0.75, -1.75])
    assert quantize(x, parse_format("mxfp4")).tolist() == [6.0, 4.0, -0.0, 2.0, 1.0, -2.0]


@pytest.mark.parametrize(
    ("text", "given_", "expected"),
    [
        ("fixed-8-6", [0.0078125, -0.0078125, 3.0, -3.0], [0.015625, -0.015625, 1.984375, -2.0]),
        ("fixed-4--2", [1.9, 2.0, -6.0, 99.0, -99.0], [0.0, 4.0, -8.0, 28.0, -32.0]),
        ("int8", [127.0, 0.5, -1.49, -127.0], [127.0, 1.0, -1.0, -127.0]),
        ("int2", [4.0, 1.9, -2.0, -9.0], [0.0, 0.0, -0.0, -9.0]),
    ],
)
def test_integers_and_fixed_point_by_hand(text, given_, expected):
    assert quantize(torch.tensor(given_), parse_format(text)).tolist() == expected


@pytest.mark.parametrize("text", ALL)
def test_idempotent_odd_keeps_nan_and_zero(text):
    fmt = parse_format(text)
    x = SPREAD.clone()
    x[0, 3], x[1, :] = torch.nan, 0.0
    y = quantize(x, fmt)
    assert torch.equal(torch.nan_to_num(quantize(y, fmt), 7.0), torch.nan_to_num(y, 7.0))
    assert y.isnan().nonzero().tolist() == [[0, 3]]
    assert not y[1].any()
    if not text.startswith("fixed"):  # two's complement has one negative number more
        assert torch.equal(torch.nan_to_num(quantize(-x, fmt), 7.0), torch.nan_to_num(-y, 7.0))


@pytest.mark.case("I")
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("text", ALL)
def test_infinity_and_nan_stay_and_leave_their_neighbours_alone(text, rounding):
    x, places = SPREAD.clone(), ([0, 0, 1, 2], [0, 7, 65, 69])
    x[1, :40], x[2, :32] = 0.0, 0.0
    x[places] = 0.0
    expected = quantize(x, text, rounding, seed=2)
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, -torch.inf])
    x[places] = expected[places] = special
    found = quantize(x, text, rounding, seed=2)
    assert torch.equal(
        found.nan_to_num(7.0, torch.inf, -torch.inf), expected.nan_to_num(7.0, torch.inf, -torch.inf)
    )


@pytest.mark.case("I")
@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("finite", [0.0, -0.0, 2.0**-149, 3.4028235e38])
def test_infinity_beside_the_smallest_and_largest_numbers(text, finite):
    x = torch.tensor([torch.inf, finite, -torch.inf, torch.inf])
    found = quantize(x, text)
    assert found[[0, 2, 3]].tolist() == [torch.inf, -torch.inf, torch.inf]
    assert torch.equal(found[1], quantize(torch.tensor([finite]), text)[0])
    assert found[1].signbit() == torch.tensor(finite).signbit()
    assert found[1].isfinite()


class Attention(torch.nn.Module):
    """Causal attention by hand; the mask is rounded with the scores when they are divided."""

    def forward(self, x):
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = (x @ x.transpose(1, 2)).masked_fill(future, -torch.inf)
        self.scores = scores / 1.5
        self.weights = self.scores.softmax(-1)
        return self.weights @ x


@pytest.mark.case("I")
@pytest.mark.parametrize("text", ALL)
def test_masked_attention_sees_no_future(text):
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(4))
    for rounding in ("nearest", "stochastic"):
        network = low_precision(Attention(), f"{text}/1-6-7", rounding=rounding, seed=0)
        network(x)
        future = torch.ones(40, 40, dtype=torch.bool).triu(1)
        assert (network.weights[:, future] == 0).all()
        assert network.weights.isfinite().all()
        assert torch.equal(network.scores == -torch.inf, future.expand(2, 40, 40))


@pytest.mark.case("Z")
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("bits", range(2, 17))
def test_largest_numbers_of_float32_stay_finite_in_integers(bits, rounding):
    largest = torch.finfo(torch.float32).max
    below = [largest, -largest, *(largest * (1 - k * 2.0**-24) for k in range(1, 60, 2))]
    for number in below:
        found = quantize(torch.tensor([number]), f"int{bits}", rounding, seed=1).double().item()
        assert math.isfinite(found)
        assert abs(found - number) <= abs(number) * (
            2.0**-22 if rounding == "nearest" else 1 / (2 ** (bits - 1) - 1)
        )


@pytest.mark.case("Z")
@pytest.mark.parametrize("text", [*MX, "fixed-8-6", "fixed-4-64", "fixed-8--64"])
def test_largest_number_of_float32_becomes_the_largest_of_its_format(text):
    fmt = parse_format(text)
    found = quantize(torch.tensor([torch.finfo(torch.float32).max]), fmt).item()
    if isinstance(fmt, BlockFormat):
        assert found == fmt.element.max * 2.0 ** (127 - fmt.element.max_exponent)
    else:
        assert found == fmt.max


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_integers_of_the_least_scale(bits):
    """Numbers so small that their scale would be a subnormal float32 are multiples of the least scale."""
    step, draw = 2.0**-126, torch.Generator().manual_seed(6)
    for exponent in (-149, -140, -130, -126, -122):
        x = torch.randn(50, generator=draw) * 2.0**exponent
        if x.abs().max() <= step * (2 ** (bits - 1) - 1):
            codes = (x.double() / step).abs().add(0.5).floor() * x.sign()
            assert torch.equal(quantize(x, f"int{bits}").double(), codes * step)


def test_blocks_of_the_least_scale():
    draw = torch.Generator().manual_seed(6)
    for text in MX:
        fmt = parse_format(text)
        x = torch.randn(8, generator=draw) * 2.0**-128
        values = [Fraction(v) for v in fmt.element.values()]
        scaled = [Fraction(value) * 2**126 for value in x.tolist()]
        expected = [float(Fraction(nearest_value(value, values)) / 2**126) for value in scaled]
        if max(map(abs, scaled)) < 2**fmt.element.max_exponent:
            assert quantize(x, fmt).tolist() == expected


@pytest.mark.parametrize("text", ALL)
def test_stochastic_gives_neighbours_and_is_unbiased_within_three_sigma(text):
    fmt = parse_format(text)
    x = torch.full((4, 1024), 0.37)
    x[:, 0] = 0.8  # the largest of all blocks of 1024: the scale does not depend on the draw
    if isinstance(fmt, (BlockFormat, TwoLevelFormat)):
        fmt = replace(fmt, block=1024)
    draws = torch.stack([quantize(x, fmt, "stochastic", seed=seed)[:, 1:] for seed in range(40)])
    seen = draws.unique()
    assert len(seen) <= 2
    error = (draws.double() - 0.37).abs().max()
    deviation = draws.double().std() / math.sqrt(draws.numel())
    assert abs(draws.double().mean() - 0.37) <= 3 * deviation + 1e-6 * error


@pytest.mark.parametrize("text", ALL)
def test_any_shape_and_into_place(text):
    fmt = parse_format(text)
    for shape in [(), (0,), (1,), (0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 4), (2, 3, 4, 5)]:
        x = torch.randn(shape)
        assert quantize(x, fmt, "stochastic", seed=3).shape == x.shape
    x = torch.randn(5, 6)
    expected = quantize(x, fmt)
    assert quantize(x, fmt, out=x) is x
    assert torch.equal(x, expected)


def test_bits_count_the_shared_scale():
    assert parse_format("mx-1-4-3/32").bits == Fraction(33, 4)
    assert (parse_format("int8").bits, parse_format("fixed-9-2").bits) == (8, 9)


@given(st.sampled_from([*ALL, "fp32", "1-4-3", "1-4-3@ocp", "bf16"]), st.sampled_from(ALL))
def test_texts_of_configurations_come_back(a, b):
    configuration = Configuration.parse(f"{a}/{b}")
    assert configuration == Configuration(parse_format(a), parse_format(b))
    assert Configuration.parse(str(configuration)) == configuration


@pytest.mark.parametrize(
    "text", ["int1", "int64", "fixed-8", "fixed-40-3", "mx-1-4-1/32", "mx-1-4-3", "mx-1-4-3/1", "mx"]
)
def test_impossible_formats_are_refused(text):
    with pytest.raises(FormatError):
        parse_format(text)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("MXINT8", "int8"),
        ("uint8", "int8"),
        ("fp4", "1-2-1@ocp"),
        ("mxpf8", "mxfp8"),
        ("nvpf4", "nvfp4"),
        ("bf61", "bf16"),
        ("e4m3fnuz", "e4m3fn"),
        ("scaled-1-4", "scaled-1-4-3"),
        ("nonsense", "mx-1-4-3/32"),
        ("mx-1-4-3", "mx-1-4-3/32"),
    ],
)
def test_unknown_names_are_answered_with_what_comes_near(text, near):
    for call in (
        parse_format,
        lambda text: quantize(torch.ones(2), text),
        lambda text: Configuration.parse(f"{text}/fp32"),
    ):
        with pytest.raises(FormatError, match=re.escape(near)) as caught:
            call(text)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
    parse_format(near)


def test_quantize_takes_text():
    for text in (*ALL, "1-4-1", "bf16", "fp32"):
        assert torch.equal(quantize(SPREAD, text), quantize(SPREAD, parse_format(text)))
    with pytest.raises(FormatError, match="no such format"):
        quantize(SPREAD, "1-9-3")


def test_equal_to_the_int8_of_numpy():
    x = SPREAD.numpy()
    scale = np.float32(np.abs(x).max() / np.float32(127))
    v = x / scale
    expected = np.copysign(np.floor(np.abs(v) + np.float32(0.5)), v).clip(-127, 127) * scale
    assert np.array_equal(quantize(SPREAD, parse_format("int8")).numpy(), expected)
