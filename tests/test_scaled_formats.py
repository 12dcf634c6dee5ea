"""Formats with a scale against slow twins written from their definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peppp.errors import FormatError
from peppp.formats import BlockFormat, Configuration, parse_format
from peppp.lowprec.rounding import quantize

MX = ["mx-1-5-2/32", "mx-1-4-3/32", "mx-1-3-2/32", "mx-1-2-3/32", "mx-1-2-1/32", "mx-1-2-1/3"]
ALL = [*MX, "int8", "int4", "int2", "fixed-8-6", "fixed-8-0", "fixed-4--2"]
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


@pytest.mark.parametrize("text", ALL)
def test_infinities_saturate(text):
    fmt = parse_format(text)
    x = torch.tensor([1.0, torch.inf, -torch.inf, 0.5])
    y = quantize(x, fmt)
    assert y.isfinite().all()
    assert y[1] > 0 > y[2]


@pytest.mark.parametrize("text", ALL)
def test_stochastic_gives_neighbours_and_is_unbiased_within_three_sigma(text):
    fmt = parse_format(text)
    x = torch.full((4, 1024), 0.37)
    x[:, 0] = 0.8  # the largest of all blocks of 1024: the scale does not depend on the draw
    fmt = BlockFormat(fmt.element, 1024) if isinstance(fmt, BlockFormat) else fmt
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


def test_equal_to_the_int8_of_numpy():
    x = SPREAD.numpy()
    scale = np.float32(np.abs(x).max() / np.float32(127))
    v = x / scale
    expected = np.copysign(np.floor(np.abs(v) + np.float32(0.5)), v).clip(-127, 127) * scale
    assert np.array_equal(quantize(SPREAD, parse_format("int8")).numpy(), expected)
