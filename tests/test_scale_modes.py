"""Scales of blocks and tensors against slow twins in exact arithmetic, and against torchao where it is."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peppp.errors import FormatError
from peppp.formats import BlockFormat, Configuration, ScaledFormat, TwoLevelFormat, parse_format
from peppp.lowprec.rounding.quantize import quantize

ELEMENTS = ["1-5-2", "1-4-3", "1-3-2", "1-2-3", "1-2-1"]
MODES = ["floor", "even", "ceil", "round-up"]
MX = [f"mx-{element}/32@{mode}" for element in ELEMENTS for mode in MODES]
SCALED = [f"scaled-{element}" for element in ELEMENTS]
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-25)
BLOCKS = arrays(np.float32, 16, elements=NUMBERS)


def numbers(rows=64, seed=0):
    """Rows of 64 over many binades, and rows whose largest numbers lie at and beside what modes part at."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 64, generator=draw) * torch.randn(rows, 64, generator=draw).exp()
    x = x * 2.0 ** torch.randint(-20, 20, (rows, 1), generator=draw)
    edges = [1, 1.25, 1.5, 1.75, 1.875, 1.9375, 1.96875, 1.984375, 1.75 + 2**-23, 1.75 - 2**-23, 2 - 2**-23]
    beside = [math.nextafter(edge, way) for edge in edges for way in (0, 9)]
    largest = torch.tensor([*edges, *beside], dtype=torch.float32)
    scaled = torch.rand(len(largest), 64, generator=draw) * 2 - 1
    scaled[:, 5] = scaled[:, 40] = 1
    return torch.cat([x, scaled * largest[:, None]])


def nearest(x, fmt):
    """The nearest number of a saturating float format to a Fraction, ties to even, step by step."""
    magnitude = abs(x)
    if magnitude == 0:
        return Fraction(0)
    exponent = math.frexp(magnitude)[1] - 1
    if Fraction(2) ** exponent > magnitude:  # the conversion to a double was rounded up
        exponent -= 1
    step = Fraction(2) ** (max(exponent, fmt.min_exponent) - fmt.mantissa_bits)
    rounded = min(round(magnitude / step) * step, Fraction(fmt.max))
    return rounded if x > 0 else -rounded


def single(x):
    """A Fraction as a float32, rounded once."""
    magnitude = abs(x)
    if magnitude == 0:
        return Fraction(0)
    exponent = math.frexp(magnitude)[1] - 1
    exponent -= Fraction(2) ** exponent > magnitude
    step = Fraction(2) ** (max(exponent, -126) - 23)
    return round(magnitude / step) * step * (1 if x > 0 else -1)


def power(largest, element, mode):
    """The scale of an MX block, as a Fraction."""
    if mode == "round-up":
        scale = Fraction(2) ** -126
        while largest > Fraction(element.max) * scale:
            scale *= 2
        return scale
    significand, exponent = math.frexp(largest)
    significand, exponent = 2 * Fraction(significand), exponent - 1
    if mode == "even":
        significand = Fraction(round(significand * 2**element.mantissa_bits), 2**element.mantissa_bits)
        exponent += significand == 2
    if mode == "ceil":
        exponent += significand > 1
    return Fraction(2) ** (exponent - element.max_exponent)


def twin(row, fmt, everything):
    """One row of numbers in a format with a scale; ``everything`` is what shares a tensor's scale."""
    row = [Fraction(x) for x in row]
    whole = max((abs(Fraction(x)) for x in everything), default=0)
    size = len(row) if isinstance(fmt, ScaledFormat) else fmt.block
    found = []
    for start in range(0, len(row), size):
        block = row[start : start + size]
        largest = max(map(abs, block))
        if largest == 0:
            scale = Fraction(0)
        elif isinstance(fmt, BlockFormat):
            scale = power(largest, fmt.element, fmt.scale)
        elif isinstance(fmt, ScaledFormat):
            scale = single(whole / Fraction(fmt.element.max))
        else:
            tensor = single(whole / 2688)
            of_block = nearest(single(single(largest / 6) / tensor), parse_format("1-4-3@ocp-sat"))
            scale = single(of_block * tensor)
        for x in block:
            code = nearest(single(x / scale), fmt.element) if scale else Fraction(0)
            found.append(float(single(code * scale)))
    return found


