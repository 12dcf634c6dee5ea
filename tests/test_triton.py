"""Triton's kernels in its interpreter, and compiled for a GPU that is not there."""

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from peppp.formats import FP32, FloatFormat
from peppp.lowprec.gpu import device, device_packing
from peppp.lowprec.packing.packed_tensor import PackedTensor
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.quantize import quantize_eagerly
from peppp.lowprec.rounding.streams import mix, signed64
from tensors import FORMATS, difficult, float32, same_bits

pytest.importorskip("triton", reason="Triton is not installed")

CPU = torch.device("cpu")
KEYS = [None, mix(11, 12)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


MODULES = [f"peppp.lowprec.gpu.triton_{name}" for name in ("kernels", "packing")]


@pytest.fixture(scope="module")
def both():
    """The modules of kernels, interpreted: how is decided when they are defined."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    for name in MODULES:
        sys.modules.pop(name, None)
    try:
        # By import_module: the package may hold the kernels that were imported before, not interpreted.
        modules = [importlib.import_module(name) for name in MODULES]
        with np.errstate(all="ignore"):
            yield modules
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)
        os.environ.pop("TRITON_INTERPRET")
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


@pytest.fixture(scope="module")
def interpreted(both):
    return both[0]


@pytest.fixture(scope="module")
def packs(both):
    return both[1]


def word(key):
    return torch.tensor([signed64(key)])


def images(shape=(2, 5, 4, 3), seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x.view(-1)[::7], x.view(-1)[3::11] = 0.0, -0.0
    x.view(-1)[:3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    return x


def rounded(triton, x, fmt, key, gate=None, relu=False):
    slot, out = device._slot(fmt, CPU), torch.empty_like(x)
    order = device._order(x)
    triton.round_all(
        x, out, gate, slot.constants, slot.rare, None if key is None else word(key), order, relu=relu
    )
    return out


@pytest.mark.parametrize("key", KEYS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_rounding_equals_the_readable_form_bit_for_bit(interpreted, monkeypatch, fmt, key):
    monkeypatch.setattr(interpreted, "_TILE", 1 << 16)  # few programs: each takes the interpreter as long
    x = float32(difficult(fmt))
    assert same_bits(rounded(interpreted, x, fmt, key), quantize_eagerly(x, fmt, key))


@pytest.mark.parametrize("key", KEYS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 64, 2, 2), (1, 1100, 1, 2), (5, 1, 9, 31), (3000,)])
def test_random_bits_follow_the_index_whatever_the_layout(interpreted, shape, layout, key):
    x, fmt = images(shape), FloatFormat.parse("1-4-1")
    x = x.contiguous(memory_format=layout) if len(shape) == 4 else x
    assert same_bits(rounded(interpreted, x, fmt, key), quantize_eagerly(x.contiguous(), fmt, key))


@pytest.mark.parametrize("key", KEYS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize("text", ["1-4-1", "1-8-7", "1-3-2@ieee", "1-4-3@ocp"])
def test_relu_and_mask_equal_two_operations(interpreted, text, key):
    x, fmt = images(), FloatFormat.parse(text)
    gate = images(seed=1).flip(0)
    expected = quantize_eagerly(x, fmt, key)
    assert same_bits(rounded(interpreted, x, fmt, key, relu=True), torch.relu(expected))
    assert same_bits(rounded(interpreted, x, fmt, key, gate), torch.where(gate > 0, expected, 0.0))


def test_rows_that_32_bits_cannot_count_are_left_to_torch():
    image = torch.empty(1 << 20, 2, 64, 64, device="meta", memory_format=torch.channels_last)
    assert device._order(image) is None
    assert device._order(image[1:]) == (64 * 64, 2)


def test_in_place(interpreted):
    x, fmt = images(), FloatFormat.parse("1-4-1")
    expected, slot = quantize_eagerly(x, fmt, KEYS[1]), device._slot(fmt, CPU)
    interpreted.round_all(x, x, None, slot.constants, slot.rare, word(KEYS[1]), device._order(x))
    assert same_bits(x, expected)


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("accumulator", [True, False])
@pytest.mark.parametrize("decay", [0.0005, 0.0])
def test_step_of_sgd_equals_the_cpu_kernels(interpreted, monkeypatch, momentum, accumulator, decay):
    from peppp.formats import Configuration

    configuration = Configuration.parse("1-4-1/1-6-7")
    modes = ("stochastic", "stochastic", "nearest")
    shapes = [(4, 3, 2, 2), (10,), (1300,)]

    def column(seed):
        draws = [torch.randn(s, generator=torch.Generator().manual_seed(seed)) for s in shapes]
        return [draws[0].to(memory_format=torch.channels_last), *draws[1:]]

    def step(function):
        g, v, acc, w = (column(seed) for seed in range(4))
        columns = (g, v if momentum else None, acc if accumulator else None, w)
        assert function(*columns, [0, 1, 5], configuration.sides, modes, 0.01, 0.9, decay, mix(3, 4))
        return [tensor for tensors in (v, acc, w) for tensor in tensors]

    monkeypatch.setattr(device, "_triton", lambda _: interpreted)
    ours = step(device.sgd_step)
    for ours_after, expected in zip(ours, step(kernels.sgd_step), strict=True):
        assert same_bits(ours_after, expected)


def test_the_check_before_first_use_passes_and_can_fail(interpreted, monkeypatch):
    assert device.check(interpreted, CPU) == ""
    wrong = type("Wrong", (), {"round_all": staticmethod(lambda x, out, *_, **__: out.copy_(x))})
    assert "wrong bits" in device.check(wrong, CPU)


def test_the_check_of_packing_passes_and_sees_wrong_bits_and_silence(packs):
    assert device_packing.check(packs, CPU) == ""

    def pack(x, words, *_):  # right, and silent about numbers that have no code
        packed = PackedTensor.try_pack(x, FloatFormat.parse("1-4-1"))
        if packed is not None:
            words.copy_(packed.words)
        return torch.zeros(1)

    silent = SimpleNamespace(pack=pack, unpack=packs.unpack)
    assert "no report" in device_packing.check(silent, CPU)
    wrong = SimpleNamespace(pack=pack, unpack=lambda words, out, *_: out.zero_())
    assert "wrong bits" in device_packing.check(wrong, CPU)


def test_a_gpu_whose_torch_turns_minus_zero_into_zero_keeps_it(interpreted, monkeypatch):
    """As torch.relu may do there; the CPU's leaves -0, and the kernels do."""
    x, fmt = images(), FloatFormat.parse("1-4-1")
    expected = torch.relu(quantize_eagerly(x, fmt, None))
    assert torch.signbit(expected).any()
    monkeypatch.setattr(torch, "relu", lambda y: torch.where(y > 0, y, torch.where(y.isnan(), y, 0.0)))
    out, slot = torch.empty_like(x), device._slot(fmt, CPU)
    assert device.round_into(x, out, slot, None, relu=True)
    assert same_bits(out, expected)
    assert device.check(interpreted, CPU) == ""


def test_without_triton_one_warning_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "peppp.lowprec.gpu.triton_kernels", None)
    monkeypatch.delattr("peppp.lowprec.gpu.triton_kernels", raising=False)
    device._triton.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no Triton kernels on cuda"):
            assert device._triton(torch.device("cuda")) is None
        assert device._triton(torch.device("cuda")) is None  # warnings are errors in tests
    finally:
        device._triton.cache_clear()


