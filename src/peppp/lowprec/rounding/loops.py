"""The compiled loops behind kernels.py: one pass over memory, one thread, vectorised by LLVM.

Arguments that may be None select what is compiled: numba decides each ``is None`` once it knows the types.
LLVM vectorises the loops because 32-bit numbers are cast back after each operation (numba widens them), loops
run over slices (whose indices cannot be negative), an in-place call passes one array and not two, and the
loops contain no branches. Tensors come as addresses and sizes, since making an array of each would often cost
more than the loop. There are no fast-math flags: every operation rounds as torch's does, and none is fused.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload

from peppp.lowprec.rounding.streams import (
    ACCUMULATOR,
    FIRST_STATE,
    GOLDEN,
    GRADIENT,
    MIX_CONSTANTS,
    MULTIPLIER_1,
    MULTIPLIER_2,
    WEIGHT,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])

U32, U64, F32 = np.uint32, np.uint64, np.float32
_ZERO, _SIGN, _UNSIGNED, _ALL = F32(0), U32(1 << 31), U32((1 << 31) - 1), U32(0xFFFFFFFF)
_GOLDEN, _MULTIPLIER_1, _MULTIPLIER_2 = U32(GOLDEN), U32(MULTIPLIER_1), U32(MULTIPLIER_2)
_KEY_MULTIPLIER, _VALUE_MULTIPLIER, _MIX_OFFSET, _MIX_1, _MIX_2 = (U64(number) for number in MIX_CONSTANTS)


def _compiled(function: _Function, cache: bool = False) -> _Function:
    compiled: _Function = numba.njit(function, nogil=True, error_model="numpy", cache=cache)
    return compiled


def _kernel(function: _Function) -> _Function:
    """Compile and cache on disk, if possible; numba recompiles only when this file changes."""
    try:
        return _compiled(function, cache=True)
    except RuntimeError:  # numba found no writable folder
        return _compiled(function)


@_compiled
def _random(counter: Any, key: Any) -> Any:
    """The bits of streams.random_bits; ``counter`` is index * GOLDEN, and ``key`` comes from _words."""
    if key is None:
        return None
    h = U32(counter + key[0])
    h = U32((h ^ (h >> U32(16))) * _MULTIPLIER_1)
    h = U32((h ^ (h >> U32(15)) ^ key[1]) * _MULTIPLIER_2)
    return U32(h ^ (h >> U32(16)))


@_compiled
def _bits(x: Any) -> Any:
    return F32(x).view(U32)


@_compiled
def _float(bits: Any) -> Any:
    return U32(bits).view(F32)


@intrinsic
def _shift_left(context: Any, bits: Any, count: Any) -> Any:
    """``bits`` << ``count`` in 32 bits for a count below 32; numba's own shift uses 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.shl(*arguments)

    return types.uint32(types.uint32, types.uint32), generate


@_compiled
def _rounded(x: Any, fmt: Any, rare: Any, fine: Any, relu: Any, random: Any) -> Any:
    """Round one number as quantize.round_bits does: with ``random`` bits, or to nearest (None).

    ``fine`` holds the constants of formats whose subnormals stochastic rounding resolves further; ``relu`` is
    a flag.
    """
    threshold, half, mask, highest = fmt
    if random is not None and fine is not None:
        threshold, lowest = fine
    magnitude = U32(_bits(x) & _UNSIGNED)
    tiny = _float(magnitude) < threshold
    bits = _bits(F32(_float(magnitude) + threshold)) if tiny else magnitude
    if random is not None:
        if fine is not None:
            exponent = U32(bits >> U32(23))
            binades = U32(lowest - U32(min(exponent, lowest)))  # below the smallest normal number
            mask = U32(~_shift_left(U32(~mask), binades))  # type: ignore[call-arg]
        bits = U32(bits + (random & mask))
    elif rare is None:
        bits = U32(bits + half)
    else:
        even = rare[0] if U32(bits & mask) == half else _ALL
        bits = U32(bits + half) & even
    y = _float(bits & ~mask)
    y = F32(y - threshold) if tiny else y
    if rare is not None:
        _, magic, min_normal, smallest, largest, beyond = rare
        if random is None:
            y = F32(F32(_float(magnitude) + magic) - magic) if _float(magnitude) < min_normal else y
        y = y if y >= smallest else (smallest if y > smallest * F32(0.5) else _ZERO)
        y = beyond if y > largest else y
    # Compared as integers, since comparing floats could flush float32's own subnormals to 0.
    signed = U32(min(_bits(y), highest) | (_bits(x) & _SIGN))
    if relu is not None:
        cut = signed > _SIGN
        if rare is not None:
            cut = cut and y == y  # an overflow may have become NaN
        signed = U32(0) if cut else signed
    y = _float(signed)
    return x if x != x else y


