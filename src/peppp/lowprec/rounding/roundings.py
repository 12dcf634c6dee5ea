"""What a training rounds: which numbers to which format, and how."""

from dataclasses import dataclass, field, replace

from peppp.formats import FP32, Configuration, DynamicFormat, Format, parse_format
from peppp.precisions.named import NamedPrecision, Products
from peppp.precisions.states import LEAST_NUMBERS
from peppp.records import RoundingModes


@dataclass(frozen=True, slots=True)
class Roundings:
    """The format of each kind of number of a training, and its rounding mode.

    ``values`` are activations, ``errors`` what comes back to them, ``weights`` the parameters as the network
    has them. The optimizer has the ``gradient``, its ``states`` and, where there is one, the ``accumulator``.
    ``weight_mode`` is how weights are rounded after a step. Where ``casts``, operations choose their type as
    under autocast, and ``products`` says which formats linear layers go through. ``carries`` means Kahan
    summation, ``rounds_statistics`` that norms' running statistics are of few bits, too. ``is_named`` are
    those of a precision by name, where the network's results are rounded and no accumulator is kept.
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
        """From texts; ``error_format`` is ``A``, ``B`` or a format."""
        pair = Configuration.parse(configuration)
        chosen = {"A": pair.format_a, "B": pair.format_b}.get(error_format)
        return cls.of_formats(
            pair.format_a, pair.format_b, chosen or parse_format(error_format), RoundingModes.parse(rounding)
        )

    @classmethod
    def of_formats(cls, a: Format, b: Format, errors: Format, modes: RoundingModes) -> "Roundings":
        """Format A for weights and activations, Format B for all that the optimizer has."""
        return cls(a, errors, a, b, b, b, modes, modes.values)

    @classmethod
    def of_name(cls, precision: NamedPrecision) -> "Roundings":
        """Those of a precision that has a name."""
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
        """The format of an optimizer's state of a ``size`` in numbers; small ones are not kept in 8 bits."""
        if not isinstance(self.states, DynamicFormat):
            return self.states
        if size < LEAST_NUMBERS:
            return FP32
        return replace(self.states, signed=not name.endswith("_sq"))

    @property
    def is_known(self) -> bool:
        """Whether the formats are known here, not places on a device whose format a replay decides."""
        fmt: object = self.values
        return isinstance(fmt, Format)
