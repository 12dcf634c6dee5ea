"""Small networks for inputs other than images: a perceptron for numbers, a transformer for text."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_LONGEST = 1024


class Perceptron(nn.Sequential):
    """A perceptron with two hidden ReLU layers, from [batch, features] to [batch, outputs]."""

    def __init__(self, width: int, outputs: int, features: int) -> None:
        super().__init__(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, outputs),
        )


class Block(nn.Module):
    """A pre-norm transformer block: causal attention and a GELU layer, each with a residual connection.

    Attention is written out rather than fused, so that its weights are rounded like every other value.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, length, width] to [batch, length, width]."""
        batch, length, width = x.shape
        split = self.attend(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # [batch, heads, length, width / heads] each
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weights = torch.softmax(scores.masked_fill(later, -math.inf), -1)
        x = x + self.join((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(functional.gelu(self.widen(self.norm2(x))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A language model, from text int64 [batch, length] to next-character logits [batch, length, classes]."""

    def __init__(self, width: int, classes: int, *, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, width)
        self.register_buffer("positions", _positions(_LONGEST, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map text to logits; each position attends to itself and to earlier ones."""
        x = self.embed(tokens) + self.positions[: tokens.shape[1]]  # type: ignore[index]
        return self.head(self.norm(self.blocks(x)))  # type: ignore[no-any-return]


def _positions(count: int, width: int) -> Tensor:
    """Return [count, width] sines and cosines of falling frequency (Vaswani et al. 2017)."""
    angles = torch.arange(count)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
