"""VGGs with batch norm for small images (Simonyan and Zisserman 2015), with one linear layer on top."""

from torch import Tensor, nn
from torch.nn import functional

_STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDTHS = (1, 2, 4, 8, 8)  # multiples of the first stage's width


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with batch norm, each followed by a pooling that halves the side.

    A pooling that would leave less than one pixel is skipped, and the remaining pixels are averaged, so any
    side from 1 up works. At 32 pixels all five poolings run and one pixel remains.
    """

    def __init__(self, depth: int, width: int, classes: int, channels: int = 3) -> None:
        super().__init__()
        stages = []
        inputs = channels
        for count, multiple in zip(_STAGES[depth], _WIDTHS, strict=True):
            layers: list[nn.Module] = []
            outputs = width * multiple
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map images [batch, channels, side, side] to logits [batch, classes]."""
        for stage in self.stages:
            x = stage(x)
            if min(x.shape[-2:]) > 1:
                x = functional.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]
