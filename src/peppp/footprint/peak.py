"""The highest moment of a step: its bytes, operation, layer, and line of source."""

from typing import Any

from peppp.footprint.live import Live
from peppp.footprint.moment import Moment
from peppp.footprint.scratch import Kernel, cast_bytes, kernel_of, most_scratch, scratch
from peppp.footprint.segments import Segments
from peppp.footprint.where import Place, Where


class Peak:
    """The moments of a step that can be its peak, and what each layer allocates in the forward pass."""

    def __init__(self, live: Live, where: Where, segments: Segments, *, on_cpu: bool) -> None:
        self.made: dict[int, str] = {}  # from storages to the layers that made them
        self._live, self._where, self._segments, self._on_cpu = live, where, segments, on_cpu
        self._moments: dict[tuple[int, Kernel | None], tuple[int, str, Place]] = {}
        self._most: dict[Kernel, int] = {}

    def watch(self, operation: Any, args: tuple[Any, ...], result: Any, new: list[int]) -> None:
        """Note how many bytes are allocated after an operation."""
        kernel, total, place = None, self._live.total, self._where.now()
        self._segments.count(operation, args, result)
        if not place.backward:
            self.made.update(dict.fromkeys(new, place.layer))
        if self._on_cpu:
            kernel = kernel_of(operation, args)
            if kernel is not None and kernel not in self._most:
                self._most[kernel] = most_scratch(kernel, result)
            total += cast_bytes(operation, args, result)
        key = self._segments.now, kernel
        if new and total > self._moments.get(key, (0,))[0]:
            self._moments[key] = total, str(operation).removesuffix(".default"), place

    def kept_by_layer(self) -> dict[str, int]:
        """Return how many bytes each layer's forward pass has made that are still allocated."""
        found: dict[str, int] = {}
        for key, layer in self.made.items():
            found[layer] = found.get(layer, 0) + self._live.size(key)
        return found

    def highest(self) -> tuple[int, str, Place]:
        """Return bytes, operation and place of the highest moment."""
        return self._highest({position for position, _ in self._moments})

    def by_position(self) -> dict[int, tuple[Moment, ...]]:
        """Return the highest moment at each position in the step."""
        positions = {position for position, _ in self._moments}
        return {position: (Moment(self._highest({position})[0], 0, 0),) for position in positions}

    def _highest(self, positions: set[int]) -> tuple[int, str, Place]:
        moments = {key: moment for key, moment in self._moments.items() if key[0] in positions}
        surely = max(total for total, *_ in moments.values())
        extra = scratch(
            kernel
            for (_, kernel), (total, *_) in moments.items()
            if kernel is not None and total + self._most[kernel] > surely
        )
        return max(
            (total + (extra.get(kernel, 0) if kernel else 0), name, place)
            for (_, kernel), (total, name, place) in moments.items()
        )
