"""The fingerprint of a set of images: a digest of their pixels, classes and order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peppp.tasks.dataset import Digest, Images

# Version 0.2 turned images as their EXIF data say and set transparent ones on white; earlier ones did not.
ADJUSTED = "turned, on white"


class Fingerprint:
    """Equal for equal images, wherever they lie: in a folder, an archive or on the hub, as JPEG or as PNG.

    Images are taken in as they were decoded, before they are cropped and resized, so that a set has one
    fingerprint at all resolutions. ``former`` collects what the version before 0.2 made its fingerprint of:
    names and bytes of files.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._pixels = Digest()
        self._pixels.add("\n".join(classes))
        self._former = Digest()
        self.adjusted = 0

    def begin(self, part: str) -> None:
        """Begin with the images of the part ``train`` or ``test``."""
        self._pixels.add(part)

    def add(self, label: int, image: Images, *, adjusted: bool = False) -> None:
        """Take in a decoded image, [height, width, 3], and whether it was turned or set on white."""
        self._pixels.add(f"{label} {image.shape[0]} {image.shape[1]}")
        self._pixels.add(image)
        self.adjusted += adjusted

    def add_former(self, *parts: "bytes | str | NDArray[np.generic]") -> None:
        """Take in what the fingerprint of earlier versions was made of."""
        for part in parts:
            self._former.add(part)

    def __str__(self) -> str:
        return str(self._pixels)

    @property
    def former(self) -> str:
        """The fingerprint under which the version before 0.2 kept measurements of equal pixels."""
        total = self._former.copy()
        if self.adjusted:
            total.add(ADJUSTED)
        return str(total)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of images that were adjusted."""
        return adjusted_notes(self.adjusted)


def adjusted_notes(count: int) -> tuple[str, ...]:
    """A note on images that were turned or set on white, if there were any."""
    if not count:
        return ()
    those = "1 image was" if count == 1 else f"{count} images were"
    return (f"{those} turned upright (EXIF) or set on white (transparency); versions before 0.2 did neither",)
