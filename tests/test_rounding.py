import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import reference
from peppp.errors import FormatError
from peppp.formats import FP32, PAPER_FORMATS_A, PAPER_FORMATS_B, FloatFormat
from peppp.lowprec.rounding.quantize import quantize, quantize_eagerly, round_bits, seed_key
from peppp.lowprec.rounding.streams import mix, random_bits
from tensors import FORMATS, LAYOUTS, difficult, float32, same_bits

SHARED = Path(os.environ.get("PEPPP_SHARED", Path(__file__).parents[2] / "shared"))
VECTORS = SHARED / "reference" / "quant_reference.npz"
formats = st.sampled_from(FORMATS)
seeds = st.integers(0, 2**64 - 1)
numbers = arrays(
    np.float32,
    st.integers(0, 40),
    elements=st.floats(width=32) | st.floats(-16, 16, width=32) | st.floats(-(2.0**-6), 2.0**-6, width=32),
)
untimed = settings(deadline=None)  # a first call may compile


# Against other people's programs


@pytest.fixture(scope="module")
def vectors():
    if not VECTORS.exists():
        pytest.skip(f"no reference vectors at {VECTORS}; set PEPPP_SHARED")
    with np.load(VECTORS, allow_pickle=False) as archive:
        return dict(archive)


def nearest_forms(fmt, x):
    """The same rounding by kernels and by the readable expression."""
    return [form.numpy() for form in (quantize(float32(x), fmt), quantize_eagerly(float32(x), fmt, None))]


@pytest.mark.parametrize("fmt", PAPER_FORMATS_A + PAPER_FORMATS_B, ids=str)
@pytest.mark.parametrize(
    ("name", "flavour"),
    [
        ("qtorch030_nearest", "qpytorch"),
        ("qtorch020_nearest", "qpytorch-0.2"),
        ("gfloat_ieee_rne", "ieee"),
    ],
)
def test_equal_in_value_to_reference_programs(vectors, fmt, name, flavour):
    label = f"e{fmt.exponent_bits}m{fmt.mantissa_bits}"
    x, expected = vectors[f"x_{label}"], vectors[f"{name}_{label}"]
    number = ~np.isnan(x)
    assert number.sum() > 2000
    for result in nearest_forms(FloatFormat(fmt.exponent_bits, fmt.mantissa_bits, flavour), x):
        np.testing.assert_array_equal(result[number], expected[number])
        assert np.isnan(result[~number]).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mldtypes_float8_e5m2", "1-5-2@ocp"),
        ("mldtypes_float8_e4m3fn", "1-4-3@ocp"),
        ("mldtypes_float8_e4m3", "1-4-3@ieee"),
        ("mldtypes_float8_e3m4", "1-3-4@ieee"),
        ("mldtypes_bfloat16", "bf16"),
        ("mldtypes_float16", "fp16"),
        ("torch_float8_e5m2", "1-5-2@ocp"),
        ("torch_float8_e4m3fn", "1-4-3@ocp-sat"),
        ("torch_bfloat16", "bf16"),
        ("torch_float16", "fp16"),
    ],
)
def test_equal_to_published_types(vectors, name, text):
    x, expected = vectors["x_" + name.partition("_")[2]], vectors[name]
    number = ~np.isnan(x)
    for result in nearest_forms(FloatFormat.parse(text), x):
        np.testing.assert_array_equal(result[number], expected[number])
        np.testing.assert_array_equal(np.signbit(result[number]), np.signbit(x[number]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2], ids=str)
def test_equal_to_casts_of_torch(dtype):
    text = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float8_e5m2: "1-5-2@ocp"}[dtype]
    x = float32(difficult(FloatFormat.parse(text)))
    assert same_bits(quantize(x, FloatFormat.parse(text)), x.to(dtype).float())


# Against the definition


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_nearest_equals_exact_model(fmt):
    x = difficult(fmt)
    scaled = fmt.ties == "away" and fmt.subnormals and fmt.exponent_bits < 8
    for result in nearest_forms(fmt, x):
        np.testing.assert_array_equal(result, reference.round_exactly(x, fmt, twice=scaled))


