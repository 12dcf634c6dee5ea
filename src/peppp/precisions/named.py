"""A precision that has a name of its own, as plain data."""

from dataclasses import dataclass

from peppp.floats import FloatFormat
from peppp.formats import FP32, Format, parse_format

BF16 = FloatFormat(8, 7, "ieee")
FP16 = FloatFormat(5, 10, "ieee")


@dataclass(frozen=True, slots=True)
class Products:
    """The formats of what enters the three products of a layer: forward, input gradient, weight gradient.

    ``values`` are weights and activations, ``errors`` what comes back to the layer's results. Scales are
    shared along the dimension that a product sums over. With ``convolutions`` those are computed so as well,
    and scales are shared along their channels; without, linear layers alone, as today's recipes do.
    """

    values: Format
    errors: Format
    error_rounding: str = "nearest"
    convolutions: bool = False

    @classmethod
    def of(cls, values: str, errors: str, error_rounding: str = "nearest") -> "Products":
        """From the texts of formats."""
        return cls(parse_format(values), parse_format(errors), error_rounding)


@dataclass(frozen=True, slots=True)
class NamedPrecision:
    """How a training computes that people know by a name, such as ``amp-bf16``.

    ``values`` is the format of activations and errors, ``weights`` that of the parameters: FP32 where they
    are a master copy that each operation casts for itself. ``casts`` says that operations choose their type
    as under torch's autocast: products in ``values``; softmax, losses and norms of layers and groups in
    float32. ``products`` are formats of fewer bits that linear layers go through. ``update`` is how weights
    take an update: ``nearest``, ``stochastic``, or ``kahan``, which carries the rounding error along.
    ``states`` is the format of the optimizer's states, ``optimizer`` the one that they are known for, if any.
    ``scales_loss`` says that losses are scaled, as float16 asks for. ``needs`` says what runs it.
    """

    name: str
    about: str
    needs: str
    values: Format
    weights: Format
    states: Format
    casts: bool = False
    products: Products | None = None
    update: str = "nearest"
    optimizer: str = ""
    scales_loss: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def is_fp32(self) -> bool:
        """Whether nothing is rounded at all: never; that precision is the pair fp32/fp32."""
        return False

    @property
    def sides(self) -> tuple[Format, Format]:
        """What stands for Format A and Format B: the fewest bits that values go through, and the weights'."""
        return (self.products.values if self.products else self.values), self.weights

    @property
    def is_narrow(self) -> bool:
        """Whether the weights themselves have few bits, without a float32 copy."""
        return self.weights != FP32

    @property
    def rounds_values(self) -> bool:
        """Whether the network computes otherwise than in float32."""
        return self.values != FP32