@_compiled
def _mix(key: Any, value: Any) -> Any:
    """streams.mix for 64-bit numbers."""
    z = U64(key * _KEY_MULTIPLIER + U64(value) * _VALUE_MULTIPLIER + _MIX_OFFSET)
    z = U64((z ^ (z >> U64(30))) * _MIX_1)
    z = U64((z ^ (z >> U64(27))) * _MIX_2)
    return z ^ (z >> U64(31))


def _if(flag: Any, value: Any) -> Any:
    """``value``, or None if the flag is None; numba makes this choice when it compiles."""
    return None if flag is None else value


@overload(_if)
def _typed_if(flag, value):  # type: ignore[no-untyped-def]  # same parameters as the lambdas
    if isinstance(flag, types.NoneType):
        return lambda flag, value: None
    return lambda flag, value: value


@_compiled
def _words(key: Any) -> Any:
    """Return the low word of a 64-bit key, and high ^ (high >> 15) of its high word.

    _random XORs the high word in and then shifts the result. A shift distributes over XOR, so the key's part
    is the same for all numbers. It is computed in 64 bits here, since LLVM would merge both shifts in 32
    bits.
    """
    return U32(key & U64(0xFFFFFFFF)), U32((key ^ (key >> U64(15))) >> U64(32))


@_compiled
def _format(constants: Any) -> Any:
    """The first four words of constants.Constants, as a tuple, which keeps their types apart."""
    return _float(constants[0]), constants[1], constants[2], constants[3]


@_compiled
def _rarities(constants: Any) -> Any:
    """The words that only formats with ``rare`` need."""
    return (
        constants[4],
        _float(constants[5]),
        _float(constants[6]),
        _float(constants[7]),
        _float(constants[8]),
        _float(constants[9]),
    )


