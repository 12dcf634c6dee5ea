"""Turn encoded images into arrays: decode, crop to the centre square, resize (Lanczos), make grey RGB."""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from peppp.errors import DataError
from peppp.tasks.dataset import Dataset, Images, Labels, split

DEFAULT_RESOLUTION = 32
_LARGEST_OWN_RESOLUTION = 64
_LEAST, _MOST = 4, 1024
_ORIENTATION = 274  # the number of this EXIF tag
_SHOWN = 5  # messages in a line

_UNBOUNDED = ("I", "F")  # Pillow's modes without a defined value for white

_BROKEN = (
    UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip


def several(messages: Sequence[str]) -> str:
    """Join the first few messages into one line, and say how many more there are."""
    more = f"; and {len(messages) - _SHOWN} more" if len(messages) > _SHOWN else ""
    return "; ".join(messages[:_SHOWN]) + more


def decode(data: bytes, where: str) -> Images:
    """Decode an image (JPEG, PNG, ...) to uint8 [height, width, 3]; raise DataError, naming ``where``.

    The image is rotated as its EXIF data say, and transparency is blended onto white. 16-bit grey images keep
    their upper 8 bits, as Pillow does for colour.
    """
    return decoded(data, where)[0]


def decoded(data: bytes, where: str) -> tuple[Images, bool]:
    """Like :func:`decode`, but also return whether the image was rotated or blended onto white."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # Pillow opens a PGM of more than 8 bits in mode I, scaled to 16 bits; older ones a PNG, too.
            deep = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format in ("PPM", "PNG"))
            turned = opened.getexif().get(_ORIENTATION, 1) in range(2, 9)
            image = ImageOps.exif_transpose(opened) if turned else opened
            if deep:  # convert("RGB") would turn all but the darkest 256 of 65536 levels white
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2), turned
            if image.has_transparency_data:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema() != (255, 255):
                    ground = Image.new("RGBA", image.size, "white")
                    return np.asarray(Image.alpha_composite(ground, image).convert("RGB")), True
            if image.mode not in _UNBOUNDED:
                return np.asarray(image.convert("RGB")), turned
            mode = image.mode
    except _BROKEN as error:
        raise DataError(f"{where} is not an image that can be decoded: {_why(error)}") from None
    kind = "floating-point numbers" if mode == "F" else "32-bit numbers"
    raise DataError(f"{where} holds {kind}, where white is not defined; save it with 8 or 16 bits")


class Decoded:
    """Decodes images one by one; ``adjusted`` counts those that were rotated or blended onto white."""

    def __init__(self, encoded: Iterable[bytes], where: str, *, numbered: bool = False) -> None:
        self.where, self.adjusted = where, 0
        self._encoded, self._numbered = encoded, numbered

    def __iter__(self) -> Iterator[Images]:
        for number, data in enumerate(self._encoded):
            where = f"image {number} of {self.where}" if self._numbered else self.where
            image, changed = decoded(data, where)
            self.adjusted += changed
            yield image


def size_of(source: Path | bytes, where: str) -> tuple[int, int]:
    """Return width and height of an encoded image, read from its header."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.size
    except PermissionError as error:
        raise DataError(f"cannot read {where}: {error.strerror}") from None
    except _BROKEN as error:
        raise DataError(f"{where} is not an image that can be decoded: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Pillow's reason in words; what it says of an unknown format names an object in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "it has no known image format"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def own_resolution(sizes: Iterable[tuple[int, int]]) -> int:
    """Return the common side of square images of one size, if it is at most 64, else 32.

    It looks at no more of ``sizes`` than that takes.
    """
    sides: set[int] = set()
    for size in sizes:
        sides.update(size)
        if len(sides) > 1 or max(sides) > _LARGEST_OWN_RESOLUTION:
            return DEFAULT_RESOLUTION
    return sides.pop() if sides else DEFAULT_RESOLUTION


def check_resolution(side: int, where: str) -> None:
    """Raise DataError unless ``side`` is between 4 and 1024 pixels."""
    if not _LEAST <= side <= _MOST:
        raise DataError(
            f"{where}: a resolution of {side} pixels is not between {_LEAST} and {_MOST}; give another one"
        )


def square(image: Images, side: int) -> Images:
    """Crop an image [height, width] or [height, width, 1 or 3] to its centre square, and resize that.

    The result is [side, side, 1 or 3].
    """
    pixels = image[..., None] if image.ndim == 2 else image
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    middle = pixels[top : top + short, left : left + short]
    resampled = Image.fromarray(middle.squeeze()).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(resampled).reshape(side, side, -1)


def squares(images: Iterable[Images], count: int, resolution: int, where: str) -> Images:
    """Crop and resize ``count`` images to [count, side, side, 3]; a grey channel becomes three equal ones.

    With ``resolution`` 0 the side is :func:`own_resolution`, and all images are held in memory at once.
    """
    if not resolution:
        images = list(images)
        resolution = own_resolution((image.shape[0], image.shape[1]) for image in images)
    check_resolution(resolution, where)
    result = np.empty((count, resolution, resolution, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        result[i] = square(image, resolution)
    return result


Part = tuple[Images, Labels]


def in_two(pixels: Sequence[Images], labels: Sequence[Labels], classes: Sequence[str]) -> tuple[Part, Part]:
    """Return the training and the test part; a single part is split, a fifth of each class for the tests."""
    if len(pixels) == 2:
        return (pixels[0], labels[0]), (pixels[1], labels[1])
    tested = split(labels[0], classes)
    return (pixels[0][~tested], labels[0][~tested]), (pixels[0][tested], labels[0][tested])


def split_notes(parts: int) -> tuple[str, ...]:
    """Return the note of a data set whose test part :func:`in_two` made."""
    return () if parts > 1 else ("with no test part, a fifth of each class became one",)


def image_dataset(
    name: str,
    group: str,
    fingerprint: str,
    classes: tuple[str, ...],
    train: Part,
    test: Part,
    *,
    former: str = "",
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Make a data set of images; raise DataError unless it can be trained on.

    It needs a test part and at least two classes, with distinct names and training images of each.
    """
    if len(classes) < 2:
        raise DataError(f"{name} has {len(classes)} class; classification needs at least two")
    twice = next((c for i, c in enumerate(classes) if c in classes[:i]), None)
    if twice is not None:
        raise DataError(f"{name} has two classes named {twice!r}; rename one")
    if len(test[1]) == 0:
        raise DataError(f"{name} has no test images")
    counts = np.bincount(train[1], minlength=len(classes))
    if not counts.all():
        empty = classes[int(np.flatnonzero(counts == 0)[0])]
        raise DataError(
            f"{name} has no training images of the class {empty!r}; add some, or remove the class"
        )
    return Dataset(name, group, fingerprint, classes, *train, *test, former=former, notes=notes)
