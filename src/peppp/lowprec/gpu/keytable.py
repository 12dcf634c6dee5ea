"""Keys of random bits for steps that are replayed instead of run: a table, computed on the device.

Only the root differs from step to step: a hash of the run's seed, step and pass. From the root, each rounding
follows a path of numbers that the network's structure fixes. So all keys of an epoch are one table [steps,
paths], filled by a few operations on whole tensors, and each replayed step reads its row.
"""

import torch
from torch import Tensor

from peppp.errors import PepppError
from peppp.lowprec.rounding.streams import UPDATE, Clock, PathKey, mix, mix_words, signed64

_CAPACITY = 1 << 14  # paths: several times as many as the deepest networks have


class KeyTable:
    """The paths met so far, and the current row of keys: int64, at a fixed place in memory.

    >>> table = KeyTable("cpu")
    >>> key = mix(mix(PathKey(table), 3), 4)
    >>> _ = key.word()
    >>> table.take(table.fill(torch.tensor([7, 8])), torch.tensor([1]))
    >>> key.word().item() % 2**64 == mix(mix(8, 3), 4)
    True
    """

    def __init__(self, device: str) -> None:
        self.columns: dict[tuple[int, ...], int] = {}
        self.row = torch.zeros(_CAPACITY, dtype=torch.int64, device=device)

    def word(self, path: tuple[int, ...]) -> Tensor:
        """Return the key of a path as a view of the row: int64 [1]; raises PepppError if the row is full."""
        column = self.columns.setdefault(path, len(self.columns))
        if column >= _CAPACITY:
            raise PepppError(
                f"a step with more than {_CAPACITY} rounded values cannot be replayed; use --device cpu"
            )
        return self.row[column : column + 1]

    def fill(self, roots: Tensor) -> Tensor:
        """Return the keys of all paths from the ``roots`` (int64 [rows]): int64 [rows, paths]."""
        paths = list(self.columns)
        keys = roots[:, None].expand(-1, len(paths))
        for depth in range(max(map(len, paths), default=0)):
            numbers = [signed64(path[depth]) if depth < len(path) else 0 for path in paths]
            goes_on = [depth < len(path) for path in paths]
            mixed = mix_words(keys, torch.tensor(numbers, device=roots.device))
            keys = torch.where(torch.tensor(goes_on, device=roots.device), mixed, keys)
        return keys.contiguous()

    def take(self, keys: Tensor, row: Tensor) -> None:
        """Make the keys of a row (an int64 [1] on the device) the current ones."""
        if keys.shape[1]:  # a step that only rounds to nearest has none
            self.row[: keys.shape[1]].copy_(keys.index_select(0, row)[0])


class ReplayClock(Clock):
    """A clock for captured steps: its keys are paths, and whatever replays a step supplies the roots.

    One table serves training passes and updates, the other evaluation.
    """

    def __init__(self, device: str) -> None:
        super().__init__(seed=0)
        self.training, self.evaluation = KeyTable(device), KeyTable(device)

    def begin_pass(self, training: bool) -> PathKey:  # type: ignore[override]
        """Return the root of a forward pass."""
        return PathKey(self.training if training else self.evaluation)

    def update_key(self) -> PathKey:  # type: ignore[override]
        """Return the key for rounding gradients and states in an update."""
        return mix(PathKey(self.training), UPDATE)

    def step_key(self, optimizer: int) -> PathKey:  # type: ignore[override]
        """Return :meth:`update_key`: a captured step has one optimizer."""
        return self.update_key()

    def advance(self) -> None:
        """Do nothing: steps are counted on the device."""


def training_roots(seed: int, first_step: int, count: int, device: str) -> Tensor:
    """Return the keys that :class:`Clock` gives the first passes of ``count`` steps: int64 [count]."""
    steps = torch.arange(first_step, first_step + count, device=device)
    return mix_words(mix_words(torch.tensor(signed64(seed), device=device), steps), 0)


def evaluation_roots(seed: int, step: int, count: int, device: str) -> Tensor:
    """Return the keys of ``count`` evaluation passes after ``step`` steps: int64 [count]."""
    passes = torch.arange(count, device=device)
    return mix_words(torch.full((count,), signed64(mix(seed, step)), device=device), 2 * passes + 1)
