"""Packed tensors: every code of every format there and back, against the definition of codes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peppp.errors import FormatError
from peppp.formats import FLAVOURS, FP32, PAPER_FORMATS_A, PAPER_FORMATS_B, FloatFormat
from peppp.lowprec.packing import codes as packing
from peppp.lowprec.packing.codes import pack_codes, unpack_codes
from peppp.lowprec.packing.packed_tensor import PackedTensor, is_dense
from peppp.lowprec.rounding.quantize import quantize

PAPER = (*PAPER_FORMATS_A, *PAPER_FORMATS_B)


def other_flavours():
    published = {(5, 2), (4, 3), (3, 2), (2, 3), (2, 1)}
    for flavour in FLAVOURS:
        for e in range(2, 9):
            for m in (0, 1, 2, 3, 7):
                if (e, m) in published or not flavour.startswith("ocp"):
                    yield FloatFormat(e, m, flavour)


def number_of_code(code, fmt):
    """Sign, exponent and mantissa bits read as the format's definition says; None for a NaN."""
    E, M = fmt.exponent_bits, fmt.mantissa_bits
    sign = -1.0 if code >> (E + M) else 1.0
    exponent, mantissa = (code >> M) % 2**E, code % 2**M
    if exponent == 2**E - 1:
        if fmt.flavour == "ieee" or E == 8 or (fmt.flavour.startswith("ocp") and E == 5):
            return sign * math.inf if mantissa == 0 else None
        if fmt.flavour.startswith("ocp") and E == 4 and mantissa == 2**M - 1:
            return None
    if exponent == 0:
        return sign * math.ldexp(mantissa, fmt.min_exponent - M)
    return sign * math.ldexp(2**M + mantissa, exponent - 1 + fmt.min_exponent - M)


def all_numbers(fmt):
    """The number of every code, as float32; NaN as torch writes it, with the sign and the code's own bits."""
    values = np.empty(2**fmt.bits, np.float32)
    for code in range(2**fmt.bits):
        number = number_of_code(code, fmt)
        values[code] = np.nan if number is None else number
    return values


def bits(x):
    return x.view(torch.int32)


def without_kernels(function, *arguments):
    loops = packing._loops
    packing._loops = lambda: None
    try:
        return function(*arguments)
    finally:
        packing._loops = loops


@pytest.mark.parametrize("fmt", [*PAPER_FORMATS_A, *PAPER_FORMATS_B[:1], *other_flavours()], ids=str)
def test_codes_are_sign_exponent_and_mantissa_as_defined(fmt):
    values = all_numbers(fmt)
    numbers = ~np.isnan(values)
    x = torch.from_numpy(values[numbers])
    packed = PackedTensor.pack(x, fmt)
    codes = unpack_codes(packed.words, len(x), fmt.bits)
    assert np.array_equal(codes.numpy(), np.flatnonzero(numbers))
    assert torch.equal(bits(packed.unpack()), bits(x))


@pytest.mark.parametrize("fmt", [*PAPER, *other_flavours(), FP32], ids=str)
def test_every_code_comes_back_bit_for_bit_nan_included(fmt):
    count = min(2**fmt.bits, 2**20)
    codes = torch.arange(count, dtype=torch.int32)
    words = torch.empty((count + 31) // 32 * fmt.bits, dtype=torch.int32)
    pack_codes(codes, words, fmt.bits)
    x = torch.empty(count)
    packing.unpack_into(words, x, fmt)
    assert torch.equal(bits(x), packing.decode(codes, fmt))
    again = torch.empty_like(words)
    assert packing.pack_into(x, again, fmt)
    assert torch.equal(words, again)
    assert torch.equal(packing.encode(bits(x), fmt), codes)


@pytest.mark.parametrize("fmt", [*PAPER, FloatFormat(8, 22), FP32, FloatFormat(4, 3, "ocp")], ids=str)
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 8191, 8192, 8193, 20_001])
def test_the_kernels_words_are_the_plain_form_s(fmt, count):
    x = torch.randn(count, generator=torch.Generator().manual_seed(count))
    x = quantize(x * torch.logspace(-12, 4, count), fmt).clamp(-fmt.max, fmt.max)
    packed = PackedTensor.pack(x, fmt)
    plain = without_kernels(PackedTensor.pack, x, fmt)
    assert torch.equal(packed.words, plain.words)
    assert torch.equal(bits(packed.unpack()), bits(x))
    assert torch.equal(bits(without_kernels(packed.unpack)), bits(x))
    assert packed.nbytes == (count + 31) // 32 * 4 * fmt.bits


@given(st.sampled_from(PAPER), st.integers(0, 70_001), st.integers(0, 30_000), st.integers(0, 2**30))
def test_any_length_in_segments_of_any_length(fmt, count, segment, seed):
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    x = quantize(x, fmt, "stochastic", seed=seed)
    packed = PackedTensor.pack(x, fmt, max(segment, 500))
    assert torch.equal(bits(packed.unpack()), bits(x))
    for number, start, stop in packed.segments():
        row = torch.full((stop - start,), math.nan)
        packed.read(number, row)
        assert torch.equal(row, x[start:stop])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shape_and_strides_come_back(memory_format):
    x = quantize(torch.randn(3, 4, 5, 6), FloatFormat(4, 1)).contiguous(memory_format=memory_format)
    for tensor in (x, x.transpose(0, 2), x[:, :0]):
        if is_dense(tensor):
            back = PackedTensor.pack(tensor, FloatFormat(4, 1)).unpack()
            assert back.stride() == tensor.stride()
            assert torch.equal(back, tensor)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("fmt", "value"),
    [
        ("1-4-1", 1.2), ("1-4-1", 1e9), ("1-4-1", 2.0**-9), ("1-4-1", 1e-30), ("1-4-1", math.nan),
        ("1-4-1", math.inf), ("1-6-7", math.nan), ("1-8-9", 1 + 2.0**-10), ("1-4-3@ocp", 480.0),
        ("1-4-3@ocp", math.inf), ("1-5-2@ocp", 65536.0), ("1-5-10@ieee", 65520.0), ("1-3-0@ieee", math.nan),
    ],
)  # fmt: skip
def test_what_has_no_code_is_refused(fmt, value, plain):
    fmt = FloatFormat.parse(fmt)
    x = torch.zeros(1000)
    x[77] = value
    pack = (
        (lambda: without_kernels(PackedTensor.try_pack, x, fmt))
        if plain
        else (lambda: PackedTensor.try_pack(x, fmt))
    )
    assert pack() is None
    x[77] = 1.0
    assert pack() is not None


def test_refusals_say_what_to_do():
    with pytest.raises(FormatError, match=r"not every number is one of 1-4-1; round first"):
        PackedTensor.pack(torch.tensor([1.1]), FloatFormat(4, 1))
    with pytest.raises(FormatError, match=r"dense float32 tensors, not torch.float64"):
        PackedTensor.pack(torch.ones(3, dtype=torch.float64), FloatFormat(4, 1))
    with pytest.raises(FormatError, match=r"dense float32 tensors, not torch.float32 with strides \(2,\)"):
        PackedTensor.pack(torch.ones(6)[::2], FloatFormat(4, 1))