# Packing


def code_of(fmt):
    """The constants of codes, from what a format is: see triton_packing.pack."""
    E, M = fmt.exponent_bits, fmt.mantissa_bits
    exponent, tiny = fmt.min_exponent + 127, E < 8
    threshold, special = (fmt.min_normal if tiny else 0.0), None
    if tiny and fmt.flavour == "ieee":
        special = ((1 << E) - 1) << M, 0x7F800000
    numbers = (23 - M, (exponent - 1) << M, exponent << M, threshold, (1 << M) if tiny else 0)
    return device_packing.code_words(((*numbers, (1 << (E + M)) - 1, E + M), special), CPU)


def packed_slowly(x, fmt, width):
    """Number j * width + c of a block is code j of column c, codes of a column one after another."""
    E, M = fmt.exponent_bits, fmt.mantissa_bits

    def code(value):
        sign = int(np.signbit(value)) << (E + M)
        value = abs(value)
        if np.isinf(value):
            return sign | ((1 << E) - 1) << M
        if value < fmt.min_normal:
            return sign | int(value / fmt.min_subnormal)
        exponent = int(np.floor(np.log2(value)))
        mantissa = int((value / 2.0**exponent - 1) * 2**M)
        return sign | (exponent - fmt.min_exponent + 1) << M | mantissa

    words, rest = [], [float(value) for value in x]
    while rest:
        block, rest = rest[: 32 * width], rest[32 * width :]
        columns = min(width, -(-len(block) // 32))
        rows = np.zeros((fmt.bits, columns), np.uint32)
        for place, value in enumerate(block):
            j, c = divmod(place, columns)
            for bit in range(fmt.bits):
                row, shift = divmod(j * fmt.bits + bit, 32)
                rows[row, c] |= np.uint32((code(value) >> bit & 1) << shift)
        words += rows.ravel().tolist()
    return torch.from_numpy(np.array(words, np.uint32).view(np.int32))


@pytest.mark.parametrize("count", [1, 33, 300])
@pytest.mark.parametrize("text", ["1-3-1", "1-6-9", "1-3-2@ieee"])
def test_packs_into_the_documented_bits_and_back(packs, text, count):
    fmt, width = FloatFormat.parse(text), 8
    x = torch.randn(count, generator=torch.Generator().manual_seed(count)) * 20
    x = quantize_eagerly(x, fmt, None)
    x[::5] = -0.0
    expected = packed_slowly(x, fmt, width)
    words, out = torch.empty_like(expected), torch.empty_like(x)
    assert packs.pack(x, words, fmt.bits, code_of(fmt), width).item() == 0
    assert torch.equal(words, expected)
    packs.unpack(words, out, fmt.bits, code_of(fmt), width)
    assert same_bits(out, x)


def test_packing_says_where_a_number_has_no_code(packs):
    fmt = FloatFormat.parse("1-4-1")
    for bad in (1.25, torch.nan, 1e9):
        x = torch.ones(70)
        x[66] = bad
        words = torch.empty(3 * fmt.bits, dtype=torch.int32)
        assert packs.pack(x, words, fmt.bits, code_of(fmt), 8).item() == 1


def test_constants_of_fp32_change_nothing(interpreted):
    slot, x = device.FormatSlot.empty("cpu", rare=True), images()
    slot.set(FP32)
    for key in KEYS:
        out = torch.empty_like(x)
        assert device.round_into(x, out, slot, key)
        assert same_bits(out, x)
        interpreted.round_all(
            x, out, None, slot.constants, True, None if key is None else word(key), (1, 120)
        )
        assert same_bits(out, x)


# Compiled for a GPU, which needs none

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from peppp.lowprec.gpu import triton_kernels as kernels
from peppp.lowprec.gpu import triton_packing as packing

def compiled(kernel, constants, divided=(), **types):
    # ``divided`` by 16, as Triton finds addresses and sizes of most tensors to be
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in divided}
    source = ASTSource(kernel, signature, {(names.index(k),): v for k, v in constants.items()}, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})