@pytest.mark.case("Y")
@pytest.mark.parametrize("text", ["1-5-20", "1-5-20@ieee", "1-6-11", "1-4-15", "1-2-22"])
def test_subnormals_of_wide_formats_round_twice_in_the_default_flavour_alone(text):
    fmt = FloatFormat.parse(text)
    steps = np.concatenate([whole + np.linspace(0, 1, 4001) for whole in (0, 1, 2, 1000)])
    x = (steps * fmt.min_subnormal).astype(np.float32)
    scaled = fmt.ties == "away"
    twice, once = (reference.round_exactly(x, fmt, twice=twice) for twice in (scaled, False))
    for result in nearest_forms(fmt, x):
        np.testing.assert_array_equal(result, twice)
    far = np.abs(x / fmt.min_subnormal % 1 - 0.5) > 2.0 ** (fmt.mantissa_bits - 24)
    assert (twice == once)[far].all()
    assert (twice == once).all() != (scaled and fmt.mantissa_bits >= 15)


@pytest.mark.case("Y")
@pytest.mark.parametrize("fmt", PAPER_FORMATS_A, ids=str)
def test_deviates_from_exact_model_only_next_to_ties_of_subnormals(fmt):
    x = difficult(fmt)
    exact = reference.round_exactly(x, fmt)
    differs = quantize(float32(x), fmt).numpy() != exact
    magnitude = np.abs(x[differs].astype(np.float64))
    to_tie = np.abs(magnitude / fmt.min_subnormal % 1 - 0.5) * fmt.min_subnormal
    assert differs.any()
    assert (magnitude < fmt.min_normal).all()
    assert (to_tie <= 2.0 ** (fmt.min_exponent - 24)).all()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt.bits <= 16], ids=str)
def test_every_value_of_a_format_is_kept(fmt, rounding):
    values = float32(fmt.values())
    assert same_bits(quantize(values, fmt, rounding, seed=5), values)


@pytest.mark.parametrize("fmt", PAPER_FORMATS_A, ids=str)
def test_every_tie_goes_away_from_zero(fmt):
    values = fmt.values()
    middle = (values[1:] + values[:-1]) / 2
    away = np.where(middle < 0, values[:-1], values[1:])
    np.testing.assert_array_equal(quantize(float32(middle), fmt).numpy(), away)


@pytest.mark.parametrize("text", ["1-3-1@ieee", "1-5-2@ocp", "1-4-3@ocp-sat", "1-2-3@ocp"])
def test_every_tie_goes_to_even(text):
    fmt = FloatFormat.parse(text)
    values = fmt.values()[fmt.values() >= 0]  # in the order of their codes
    even = np.where(np.arange(len(values) - 1) % 2 == 0, values[:-1], values[1:])
    middle = (values[1:] + values[:-1]) / 2
    np.testing.assert_array_equal(quantize(float32(middle), fmt).numpy(), even)
    np.testing.assert_array_equal(quantize(float32(-middle), fmt).numpy(), -even)


@untimed
@given(numbers, formats)
def test_idempotent_odd_and_keeps_nan(x, fmt):
    x = float32(x)
    y = quantize(x, fmt)
    number = ~y.isnan()
    assert same_bits(quantize(y, fmt)[number], y[number])
    negated = -y + 0.0 if not fmt.subnormals else -y  # 0.2.0 knows no -0
    assert torch.equal((quantize(-x, fmt) + 0.0)[number], (negated + 0.0)[number])
    assert same_bits(y[x.isnan()], x[x.isnan()])


@untimed
@given(numbers, formats)
def test_monotone(x, fmt):
    x = np.sort(x[~np.isnan(x)])
    y = quantize(float32(x), fmt).numpy()
    y = np.where(np.isnan(y), np.copysign(np.inf, y), y)  # where overflow is NaN
    assert (y[1:] >= y[:-1]).all()


@untimed
@given(numbers, formats)
def test_nearest_is_within_half_a_step(x, fmt):
    x = x[np.abs(x) <= fmt.max]  # leaves NaN out
    error = np.abs(quantize(float32(x), fmt).numpy().astype(np.float64) - x)
    exponent = np.maximum(np.frexp(np.abs(x.astype(np.float64)))[1] - 1, fmt.min_exponent)
    half = np.ldexp(0.5, exponent - fmt.mantissa_bits)
    if not fmt.subnormals:
        half = np.where(np.abs(x) < fmt.min_normal, fmt.min_normal * (0.5 + fmt.epsilon / 2), half)
    scaled = np.where(np.abs(x) < fmt.min_normal, 2.0 ** (fmt.min_exponent - 24), 0.0)
    assert (error <= half + (scaled if fmt.ties == "away" else 0.0)).all()