@pytest.mark.parametrize("text", [*MX, *SCALED, "nv-1-2-1/16", "nv-1-2-1/7", "mx-1-2-1/5@even"])
def test_equal_to_the_definition(text):
    x, fmt = numbers(rows=16), parse_format(text)
    everything = x.flatten().tolist()
    assert quantize(x, text).tolist() == [twin(row, fmt, everything) for row in x.tolist()]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("floor", [6, 4]), ("even", [8, 4]), ("ceil", [8, 4]), ("round-up", [8, 4])],
)
def test_modes_by_hand(mode, expected):
    """Largest 7: scale 1 saturates at 6; scale 2 makes it 3.5, a tie that goes to 4, and 4.5 to 2.25."""
    assert quantize(torch.tensor([7.0, 4.5]), f"mx-1-2-1/2@{mode}").tolist() == expected


def test_modes_part():
    """Largest 5: floor, even and round-up take 1, ceil 2; largest 6.5: even and floor 1, round-up 2."""
    for largest, scales in (
        (5.0, (1, 1, 2, 1)),
        (6.5, (1, 1, 2, 2)),
        (7.0, (1, 2, 2, 2)),
        (4.0, (1, 1, 1, 1)),
    ):
        for mode, scale in zip(MODES, scales, strict=True):
            found = quantize(torch.tensor([largest, 0.5]), f"mx-1-2-1/2@{mode}")
            assert found[1] == (0.5 if scale == 1 else 0.0)  # 0.25 is a tie that goes to 0


def test_nvfp4_by_hand():
    """Largest 2688: the tensor's scale is 1. The second block's is 12/6, the third's 0.001 becomes 0."""
    x = torch.zeros(3, 16)
    x[0, 0], x[1, :3], x[2, :2] = 2688.0, torch.tensor([12.0, -5.0, 0.9]), torch.tensor([0.003, -0.003])
    found = quantize(x, "nvfp4")
    assert found[0, 0] == 2688
    assert found[1, :3].tolist() == [12.0, -4.0, 1.0]
    assert not found[2].any()
    assert found[2].signbit().nonzero().tolist() == [[1]]


@pytest.mark.parametrize("text", [*MX, *SCALED, "nvfp4"])
def test_the_smallest_and_largest_numbers_stay_finite(text):
    for largest in (2.0**-149, 2.0**-126, 2.0**-110, 3.4028235e38):
        x = torch.tensor([largest, -largest / 3, 0.0, -0.0])
        found = quantize(x, text)
        assert found.isfinite().all()
        assert torch.equal(found.signbit(), x.signbit())
        assert (found.abs() <= 1.34 * largest + 2.0**-126).all()


def test_texts_come_back_and_floor_has_no_suffix():
    for text in [*MX, *SCALED, "nv-1-2-1/16"]:
        for other in ("1-6-7", "mx-1-4-3/32@even", "mx-1-4-3/8", "scaled-1-4-3", "nv-1-2-1/16", "bf16"):
            for pair in (f"{text}/{other}", f"{other}/{text}"):
                configuration = Configuration.parse(pair)
                assert Configuration.parse(str(configuration)) == configuration
                assert "@floor" not in str(configuration)
    assert parse_format("mx-1-2-1/32@floor") == parse_format("mxfp4")
    assert parse_format("nvfp4") == TwoLevelFormat()


@pytest.mark.parametrize(
    "text",
    ["mx-1-2-1/32@odd", "nv-1-2-1/16@even", "nv-1-4-3/16", "nv-1-2-1/1", "scaled-1-4-1", "mx-1-4-3@even"],
)
def test_what_there_is_not_is_refused_in_one_line(text):
    with pytest.raises(FormatError) as caught:
        parse_format(text)
    assert "\n" not in str(caught.value)