@_compiled
def _finer(constants: Any) -> Any:
    """The words that stochastic rounding needs to resolve subnormals further."""
    return _float(constants[10]), constants[11]


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """Turn an address into a pointer to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate  # type: ignore[no-untyped-call]


@_compiled
def _memory(address: Any, size: Any) -> Any:
    """View the float32 numbers at an address; the caller keeps their owner alive."""
    return carray(_pointer(address), size)  # type: ignore[call-arg]


@_compiled
def _block_count(count: Any, pixels: Any, channels: Any, length: Any) -> Any:
    """Count the blocks of at most ``length`` numbers among ``count``; no block spans two images."""
    size = pixels * channels
    return count // size * ((size + length - 1) // length)


@_compiled
def _block(number: Any, pixels: Any, channels: Any, length: Any) -> Any:
    """Return a block's start and end in memory, and its first number's counter (see kernels._pattern)."""
    size = pixels * channels
    per_image = (size + length - 1) // length
    image = number // per_image * size
    start = number % per_image * length
    counter = U32(U32(image + start // channels) * _GOLDEN)
    return image + start, image + min(start + length, size), counter


@_kernel
def round_all(
    x: Any,
    out: Any,
    gate: Any,
    size: Any,
    constants: Any,
    rare: Any,
    fine: Any,
    relu: Any,
    low: Any,
    high: Any,
    stochastic: Any,
    pixels: Any,
    channels: Any,
    pattern: Any,
) -> None:
    """Round ``x`` into ``out`` (None: into itself), or write 0 where ``gate`` is given and not positive.

    The three are addresses of ``size`` numbers; ``low`` and ``high`` are the words of a key. ``rare``,
    ``fine``, ``relu`` and ``stochastic`` are flags: True or None.
    """
    fmt, rarities, finer = _format(constants), _if(rare, _rarities(constants)), _if(fine, _finer(constants))
    key = _if(stochastic, _words(U64(low) | (U64(high) << U64(32))))
    sources = _memory(x, size)
    targets = sources if out is None else _memory(out, size)
    gates = sources if gate is None else _memory(gate, size)
    length = max(size, 1) if stochastic is None else pattern.size
    randoms = np.empty(0 if stochastic is None else length, U32)
    for number in range(_block_count(size, pixels, channels, length)):
        first, stop, counter = _block(number, pixels, channels, length)
        source = sources[first:stop]
        target = source if out is None else targets[first:stop]
        passes = source if gate is None else gates[first:stop]
        if stochastic is not None:  # two short loops use the processor better than one long loop
            for i in range(source.size):
                randoms[i] = _random(U32(counter + pattern[i]), key)
        for i in range(source.size):
            y = _rounded(source[i], fmt, rarities, finer, relu, _if(stochastic, randoms[i]))
            if gate is not None:
                y = y if passes[i] > _ZERO else _ZERO
            target[i] = y


@_kernel
def sgd_all(
    addresses: Any,
    sizes: Any,
    layouts: Any,
    patterns: Any,
    constants_a: Any,
    rare_a: Any,
    fine_a: Any,
    constants_b: Any,
    rare_b: Any,
    fine_b: Any,
    rates: Any,
    low: Any,
    high: Any,
    start: Any,
    has_momentum: Any,
    has_accumulator: Any,
    stochastic_gradient: Any,
    stochastic_states: Any,
    stochastic_values: Any,
) -> None:
    """Do one step of kernels.sgd_step; ``has_...``, ``rare_...``, ``fine_...``, ``stochastic_...`` are flags.

    ``addresses`` [4, parameters] point to gradients, momenta, accumulators and weights. ``layouts``
    [parameters, 5] hold pixels, channels, start and end of the pattern, and the number of each parameter.
    ``start`` is added to the index of every element.
    """
    fmt_a, rarities_a = _format(constants_a), _if(rare_a, _rarities(constants_a))
    fmt_b, rarities_b = _format(constants_b), _if(rare_b, _rarities(constants_b))
    finer_a, finer_b = _if(fine_a, _finer(constants_a)), _if(fine_b, _finer(constants_b))
    learning_rate, momentum_factor, weight_decay = rates[0], rates[1], rates[2]
    for p in range(sizes.size):
        pixels, channels, begin, end, index = layouts[p]
        key = _mix(U64(low) | (U64(high) << U64(32)), index)
        gradient_key = _if(stochastic_gradient, _words(_mix(key, GRADIENT)))
        accumulator_key = _if(stochastic_states, _words(_mix(key, ACCUMULATOR)))
        momentum_key = _if(stochastic_states, _words(_mix(key, FIRST_STATE)))
        weight_key = _if(stochastic_values, _words(_mix(key, WEIGHT)))
        pattern = patterns[begin:end]
        gradient, weight = _memory(addresses[0, p], sizes[p]), _memory(addresses[3, p], sizes[p])
        momentum = weight if has_momentum is None else _memory(addresses[1, p], sizes[p])
        accumulator = weight if has_accumulator is None else _memory(addresses[2, p], sizes[p])
        for number in range(_block_count(weight.size, pixels, channels, pattern.size)):
            first, stop, counter = _block(number, pixels, channels, pattern.size)
            counter = U32(counter + U32(U32(start) * _GOLDEN))
            gradients, weights = gradient[first:stop], weight[first:stop]
            momenta = weights if has_momentum is None else momentum[first:stop]
            sums = weights if has_accumulator is None else accumulator[first:stop]
            for i in range(weights.size):
                c = U32(counter + pattern[i])
                a = sums[i]
                v = _rounded(gradients[i], fmt_b, rarities_b, finer_b, None, _random(c, gradient_key))
                v = v if weight_decay == _ZERO else F32(v + F32(weight_decay * a))
                if has_momentum is not None:
                    v = F32(F32(momentum_factor * momenta[i]) + v)
                    momenta[i] = _rounded(v, fmt_b, rarities_b, finer_b, None, _random(c, momentum_key))
                a = F32(a - F32(learning_rate * v))
                if has_accumulator is not None:
                    a = _rounded(a, fmt_b, rarities_b, finer_b, None, _random(c, accumulator_key))
                    sums[i] = a
                weights[i] = _rounded(a, fmt_a, rarities_a, finer_a, None, _random(c, weight_key))