# Stochastic rounding


@pytest.mark.parametrize("x", [1.4, -300.0, 0.02, 2.0**-8 * 1.0625, -(2.0**-7) * 1.8])
def test_counts_up_as_often_as_the_fraction_says(x):
    """Over all values of the random bits that matter, the mean is x itself, subnormals included."""
    fmt = FloatFormat.parse("1-4-3")
    bits = torch.arange(1 << 20, dtype=torch.int32)
    rounded = round_bits(torch.tensor(x).expand(bits.shape), fmt, bits).double()
    assert rounded.unique().numel() == 2
    assert rounded.mean().item() == pytest.approx(torch.tensor(x).item(), abs=2.0 ** (fmt.min_exponent - 24))


RESOLVED = ["1-6-7", "1-6-9", "1-6-11", "1-7-7", "1-7-22", "1-4-5", "1-2-15", "fp16"]


@pytest.mark.case("X")
@pytest.mark.parametrize("text", ["1-6-7", "1-6-11", "1-7-22", "fp16"])
def test_subnormals_go_up_as_often_as_the_fraction_says(text):
    """Counted over all random words that differ in a number's 23 or fewer bits, so without any chance."""
    fmt, words = FloatFormat.parse(text), torch.arange(1 << 23, dtype=torch.int32)
    inner = 2 ** (fmt.mantissa_bits - 1) + 1
    for steps in (1e-4, 0.37, 1.0001, inner - 2.0**-5):
        x = torch.tensor(-steps * fmt.min_subnormal)
        exact = -x.double().item() / fmt.min_subnormal
        rounded = round_bits(x.expand(words.shape), fmt, words).double() / -fmt.min_subnormal
        assert ((rounded == math.floor(exact)) | (rounded == math.ceil(exact))).all()
        assert abs(rounded.mean().item() - exact) <= 2.0**-24


@pytest.mark.case("X")
@pytest.mark.parametrize("steps", [1e-4, 3e-6, 5.0002])
def test_rare_steps_of_subnormals_are_taken(steps):
    fmt = FloatFormat.parse("1-6-11")
    x = torch.full((1 << 21,), steps * fmt.min_subnormal)
    p = x[0].double().item() / fmt.min_subnormal % 1
    up = (quantize(x, fmt, "stochastic", seed=1) > math.floor(steps) * fmt.min_subnormal).sum().item()
    assert abs(up - p * x.numel()) <= 3 * math.sqrt(p * (1 - p) * x.numel())


@pytest.mark.case("X")
@pytest.mark.parametrize("text", [*RESOLVED, "1-4-1", "1-4-4", "1-5-2", "1-3-3", "1-6-4", "1-2-0", "1-8-11"])
def test_stochastic_equals_slow_twin(text):
    fmt = FloatFormat.parse(text)
    random = np.random.default_rng(5)
    lowest = max(fmt.min_exponent - fmt.mantissa_bits - 26, -149)
    x = np.exp2(random.uniform(lowest, fmt.min_exponent + 3, 2000)).astype(np.float32)
    x = float32(np.concatenate([x, -x, np.float32(fmt.min_normal) * np.float32([1 - 2.0**-24, 0.5, 1, 0])]))
    bits = random_bits(x.shape, seed_key(3))
    pairs = zip(x.tolist(), bits.tolist(), strict=True)
    expected = [reference.round_stochastically(value, fmt, word & 0xFFFFFFFF) for value, word in pairs]
    assert same_bits(round_bits(x, fmt, bits), torch.tensor(expected))


def digest(formats, keep):
    """Of numbers of all bit patterns, rounded with 8 keys."""
    pattern = (torch.arange(1 << 18) * 0x9E3779B1 + 12345) & 0xFFFFFFFF
    x = pattern.to(torch.uint32).view(torch.float32)
    found = hashlib.sha256()
    for fmt in formats:
        for seed in range(8):
            y = quantize(x, fmt, "stochastic", seed=seed)[keep(x, fmt)]
            found.update(y.view(torch.int32).numpy().astype("<i4").tobytes())
    return found.hexdigest()[:16]


