"""Precisions with a name, as plain data."""

from dataclasses import dataclass

from peppp.floats import FloatFormat
from peppp.formats import FP32, Format, parse_format

BF16 = FloatFormat(8, 7, "ieee")
FP16 = FloatFormat(5, 10, "ieee")


@dataclass(frozen=True, slots=True)
class Products:
    """The formats of the operands of a layer's three products: forward, input gradient, weight gradient.

    ``values`` is the format of weights and activations, ``errors`` that of the gradients of the layer's
    outputs. Scales are shared along the dimension that a product sums over. ``convolutions`` adds the
    convolutions, with scales shared along their channels; without it only linear layers are covered, as in
    today's recipes.
    """

    values: Format
    errors: Format
    error_rounding: str = "nearest"
    convolutions: bool = False

    @classmethod
    def of(cls, values: str, errors: str, error_rounding: str = "nearest") -> "Products":
        """Build from the texts of the formats."""
        return cls(parse_format(values), parse_format(errors), error_rounding)


@dataclass(frozen=True, slots=True)
class NamedPrecision:
    """A precision that people know by name, such as ``amp-bf16``.

    ``values`` is the format of activations and back-propagated errors. ``weights`` is the format of the
    parameters: FP32 if they are master weights that each operation casts for itself. With ``casts``,
    operations choose their type as under torch's autocast: products in ``values``; softmax, losses and
    layer and group norms in float32. ``products`` are narrower formats for the products of linear layers.
    ``update`` is how weights are rounded after an update: ``nearest``, ``stochastic``, or ``kahan``, which
    carries the rounding error along. ``states`` is the format of the optimizer's states, and ``optimizer``
    names the one that the precision requires, if any. ``scales_loss`` marks loss scaling, which float16
    requires. ``needs`` is the hardware or software that runs it.
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
        """Always False: the precision that rounds nothing is the pair fp32/fp32."""
        return False

    @property
    def sides(self) -> tuple[Format, Format]:
        """The narrowest format of the values and the format of the weights, in place of Formats A and B."""
        return (self.products.values if self.products else self.values), self.weights

    @property
    def is_narrow(self) -> bool:
        """Whether the weights themselves are narrow, without a float32 copy."""
        return self.weights != FP32

    @property
    def rounds_values(self) -> bool:
        """Whether the network computes in something other than float32."""
        return self.values != FP32
