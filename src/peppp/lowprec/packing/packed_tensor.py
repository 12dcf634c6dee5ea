"""``PackedTensor``: a tensor in exactly as many bits as its format has, packed on the CPU or on a GPU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from peppp.errors import FormatError
from peppp.formats import FloatFormat
from peppp.lowprec.gpu import device_packing
from peppp.lowprec.packing import codes
from peppp.lowprec.packing.codes import WIDTH, plain_constants, words_of
from peppp.lowprec.rounding.shape_only import is_shape_only


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A dense float32 tensor, packed into words, with the shape, strides and format to unpack it.

    ``words`` (int32) hold the numbers in memory order, in segments of ``segment`` numbers that can be packed
    and unpacked separately.
    >>> packed = PackedTensor.pack(torch.tensor([1.0, -1.5, 0.0, 3.0]), FloatFormat.parse("1-4-1"))
    >>> packed.nbytes, packed.unpack()
    (24, tensor([ 1.0000, -1.5000,  0.0000,  3.0000]))
    """

    words: Tensor
    shape: torch.Size
    stride: tuple[int, ...]
    format: FloatFormat
    segment: int

    @classmethod
    def pack(cls, x: Tensor, fmt: FloatFormat, segment: int = 0) -> "PackedTensor":
        """Pack ``x`` (float32, dense in memory); ``segment`` 0 makes one segment.

        Raises FormatError if ``x`` is not dense float32, or if a number has no code.
        """
        packed = cls.try_pack(x, fmt, segment)
        if packed is None:
            raise FormatError(f"not every number is one of {fmt}; round first, as with quantize(x, fmt)")
        return packed

    @classmethod
    def try_pack(cls, x: Tensor, fmt: FloatFormat, segment: int = 0) -> "PackedTensor | None":
        """Pack like :meth:`pack`, but return None if a number has no code."""
        packed = cls.empty_like(x, fmt, segment)
        if is_shape_only(x):
            return packed
        flat = in_memory_order(x)
        exact = [packed.write(number, flat[start:stop]) for number, start, stop in packed.segments()]
        return packed if all(exact) else None

    @classmethod
    def empty_like(cls, x: Tensor, fmt: FloatFormat, segment: int = 0) -> "PackedTensor":
        """Return a packed tensor of ``x``'s shape and strides, with its numbers not written yet."""
        if x.dtype != torch.float32 or not is_dense(x):
            raise FormatError(f"can only pack dense float32 tensors, not {x.dtype} with strides {x.stride()}")
        return cls.empty(x.shape, x.stride(), fmt, segment, x.device)

    @classmethod
    def empty(
        cls,
        shape: torch.Size,
        stride: tuple[int, ...],
        fmt: FloatFormat,
        segment: int = 0,
        device: torch.device | None = None,
    ) -> "PackedTensor":
        """Return a packed tensor with its numbers not written yet."""
        segment = segment or max(shape.numel(), 1)
        whole, rest = divmod(shape.numel(), segment)
        size = whole * words_of(segment, fmt.bits) + words_of(rest, fmt.bits)
        return cls(torch.empty(size, dtype=torch.int32, device=device), shape, stride, fmt, segment)

    @property
    def places(self) -> int:
        """How many numbers the words have room for, including the unused places at the end of a segment."""
        return 32 * self.words.numel() // self.format.bits

    @property
    def nbytes(self) -> int:
        """The size of the words in bytes."""
        return 4 * self.words.numel()

    def unpack(self) -> Tensor:
        """Return the tensor with the same bits, shape and strides."""
        out = torch.empty_strided(self.shape, self.stride, device=self.words.device)
        self.unpack_to(in_memory_order(out))
        return out

    def unpack_to(self, flat: Tensor) -> None:
        """Write the numbers into a flat tensor, in memory order."""
        if is_shape_only(flat):
            return
        for number, start, stop in self.segments():
            self.read(number, flat[start:stop])

    def segments(self) -> list[tuple[int, int, int]]:
        """Return (number, first, last + 1) of each segment, in memory order."""
        count = self.shape.numel()
        starts = range(0, count, self.segment)
        return [(number, start, min(start + self.segment, count)) for number, start in enumerate(starts)]

    def write(self, number: int, flat: Tensor) -> bool:
        """Pack the numbers of one segment (a flat tensor); return whether all have a code."""
        return pack_into(flat, self._segment_words(number, flat.numel()), self.format)

    def read(self, number: int, flat: Tensor) -> None:
        """Unpack one segment into a flat tensor."""
        unpack_into(self._segment_words(number, flat.numel()), flat, self.format)

    def _segment_words(self, number: int, count: int) -> Tensor:
        first = number * words_of(self.segment, self.format.bits)
        return self.words[first : first + words_of(count, self.format.bits)]


def is_dense(x: Tensor) -> bool:
    """Whether a tensor's numbers fill one stretch of memory without gaps or overlaps."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def in_memory_order(x: Tensor) -> Tensor:
    """Return a flat view of a dense tensor's memory."""
    return x.detach().as_strided((x.numel(),), (1,))


def pack_into(flat: Tensor, words: Tensor, fmt: FloatFormat) -> bool:
    """Pack a flat float32 tensor into ``words`` (int32); return whether every number has a code."""
    if flat.is_cuda:
        exact = device_packing.pack_into(flat, words, fmt.bits, plain_constants(fmt), WIDTH)
        if exact is not None:
            return exact
    return codes.pack_into(flat, words, fmt)


def unpack_into(words: Tensor, flat: Tensor, fmt: FloatFormat) -> None:
    """Unpack what :func:`pack_into` packed into a flat float32 tensor."""
    if not (flat.is_cuda and device_packing.unpack_into(words, flat, fmt.bits, plain_constants(fmt), WIDTH)):
        codes.unpack_into(words, flat, fmt)