@pytest.mark.case("X")
def test_no_number_moves_that_the_table_was_measured_with():
    """Recorded before subnormals of 5 mantissa bits or more were resolved further."""
    assert digest(PAPER_FORMATS_A, lambda x, fmt: x == x) == "a448e095c71d3f9b"
    assert digest(PAPER_FORMATS_B, lambda x, fmt: x.abs() >= fmt.min_normal) == "caecdaa47285fea1"


@pytest.mark.parametrize("text", ["1-4-1", "1-5-2@ocp", "1-6-7", "1-8-11"])
@pytest.mark.parametrize("place", [1.37, -3.9, "subnormal"])
def test_unbiased_within_three_sigma(text, place):
    fmt = FloatFormat.parse(text)
    x = fmt.min_normal * 0.3 if place == "subnormal" else place
    x = torch.full((1 << 18,), x * (1 + fmt.epsilon / 3))
    y = quantize(x, fmt, "stochastic", seed=mix(3, fmt.bits)).double()
    low, high = y.min().item(), y.max().item()
    p = (x[0].item() - low) / (high - low)
    sigma = (high - low) * math.sqrt(p * (1 - p) / x.numel())
    assert abs(y.mean().item() - x[0].item()) < 3 * sigma


@untimed
@given(numbers, formats.filter(lambda fmt: fmt.subnormals), seeds)
def test_stochastic_gives_one_of_two_neighbours(x, fmt, seed):
    x = x[np.abs(x) <= fmt.max]
    y = quantize(float32(x), fmt, "stochastic", seed=seed).numpy().astype(np.float64)
    exponent = np.maximum(np.frexp(np.abs(x.astype(np.float64)))[1] - 1, fmt.min_exponent)
    step = np.ldexp(1.0, exponent - fmt.mantissa_bits)
    down, up = np.floor(x / step) * step, np.ceil(x / step) * step
    assert ((y == down) | (y == up)).all()


def decisions(seed, count=1 << 16):
    """Which of ``count`` numbers in the middle between 1 and 2 a stream sends up."""
    return quantize(torch.full((count,), 1.5), FloatFormat(4, 0), "stochastic", seed=seed) > 1.5


def deviation(a, b):
    """By how many sigma two lists of fair decisions agree more or less often than by chance."""
    return abs((a == b).float().mean().item() - 0.5) / (0.5 / math.sqrt(len(a)))


@pytest.mark.parametrize("pair", [(0, 1), (mix(1, 0), mix(1, 1)), (mix(0, 1), mix(1, 1))])
def test_two_seeds_are_not_shifted_copies(pair):
    first, second = (decisions(seed) for seed in pair)
    assert deviation(first, second) < 4
    for shift in range(1, 200):
        assert deviation(first[shift:], second[:-shift]) < 4
        assert deviation(second[shift:], first[:-shift]) < 4


def test_streams_are_independent_of_each_other_and_of_themselves_further_on():
    streams = [decisions(mix(0, number)) for number in range(20)]
    for number, stream in enumerate(streams):
        assert all(deviation(stream, other) < 4 for other in streams[:number])
        assert all(deviation(stream[lag:], stream[:-lag]) < 4 for lag in (1, 2, 3, 16, 64, 1024))


def test_seed_none_follows_generator_of_torch():
    x, fmt = torch.randn(100), FloatFormat.parse("1-4-1")
    torch.manual_seed(1)
    first, second = quantize(x, fmt, "stochastic"), quantize(x, fmt, "stochastic")
    torch.manual_seed(1)
    assert same_bits(quantize(x, fmt, "stochastic"), first)
    assert not same_bits(first, second)


