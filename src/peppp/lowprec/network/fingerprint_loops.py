"""The compiled loop of fingerprints.py; imported only if numba works."""

from typing import Any

import numpy as np

from peppp.lowprec.rounding.loops import _kernel, _memory

_U32 = np.uint32


@_kernel
def sum_all(addresses: Any, layouts: Any) -> Any:
    """Fingerprints of float32 numbers at addresses; ``layouts`` [n, 3] are images, channels and pixels."""
    found = np.zeros(len(addresses), dtype=np.uint32)
    for k in range(len(addresses)):
        images, channels, pixels = layouts[k]
        words = _memory(addresses[k], images * channels * pixels).view(np.uint32)
        total = _U32(0)
        if channels == 1:
            for i in range(len(words)):
                total = _U32(total + _U32(words[i] * _U32(_U32(i) * _U32(2) + _U32(1))))
        else:
            for image in range(images):
                for pixel in range(pixels):
                    first = image * channels * pixels + pixel
                    row = words[image * channels * pixels + pixel * channels :][:channels]
                    for channel in range(len(row)):
                        index = _U32(_U32(first) + _U32(_U32(channel) * _U32(pixels)))
                        total = _U32(total + _U32(row[channel] * _U32(index * _U32(2) + _U32(1))))
        found[k] = total
    return found
