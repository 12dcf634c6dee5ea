"""What a training rounds: which numbers to which format, and how."""

from dataclasses import dataclass, field

from peppp.formats import FP32, Configuration, Format, parse_format
from peppp.records import RoundingModes


@dataclass(frozen=True, slots=True)
class Roundings:
    """The format of each kind of number of a training, and its rounding mode.

    ``values`` are activations, ``errors`` what comes back to them, ``weights`` the parameters as the network
    has them. The optimizer has the ``gradient``, its ``states`` and, where there is one, the ``accumulator``.
    """

    values: Format
    errors: Format
    weights: Format
    gradient: Format
    states: Format
    accumulator: Format
    modes: RoundingModes
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
        return cls(a, errors, a, b, b, b, modes)

    @property
    def is_known(self) -> bool:
        """Whether the formats are known here, not places on a device whose format a replay decides."""
        fmt: object = self.values
        return isinstance(fmt, Format)