floats = dict(x_ptr="*fp32", out_ptr="*fp32", gate_ptr="*fp32", fmt_ptr="*u32", key_ptr="*i64")
found = []
sides = dict(ROWS=4, COLUMNS=256)
for rare in (True, False):
    for stochastic in (True, False):
        flags = dict(RARE=rare, STOCHASTIC=stochastic, RELU=rare, GATED=not rare)
        found.append(compiled(kernels._round, flags | sides, **floats))
for ones in (("rows", "pixels"), ("rows", "channels", "pixels"), ("channels",)):  # Triton folds a 1
    found.append(compiled(kernels._round, flags | sides | dict.fromkeys(ones, 1), **floats))
names = ("gradient", "momentum", "accumulator", "weight")
types = {f"{name}_ptr": "*fp32" for name in names} | {f"{name}_key": "*i64" for name in names}
types |= dict(a_ptr="*u32", b_ptr="*u32", rate_ptr="*fp32", momentum_factor="fp32", weight_decay="fp32")
flags = dict(RARE=False, MOMENTUM=True, DECAY=True, ACCUMULATOR=True, GRADIENT_STOCHASTIC=True)
flags |= dict(STATES_STOCHASTIC=True, VALUES_STOCHASTIC=True, ROWS=1, COLUMNS=1024)
found.append(compiled(kernels._sgd, flags, **types))
types = dict(x_ptr="*fp32", out_ptr="*fp32", words_ptr="*u32", wrong_ptr="*i32", code_ptr="*u32")
narrow = dict(BITS=6, WIDTH=1, width=1, count=1)
for kernel in (packing._pack, packing._unpack):
    for flags in (dict(BITS=14, WIDTH=256), dict(BITS=32, WIDTH=2), narrow):
        flags |= dict(WHOLE=flags["WIDTH"] == 256, MOVED=flags["BITS"] == 32)
        names = set(kernel.arg_names)
        found.append(compiled(kernel, flags, **{name: kind for name, kind in types.items() if name in names}))
for kernel in found:
    ptx, ir = kernel.asm["ptx"], kernel.asm["ttir"]
    assert "fma" not in ptx, "a multiplication and an addition are fused"
    assert "mad.rn" not in ptx and ".ftz" not in ptx and ".approx" not in ptx
    assert "shrsi" not in ir and "minsi" not in ir, "words are shifted or compared as signed numbers"
print("compiled", len(found))

# What moves most: a tensor in one row, one in channels_last, whole blocks.
wide = ("x_ptr", "out_ptr", "gate_ptr", "channels")
flags = dict(RARE=False, STOCHASTIC=True, RELU=False, GATED=True)
flat = compiled(kernels._round, flags | dict(rows=1, pixels=1, ROWS=1, COLUMNS=1024), wide, **floats)
last = compiled(kernels._round, flags | dict(ROWS=16, COLUMNS=64), wide, **floats)
for kernel in (flat, last):
    ptx = kernel.asm["ptx"]
    assert (ptx.count("ld.global.v4"), ptx.count("st.global.v4")) == (4, 2), "numbers are moved one by one"
    assert not [name for name in ("div.s64", "div.u64", "rem.s64", "rem.u64") if name in ptx]
whole = dict(BITS=6, WIDTH=256, WHOLE=True, MOVED=False)
for kernel in (packing._pack, packing._unpack):
    pointers = {name: kind for name, kind in types.items() if name in kernel.arg_names}
    ptx = compiled(kernel, whole, pointers, **pointers).asm["ptx"]
    assert "ld.global.v2.b32" in ptx and "st.global.v2.b32" in ptx, "numbers are moved one by one"
print("wide")
"""


def test_kernels_compile_for_a_gpu_exactly_and_move_four_numbers_at_once():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert done.stdout.split("\n") == ["compiled 14", "wide", ""], done.stderr[-3000:]
