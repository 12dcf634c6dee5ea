"""Which numbers of a training are rounded, to which formats, and in which modes."""

from dataclasses import dataclass, field, replace

from peppp.formats import FP32, Configuration, DynamicFormat, Format, parse_format
from peppp.precisions.named import NamedPrecision, Products
from peppp.precisions.states import LEAST_NUMBERS
from peppp.records import RoundingModes


@dataclass(frozen=True, slots=True)
class Roundings:
    """The format and the rounding mode of each kind of number in a training.

    ``values`` is the format of activations, ``errors`` of back-propagated errors, ``weights`` of the
    parameters in the network, ``gradient``, ``states`` and ``accumulator`` of what the optimizer keeps.
    ``weight_mode`` is how weights are rounded after a step. With ``casts``, operations choose their type as
    under autocast, and ``products`` gives the formats of linear layers. ``carries`` means Kahan summation,
    ``rounds_statistics`` that the running statistics of norms are rounded, too. ``is_named`` marks a
    precision with a name: there the network's results are rounded, and no separate accumulator is kept.
    """

    values: Format
    errors: Format
    weights: Format
    gradient: Format
    states: Format
    accumulator: Format
    modes: RoundingModes
    weight_mode: str
    casts: bool = False
    products: Products | None = None
    carries: bool = False
    is_named: bool = False
    rounds_statistics: bool = False
    rounds_errors: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds_errors", self.errors != FP32)

    @classmethod
    def of(
        cls, configuration: Configuration | str, rounding: RoundingModes | str, error_format: str
    ) -> "Roundings":
        """Build from texts; ``error_format`` is ``A``, ``B`` or a format."""
        pair = Configuration.parse(configuration)
        chosen = {"A": pair.format_a, "B": pair.format_b}.get(error_format)
        return cls.of_formats(
            pair.format_a, pair.format_b, chosen or parse_format(error_format), RoundingModes.parse(rounding)
        )

    @classmethod
    def of_formats(cls, a: Format, b: Format, errors: Format, modes: RoundingModes) -> "Roundings":
        """Build with Format A for weights and activations, and Format B for everything in the optimizer."""
        return cls(a, errors, a, b, b, b, modes, modes.values)

    @classmethod
    def of_name(cls, precision: NamedPrecision) -> "Roundings":
        """Build from a precision with a name."""
        p = precision
        return cls(
            values=p.values,
            errors=p.values,
            weights=p.weights,
            gradient=p.weights,
            states=p.states,
            accumulator=p.weights,
            modes=RoundingModes.parse("nearest"),
            weight_mode="stochastic" if p.update == "stochastic" else "nearest",
            casts=p.casts,
            products=p.products,
            carries=p.update == "kahan",
            is_named=True,
            rounds_statistics=p.is_narrow,
        )

    def state_format(self, name: str, size: int) -> Format:
        """The format of an optimizer's state with ``size`` numbers; small states are not kept in 8 bits."""
        if not isinstance(self.states, DynamicFormat):
            return self.states
        if size < LEAST_NUMBERS:
            return FP32
        return replace(self.states, signed=not name.endswith("_sq"))

    @property
    def is_known(self) -> bool:
        """Whether the formats are known here, and not slots on a device that a replay fills in."""
        fmt: object = self.values
        return isinstance(fmt, Format)
