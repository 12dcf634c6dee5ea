"""The compiled loops behind codes.py: numbers to codes to bit planes and back, one pass over memory.

A block of up to 32 * WIDTH numbers has 32 rows. Number i of row j has its code in column i, at bit j * bits
of the column's words. So every inner loop runs over a contiguous row without carries, and LLVM vectorises it.
"""

from typing import Any

import numpy as np

from peppp.lowprec.rounding.loops import _bits, _compiled, _float, _kernel, _memory

U32, F32 = np.uint32, np.float32
_SIGN, _UNSIGNED, _ZERO = U32(1 << 31), U32((1 << 31) - 1), U32(0)


@_compiled
def _encode(x: Any, code: Any, special: Any) -> Any:
    """Return the code of a number's bits, and 0, or nonzero if the format does not have the number."""
    cut, offset, tiny_offset, threshold, _, magnitudes, sign_shift = code
    magnitude = U32(x & _UNSIGNED)
    tiny = _float(magnitude) < threshold
    t = _bits(F32(_float(magnitude) + threshold)) if tiny else magnitude
    steps = U32(t >> cut)
    kept = U32(steps << cut)
    back = _bits(F32(_float(kept) - threshold)) if tiny else kept
    c = U32(steps - (tiny_offset if tiny else offset))
    if special is not None:
        first, lowest = special
        moved = U32(first + U32(U32(magnitude - lowest) >> cut))
        c = moved if magnitude >= lowest else c
        taken = c >= first and magnitude < lowest  # the number has no code: this one is another's
        back = U32(~magnitude) if taken else back
    wrong = U32(U32(back ^ magnitude) | U32(c & ~magnitudes))
    return U32(U32(c & magnitudes) | U32(U32(x >> U32(31)) << sign_shift)), wrong


@_compiled
def _decode(c: Any, code: Any, special: Any) -> Any:
    """Return the bits of a code's number."""
    cut, offset, tiny_offset, threshold, tiny_codes, magnitudes, sign_shift = code
    a = U32(c & magnitudes)
    tiny = a < tiny_codes
    t = U32(U32(a + (tiny_offset if tiny else offset)) << cut)
    t = _bits(F32(_float(t) - threshold)) if tiny else t
    if special is not None:
        first, lowest = special
        moved = U32(lowest + U32(U32(a - first) << cut))
        t = moved if a >= first else t
    return U32(t | (U32(c >> sign_shift) << U32(31)))


@_kernel
def pack_all(
    numbers: Any, count: Any, packed: Any, size: Any, bits: Any, width: Any, code: Any, special: Any
) -> Any:
    """Pack ``count`` floats into ``size`` words, both given by address; return whether all have a code."""
    x, words = _memory(numbers, count).view(U32), _memory(packed, size).view(U32)
    wrongs = np.zeros(width, U32)
    column = np.zeros(width, U32)
    last = np.zeros(width, U32)
    block = 32 * width
    for start in range(0, count, block):
        w = min(width, (count - start + 31) // 32)
        first = start // 32 * bits
        filled, differs = column[:w], wrongs[:w]
        for j in range(32):
            low = min(start + j * w, count)
            row = x[low : min(low + w, count)]
            if row.size < w:  # the last row of a tensor, padded with the number whose code is 0
                last[:] = _decode(_ZERO, code, special)
                last[: row.size] = row
                row = last[:w]
            shift = U32(j * bits % 32)
            place = first + j * bits // 32 * w
            end = j * bits % 32 + bits
            if shift == _ZERO:
                filled[:] = _ZERO
            if end < 32:
                for i in range(w):
                    c, wrong = _encode(row[i], code, special)
                    differs[i] |= wrong
                    filled[i] |= U32(c << shift)
            else:
                out = words[place : place + w]
                left = U32(32 - j * bits % 32) if end > 32 else U32(31)
                for i in range(w):
                    c, wrong = _encode(row[i], code, special)
                    differs[i] |= wrong
                    out[i] = U32(filled[i] | U32(c << shift))
                    filled[i] = U32(c >> left)
    return not wrongs.any()


@_kernel
def unpack_all(
    numbers: Any, count: Any, packed: Any, size: Any, bits: Any, width: Any, code: Any, special: Any
) -> None:
    """Unpack what :func:`pack_all` packed."""
    x, words = _memory(numbers, count).view(U32), _memory(packed, size).view(U32)
    block = 32 * width
    for start in range(0, count, block):
        w = min(width, (count - start + 31) // 32)
        first = start // 32 * bits
        for j in range(32):
            low, high = start + j * w, min(start + (j + 1) * w, count)
            row = x[low : max(low, high)]
            place = first + j * bits // 32 * w
            shift = U32(j * bits % 32)
            here = words[place : place + row.size]
            if j * bits % 32 + bits > 32:
                above = words[place + w : place + w + row.size]
                left = U32(32 - j * bits % 32)
                for i in range(row.size):
                    row[i] = _decode(U32((here[i] >> shift) | U32(above[i] << left)), code, special)
            else:
                for i in range(row.size):
                    row[i] = _decode(U32(here[i] >> shift), code, special)
