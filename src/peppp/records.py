"""What is stored: the recipe of a training, its footprint and its measurement. Plain frozen data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from peppp.arguments import checked
from peppp.errors import ArgumentError, FormatError
from peppp.precisions.known import Precision

# Raised whenever a stored error could change; :mod:`peppp.arithmetic` says which older rows still hold.
ARITHMETIC_VERSION = 2

ROUNDINGS = ("nearest", "stochastic")
_YOUNGER = ("pretrained", "freeze")  # fields that stay out of a recipe's text while they are empty
_ROLES = ("values", "errors", "gradient", "states")


@checked
@dataclass(frozen=True, slots=True)
class RoundingModes:
    """The rounding mode of each role: weights and activations, back-propagated errors, gradient, states.

    States are the optimizer's momentum and accumulator (or an adaptive optimizer's moments).

    >>> RoundingModes.parse("stochastic").errors
    'stochastic'
    >>> str(RoundingModes.parse("values=nearest,states=stochastic,gradient=stochastic,errors=nearest"))
    'values=nearest,errors=nearest,gradient=stochastic,states=stochastic'
    """

    values: str
    errors: str
    gradient: str
    states: str

    @classmethod
    @checked
    def parse(cls, text: "str | RoundingModes") -> "RoundingModes":
        """Modes of a text: one mode for all roles, or ``role=mode`` for each of the four."""
        if isinstance(text, RoundingModes):
            return text
        if text in ROUNDINGS:
            return cls(text, text, text, text)
        modes = dict(part.partition("=")[::2] for part in text.split(","))
        if set(modes) != set(_ROLES) or not set(modes.values()) <= set(ROUNDINGS):
            raise FormatError(
                f"not a rounding: {text!r}; write nearest or stochastic, or one for each role: "
                "values=nearest,errors=nearest,gradient=stochastic,states=stochastic"
            )
        return cls(**modes)

    def __str__(self) -> str:
        modes = asdict(self)
        if len(set(modes.values())) == 1:
            return self.values
        return ",".join(f"{role}={modes[role]}" for role in _ROLES)


@checked
@dataclass(frozen=True)
class Recipe:
    """Everything, the seed apart, that makes two errors comparable: one recipe, one kind of row.

    ``epochs`` is raised where a task is so small that they hold fewer than ``min_steps`` optimizer steps.
    ``error_format`` is the format of back-propagated errors: ``A``, ``B`` or a format's text.
    ``resolution`` is the side of the square images in pixels; 0 leaves the data as they are.
    ``pretrained`` names a file of weights to begin from, ``freeze`` patterns of parameters that stay as they
    are (:mod:`peppp.training.pretrained`).
    The defaults are the paper's (section 4); it is silent on rounding, errors and accumulator.

    >>> Recipe().digest == Recipe(learning_rate=0.001).digest != Recipe(learning_rate=1).digest
    True
    """

    network: str = "resnet8"
    resolution: int = 0
    epochs: int = 10
    min_steps: int = 0
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.001
    optimizer_options: tuple[tuple[str, float], ...] = (("momentum", 0.9), ("weight_decay", 5e-4))
    rounding: str = "stochastic"
    error_format: str = "A"
    accumulator: bool = True
    loss: str = "cross_entropy"
    augmentation: str = "none"
    arithmetic_version: int = ARITHMETIC_VERSION
    pretrained: str = ""
    freeze: tuple[str, ...] = ()
    # A field added later must stay out of to_json at its default: digests of stored recipes never change.

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", float(self.learning_rate))
        options = tuple(sorted((str(name), float(value)) for name, value in self.optimizer_options))
        object.__setattr__(self, "optimizer_options", options)
        object.__setattr__(self, "freeze", tuple(self.freeze))

    @cached_property  # a table asks for it at each of its rows
    def digest(self) -> str:
        """Sixteen hexadecimal digits that depend on every field and on nothing else."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The recipe as one line of canonical JSON (sorted keys)."""
        values = asdict(self)
        for name in _YOUNGER:
            if not values[name]:
                del values[name]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    @checked
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that :meth:`to_json` wrote; unknown keys are refused with an ArgumentError."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or not set(values) <= names:
            raise ArgumentError(f"not a recipe: {text[:80]!r}")
        return cls(**values)


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping if isinstance(mapping, MappingProxyType) else MappingProxyType(dict(mapping))


def _rebuilt(record: Any) -> tuple[Any, ...]:
    """What pickling and copying need to make a record again: read-only mappings can do neither."""
    values = (getattr(record, f.name) for f in fields(record))
    return type(record), tuple(dict(v) if isinstance(v, MappingProxyType) else v for v in values)


@checked
@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one training, known before it runs.

    ``weights`` and ``activations`` (tensors kept for the backward pass, each storage once) are in Format A,
    ``gradients`` and each of the optimizer's ``states`` in Format B, ``raw`` is what stays in fp32 or as
    integers (norm statistics, pooling indices). ``working`` is the extra fp32 memory of the backward pass at
    its worst moment; it is reported apart and not part of ``total``.
    """

    weights: int
    activations: int
    gradients: int
    states: Mapping[str, int]
    raw: int = 0
    working: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", _frozen(self.states))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt(self)

    @property
    def optimizer(self) -> int:
        """Bytes in Format B: the gradient and the optimizer's states."""
        return self.gradients + sum(self.states.values())

    @property
    def total(self) -> int:
        """Bytes kept from forward to backward and between steps."""
        return self.weights + self.activations + self.optimizer + self.raw

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of ``Footprint(**data)``."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"states": dict(self.states)}


class Outcome(StrEnum):
    """How a training ended. A diverged one is a result: its error is that of guessing."""

    FINISHED = "finished"
    DIVERGED = "diverged"


@checked
@dataclass(frozen=True, slots=True)
class Measurement:
    """One training and its test. Errors are fractions in [0, 1].

    ``task`` is the data set's name, ``fingerprint`` a digest of its contents, ``group`` the name of the
    source it shares with siblings (for leave-one-group-out). ``repeat`` counts measurements that share
    everything else. ``curve`` holds (epoch, test error) of some epochs. ``seconds`` is the whole training.
    ``chance_error`` is the error of guessing, 1 - 1/classes: what a diverged training is given.
    """

    task: str
    fingerprint: str
    group: str
    configuration: Precision
    recipe: Recipe
    seed: int
    chance_error: float
    test_error: float
    train_error: float
    curve: tuple[tuple[int, float], ...]
    footprint: Footprint
    outcome: Outcome
    seconds: float
    repeat: int = 0
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", _frozen(self.provenance))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt(self)

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What identifies it: task fingerprint, configuration, recipe digest, seed, repeat."""
        return (self.fingerprint, str(self.configuration), self.recipe.digest, self.seed, self.repeat)
