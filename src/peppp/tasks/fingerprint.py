"""Compute the fingerprint of an image set: a digest of its pixels, classes and order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peppp.tasks.dataset import Digest, Images

# Since version 0.2, images are rotated as their EXIF data say, and transparency is blended onto white.
ADJUSTED = "turned, on white"


class Fingerprint:
    """A digest of classes, labels and decoded images, wherever and however the images are stored.

    Images are added before they are cropped and resized, so that a set has the same fingerprint at every
    resolution. ``former`` is the fingerprint of versions before 0.2, which digested file names and bytes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._pixels = Digest()
        self._pixels.add("\n".join(classes))
        self._former = Digest()
        self.adjusted = 0

    def begin(self, part: str) -> None:
        """Begin the part ``train`` or ``test``."""
        self._pixels.add(part)

    def add(self, label: int, image: Images, *, adjusted: bool = False) -> None:
        """Add a decoded image [height, width, 3]; ``adjusted`` counts it as rotated or blended onto white."""
        self._pixels.add(f"{label} {image.shape[0]} {image.shape[1]}")
        self._pixels.add(image)
        self.adjusted += adjusted

    def add_former(self, *parts: "bytes | str | NDArray[np.generic]") -> None:
        """Add parts of the fingerprint of versions before 0.2."""
        for part in parts:
            self._former.add(part)

    def __str__(self) -> str:
        return str(self._pixels)

    @property
    def former(self) -> str:
        """The fingerprint under which versions before 0.2 stored measurements of the same pixels."""
        total = self._former.copy()
        if self.adjusted:
            total.add(ADJUSTED)
        return str(total)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about images that were adjusted."""
        return adjusted_notes(self.adjusted)


def adjusted_notes(count: int) -> tuple[str, ...]:
    """Return a note on ``count`` images that were rotated or blended onto white, or () for none."""
    if not count:
        return ()
    those = "1 image was" if count == 1 else f"{count} images were"
    return (f"{those} turned upright (EXIF) or set on white (transparency); versions before 0.2 did neither",)