# The same bits however a tensor lies in memory


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (2, 16, 8, 8), (2, 70, 4, 4), (1, 2000, 2, 1), (3, 5, 1, 1)])
def test_layout_does_not_change_bits(shape, layout, rounding):
    fmt = FloatFormat.parse("1-4-1")
    plain = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = LAYOUTS[layout](plain)
    y = quantize(x, fmt, rounding, seed=99)
    logical = x.contiguous()
    assert y.shape == x.shape
    assert same_bits(y, quantize(logical, fmt, rounding, seed=99))
    assert same_bits(y.flatten(), quantize(logical.flatten(), fmt, rounding, seed=99))
    for out in (torch.empty_like(logical), LAYOUTS["channels_last"](logical)):
        assert quantize(x, fmt, rounding, seed=99, out=out) is out
        assert same_bits(out, y)
    if layout != "expanded":
        assert quantize(x, fmt, rounding, seed=99, out=x) is x
        assert same_bits(x, y)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3, 4, 4), (2, 0, 4, 4), (2, 3), (2, 3, 4, 5, 6)])
def test_any_number_of_dimensions(shape, rounding):
    x, fmt = torch.randn(shape), FloatFormat.parse("1-3-2")
    y = quantize(x, fmt, rounding, seed=4)
    bits = random_bits(x.shape, seed_key(4)) if rounding == "stochastic" else None
    assert y.shape == x.shape
    assert same_bits(y, round_bits(x, fmt, bits))


def test_overlapping_memory_is_read_before_it_is_written():
    memory = torch.randn(1001)
    expected = quantize(memory[:-1].clone(), FloatFormat.parse("1-4-1"))
    quantize(memory[:-1], FloatFormat.parse("1-4-1"), out=memory[1:])
    assert same_bits(memory[1:], expected)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_threads_do_not_change_bits(rounding):
    x, fmt = torch.randn(200_000), FloatFormat.parse("1-4-1")
    key = seed_key(8) if rounding == "stochastic" else None
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results += [quantize(x, fmt, rounding, seed=8), quantize_eagerly(x, fmt, key)]
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(result, results[0]) for result in results)


@untimed
@given(numbers, formats, seeds)
def test_input_is_left_alone(x, fmt, seed):
    x = float32(x)
    before = x.clone()
    quantize(x, fmt, "stochastic", seed=seed)
    assert same_bits(x, before)


# What the function promises around the arithmetic


def test_fp32_is_no_rounding():
    x = torch.randn(10)
    y = quantize(x, FP32, "stochastic", seed=1)
    assert same_bits(x, y)
    assert y.data_ptr() != x.data_ptr()


def test_result_is_not_differentiated():
    x = torch.randn(4, requires_grad=True)
    assert not quantize(x, FloatFormat.parse("1-4-1")).requires_grad
    assert not quantize(torch.randn(4, 2, requires_grad=True)[:, 0], FloatFormat.parse("1-4-1")).requires_grad


def test_writing_into_a_saved_tensor_is_noticed():
    x = torch.randn(4, requires_grad=True)
    y = x * 1
    loss = (y * y).sum()
    quantize(y, FloatFormat.parse("1-4-1"), out=y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_refuses_what_it_cannot_round():
    x, fmt = torch.randn(3), FloatFormat.parse("1-4-1")
    for dtype in (torch.float64, torch.float16, torch.int32):
        with pytest.raises(FormatError, match="float32"):
            quantize(x.to(dtype), fmt)
    with pytest.raises(FormatError, match="nearest, stochastic"):
        quantize(x, fmt, "floor")
    with pytest.raises(FormatError, match="out has"):
        quantize(x, fmt, out=torch.empty(4))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_flushing_subnormals_to_zero_changes_nothing(fmt, rounding):
    """As torch.set_flush_denormal and fast-math libraries do, for a thread or for all."""
    generator = torch.Generator().manual_seed(3)
    bits = torch.randint(-(2**31), 2**31, (4000,), generator=generator, dtype=torch.int64).to(torch.int32)
    x = torch.cat([bits, torch.arange(-2000, 2000, dtype=torch.int32), bits & 0x7FFFFF]).view(torch.float32)
    key = seed_key(1) if rounding == "stochastic" else None

    def both():
        fast, slow = quantize(x, fmt, rounding, seed=1), quantize_eagerly(x, fmt, key)
        return fast.view(torch.int32), slow.view(torch.int32)

    usual = both()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals to zero")
    try:
        flushed = both()
    finally:
        torch.set_flush_denormal(False)
    assert all(torch.equal(a, b) for a, b in zip(usual, flushed, strict=True))