@example(np.array([0] * 14 + [1.126802e28, 6.338254e29], np.float32), "mx-1-2-3/32@ceil")  # above 2^99
@given(BLOCKS, st.sampled_from([*MX, *SCALED, "nvfp4"]))
def test_odd_monotone_and_near(block, text):
    """Within a block: signs do not matter, order of magnitude stays, errors are within the format's bound."""
    x, fmt = torch.from_numpy(block), parse_format(text)
    y = quantize(x, text)
    assert torch.equal(quantize(-x, text), -y)
    assert (y[x.abs().argsort()].abs().diff() >= 0).all()
    largest = x.abs().max().item()
    # Saturation of floor and even costs the largest numbers up to this part of them. Below, half a step:
    # relative to a normal number, and of the subnormal ones so many scales. The scale is at most this part
    # of the largest number, by the definition of each mode: 2^floor(log2 x) <= x, 2^ceil(log2 x) < 2 x.
    element = fmt.element
    half = element.epsilon / 2
    saturated = 1 - element.max / 2 ** (element.max_exponent + 1) if text[-5:] in ("floor", "@even") else 0
    scaled_up = 1 / 8 if text == "nvfp4" else 0  # by the rounding of the block's scale
    top, greatest = 2.0**element.max_exponent, element.max
    scale = {
        "floor": 1 / top, "even": 1 / (1 - half) / top, "ceil": 2 / top, "round-up": 2 / greatest,
    }.get(text.partition("@")[2], (1 + scaled_up) / greatest)  # fmt: skip
    bound = x.abs().double() * max(half, saturated, scaled_up)
    bound += largest * scale * element.min_subnormal / 2
    assert ((x.double() - y.double()).abs() <= bound * (1 + 1e-6)).all()


@given(BLOCKS, st.sampled_from(MX))
def test_scales_of_powers_of_two_round_twice_as_once(block, text):
    """A scale can become smaller, where the largest number was rounded down; multiples of it stay numbers."""
    once = quantize(torch.from_numpy(block), text)
    assert torch.equal(quantize(once, text), once)


@given(BLOCKS, st.sampled_from(SCALED))
def test_scales_of_tensors_round_twice_as_once_but_for_the_last_bit(block, text):
    """The largest number / 448 * 448 is not always itself in float32: the scale can move by its last bit."""
    once = quantize(torch.from_numpy(block), text)
    torch.testing.assert_close(quantize(once, text), once, rtol=2**-21, atol=0)


@given(BLOCKS)
def test_nvfp4_rounds_twice_as_once_but_for_the_last_bit(block):
    """In one block. A block whose scale is a subnormal E4M3 may round to other numbers the second time."""
    once = quantize(torch.from_numpy(block), "nvfp4")
    torch.testing.assert_close(quantize(once, "nvfp4"), once, rtol=2**-21, atol=0)


@pytest.mark.parametrize("text", [*MX[::3], *SCALED, "nvfp4"])
def test_stochastic_rounding_takes_neighbours_and_depends_on_the_seed(text):
    x = numbers(rows=4)[:8].clone()
    one, again, other = (quantize(x, text, "stochastic", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    out = torch.empty_like(x)
    assert quantize(x, text, "stochastic", seed=1, out=out) is out
    assert torch.equal(out, one)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fp8", "1-4-3@ocp-sat"),
        ("MXFP8", "mx-1-4-3/32"),
        ("mxfp6", "mx-1-2-3/32"),
        ("mxfp4", "mx-1-2-1/32"),
        ("NVFP4", "nv-1-2-1/16"),
        ("tf32", "1-8-10@ieee"),
        ("1-8-23", "fp32"),
        ("e4m3fn", "1-4-3@ocp"),
        ("float8_e4m3fn", "1-4-3@ocp"),
        ("e5m2", "1-5-2@ocp"),
        ("float8_e5m2", "1-5-2@ocp"),
    ],
)
def test_names_in_use_are_formats_and_texts_stay_as_they_are(name, text):
    assert str(parse_format(name)) == text
    assert str(Configuration.parse(f"{name}/{name}")) == f"{text}/{text}"
