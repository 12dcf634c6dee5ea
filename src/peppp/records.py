"""Frozen records: the recipe of a training, its footprint and its measurement."""

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

# Raised whenever a stored error could change; :mod:`peppp.arithmetic` decides which older rows remain valid.
ARITHMETIC_VERSION = 2

ROUNDINGS = ("nearest", "stochastic")
_YOUNGER = ("pretrained", "freeze")  # later fields: to_json leaves them out while they are empty
_ROLES = ("values", "errors", "gradient", "states")


@checked
@dataclass(frozen=True, slots=True)
class RoundingModes:
    """The rounding mode of weights and activations, back-propagated errors, gradient and optimizer states.

    ``states`` covers the optimizer's momentum (or an adaptive optimizer's moments) and the accumulator.

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
        """Parse one mode for all roles, or ``role=mode`` for each of the four, separated by commas.

        Raises FormatError for anything else.
        """
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
    """Everything except the seed that two trainings must share for their errors to be comparable.

    ``epochs`` is raised if it gives fewer than ``min_steps`` optimizer steps. ``error_format`` is the format
    of back-propagated errors: ``A``, ``B`` or a format's text. ``resolution`` is the side of square images in
    pixels; 0 leaves the data as they are. ``pretrained`` names a file of initial weights, and ``freeze``
    holds patterns of the parameters that are not trained (:mod:`peppp.training.pretrained`). The defaults are
    the paper's (section 4); it does not specify the rounding, the error format or the accumulator.

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
    # A field added later must be left out of to_json at its default: digests of stored recipes never change.

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", float(self.learning_rate))
        options = tuple(sorted((str(name), float(value)) for name, value in self.optimizer_options))
        object.__setattr__(self, "optimizer_options", options)
        object.__setattr__(self, "freeze", tuple(self.freeze))

    @cached_property  # a table reads it for each of its rows
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the recipe: they depend on all of its fields."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return the recipe as one line of canonical JSON (sorted keys)."""
        values = asdict(self)
        for name in _YOUNGER:
            if not values[name]:
                del values[name]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    @checked
    def from_json(cls, text: str) -> "Recipe":
        """Parse what :meth:`to_json` wrote; raises ArgumentError for unknown keys."""
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
    """Return what pickle and copy need to rebuild a record: they cannot handle read-only mappings."""
    values = (getattr(record, f.name) for f in fields(record))
    return type(record), tuple(dict(v) if isinstance(v, MappingProxyType) else v for v in values)


@checked
@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one training, known before it runs.

    ``weights`` and ``activations`` (tensors saved for the backward pass, each storage once) are in Format A,
    ``gradients`` and each of the optimizer's ``states`` in Format B. ``raw`` is what stays in fp32 or as
    integers (norm statistics, pooling indices). ``working`` is the additional memory at the peak of a step;
    it is reported separately and not part of ``total``.
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
        """Bytes kept from the forward to the backward pass and between steps, without ``working``."""
        return self.weights + self.activations + self.optimizer + self.raw

    def to_dict(self) -> dict[str, Any]:
        """Return plain data such that ``Footprint(**data)`` is equal."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"states": dict(self.states)}


class Outcome(StrEnum):
    """How a training ended. A diverged training is a valid result: its error is the error of guessing."""

    FINISHED = "finished"
    DIVERGED = "diverged"


@checked
@dataclass(frozen=True, slots=True)
class Measurement:
    """One training and its test. Errors are fractions in [0, 1].

    ``task`` is the data set's name and ``fingerprint`` a digest of its contents. Data sets from one source
    share a ``group`` (for leave-one-group-out). ``repeat`` numbers measurements that share everything else.
    ``curve`` holds pairs (epoch, test error) of some epochs. ``seconds`` is the duration of the whole
    training. ``chance_error`` is the error of guessing, 1 - 1/classes, which a diverged training gets.
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
        """What identifies the measurement: task fingerprint, configuration, recipe digest, seed, repeat."""
        return (self.fingerprint, str(self.configuration), self.recipe.digest, self.seed, self.repeat)
