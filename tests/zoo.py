"""Small re-creations of what people train, each with an input: the networks of test_zoo.py.

``python tests/zoo.py`` prints the table of docs/numbers.md.
"""

import math
import warnings

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import peppp


class SqueezeExcite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.act, self.gate = nn.SiLU(inplace=True), nn.Hardsigmoid(inplace=True)

    def forward(self, x):
        return x * self.gate(self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """MobileNetV3's block: expansion, depthwise convolution, squeeze and excitation, projection, residual."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.Hardswish(inplace=True))
        self.depth = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.SiLU(True)
        )
        self.excite, self.project = SqueezeExcite(16), nn.Sequential(nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5, inplace=True), nn.Linear(8 * 64, 3))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.excite(self.depth(self.expand(x))))
        return self.head(x)


class DenseBlocks(nn.Module):
    """DenseNet's layers on concatenated features, recomputed in the backward pass."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.Conv2d(c, 4, 3, padding=1))
            for c in (4, 8, 12)
        )
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            joined = lambda *parts, layer=layer: layer(torch.cat(parts, 1))  # noqa: E731
            features.append(checkpoint(joined, *features, use_reentrant=False))
        return self.head(F.adaptive_avg_pool2d(F.relu(torch.cat(features, 1), inplace=True), 1).flatten(1))


class Attention(nn.Module):
    def __init__(self, width, heads, *, causal):
        super().__init__()
        self.qkv, self.out, self.heads, self.causal = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
            causal,
        )

    def forward(self, x):
        b, n, w = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(b, n, w))


class Block(nn.Module):
    def __init__(self, width, *, causal):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 2, causal=causal)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 5, 16))
        self.blocks = nn.Sequential(Block(16, causal=False), Block(16, causal=False))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class Gpt(nn.Module):
    """A language model whose head shares the embedding's weights."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 16), nn.Embedding(8, 16)
        self.blocks = nn.ModuleList(Block(16, causal=True) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words):
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).mean(1)


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 16)
        self.both = nn.Transformer(16, 2, 1, 1, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 11)

    def forward(self, words):
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        return self.head(self.both(self.words(words), self.words(words.flip(1)), tgt_mask=mask)).mean(1)


class Recurrent(nn.Module):
    """Sequences of several lengths through an LSTM of two directions and a GRU."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)
        self.gru, self.head = nn.GRU(16, 8, batch_first=True), nn.Linear(24, 3)

    def forward(self, words):
        lengths = torch.arange(words.shape[1], words.shape[1] - len(words), -1).clamp(min=2)
        packed = pack_padded_sequence(self.words(words), lengths, batch_first=True)
        outputs, (h, _) = self.lstm(packed)
        _, state = self.gru(outputs)
        return self.head(torch.cat([h[-1], h[-2], state[0]], 1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 4, 3, padding=1)
        self.out = nn.Conv2d(8, 3, 1)
        self.norm = nn.InstanceNorm2d(4, affine=True)

    def forward(self, x):
        skip = F.leaky_relu(self.norm(self.down1(x)), inplace=True)
        deep = F.relu(self.down2(F.max_pool2d(skip, 2)))
        joined = self.join(torch.cat([self.up(deep), skip], 1))
        wide = F.interpolate(deep[:, :4], scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(torch.cat([joined, wide], 1)).mean((2, 3))


class ConvNext(nn.Module):
    """Depthwise convolution, layer norm over channels, layer scale."""

    def __init__(self):
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.scale = nn.LayerNorm(8), nn.Parameter(torch.full((8,), 0.1))
        self.wide, self.narrow, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.narrow(F.gelu(self.wide(self.norm(self.depth(x).permute(0, 2, 3, 1)))))
        return self.head((x + (y * self.scale).permute(0, 3, 1, 2)).mean((2, 3)))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.places = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(8, 16), nn.Mish(inplace=True), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))


class Graph(nn.Module):
    """Messages along edges, added up at their targets in two ways; degrees are counted on the way."""

    def __init__(self):
        super().__init__()
        self.message, self.update, self.head = nn.Linear(4, 8), nn.Linear(12, 8), nn.Linear(8, 3)
        self.edges = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])

    def forward(self, x):
        source, target = self.edges
        sent = F.elu(self.message(x), inplace=True)[source]
        got = torch.zeros(len(x), 8).index_add_(0, target, sent)
        most = torch.zeros(len(x), 8).scatter_add(0, target[:, None].expand(-1, 8), sent * 0.5)
        degree = torch.zeros(len(x)).index_add_(0, target, torch.ones(len(target)))
        x = self.update(torch.cat([x, got / degree[:, None].clamp(min=1.0)], 1)) + most
        return self.head(x)


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.filter = nn.Parameter(torch.randn(5, 2) * 0.3)

    def forward(self, x):
        spectrum = torch.fft.rfft(self.first(x))
        return self.head(
            torch.fft.irfft(spectrum * torch.view_as_complex(self.filter).conj(), n=8)
            + torch.fft.fft(x).real.mean()
        )


class Normalised(nn.Module):
    """Weights that are computed anew from others in each pass."""

    def __init__(self):
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Linear(6, 8))
        self.second = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.second(F.softplus(self.first(x)))))


class Sine(torch.autograd.Function):
    """Keeps its result and its input."""

    @staticmethod
    def forward(ctx, x):
        y = torch.sin(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * torch.cos(x) + 0 * y


class OwnFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(Sine.apply(self.first(x)) * 0.7)


class LoRA(nn.Module):
    """Two small matrices beside a frozen layer."""

    def __init__(self):
        super().__init__()
        self.frozen, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.frozen.requires_grad_(False)
        self.a, self.b = nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x):
        return self.head(F.relu(self.frozen(x) + 0.5 * self.b(self.a(x))))


class Rotary(nn.Module):
    """Queries and keys turned by angles that come from a buffer."""

    def __init__(self):
        super().__init__()
        self.words, self.qkv, self.head = nn.Embedding(11, 16), nn.Linear(16, 48), nn.Linear(16, 11)
        self.register_buffer("frequencies", 1.0 / 100 ** (torch.arange(0, 16, 2) / 16), persistent=False)

    def turn(self, x):
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.frequencies)
        c, s = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
        a, b = x.chunk(2, -1)
        return x * c + torch.cat([-b, a], -1) * s

    def forward(self, words):
        q, k, v = self.qkv(self.words(words)).chunk(3, -1)
        scores = self.turn(q) @ self.turn(k).transpose(1, 2) / 4
        later = torch.ones(words.shape[1], words.shape[1], dtype=torch.bool).triu(1)
        return self.head(scores.masked_fill(later, -math.inf).softmax(-1) @ v).mean(1)


def images(seed):
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def last(seed):
    return images(seed).to(memory_format=torch.channels_last)


def words(seed):
    return torch.randint(0, 11, (6, 8), generator=torch.Generator().manual_seed(seed))


def numbers(seed):
    return torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))


def nodes(seed):
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))


# name: (network, its input)
ZOO = {
    "inverted residual, squeeze and excitation": (InvertedResidual, images),
    "inverted residual in channels_last": (
        lambda: InvertedResidual().to(memory_format=torch.channels_last),
        last,
    ),
    "dense blocks, recomputed": (DenseBlocks, images),
    "vision transformer": (VisionTransformer, images),
    "GPT, tied embedding": (Gpt, words),
    "encoder and decoder (nn.Transformer)": (Translator, words),
    "LSTM and GRU, packed sequences": (Recurrent, words),
    "U-Net": (UNet, images),
    "ConvNeXt": (ConvNext, images),
    "MLP-Mixer": (Mixer, images),
    "graph layer": (Graph, nodes),
    "Fourier layer": (Fourier, numbers),
    "weight norm and spectral norm": (Normalised, numbers),
    "own autograd Function": (OwnFunction, numbers),
    "LoRA on a frozen layer": (LoRA, numbers),
    "rotary positions": (Rotary, words),
}


def made(name, rounding, storage):
    """A converted network of the zoo and its optimizer."""
    torch.manual_seed(0)
    net = peppp.low_precision(ZOO[name][0](), "1-4-1/1-6-7", rounding=rounding, seed=3)
    parameters = [p for p in net.parameters() if p.requires_grad]
    base = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    return net, peppp.low_precision_optimizer(base, net, storage=storage)


def train(net, optimizer, name, first, steps):
    """Some steps; those with the same numbers see the same batches and draws."""
    torch.manual_seed(first)
    for step in range(first, first + steps):
        optimizer.zero_grad()
        F.cross_entropy(net(ZOO[name][1](step)), torch.arange(6) % 3).backward()
        optimizer.step()


def is_packed_alike(name):
    """Whether three stochastic steps in packed storage give the bits of the simulation."""
    states = []
    for storage in ("simulated", "packed"):
        net, optimizer = made(name, "stochastic", storage)
        train(net, optimizer, name, 0, 3)
        states.append(net.state_dict())
    return all(torch.equal(states[1][key], value) for key, value in states[0].items())


def table():
    """The lines of the table in docs/numbers.md."""
    lines = ["| network | rounding points | reported by name | packed = simulated |", "|---|---|---|---|"]
    prefix = "not rounded to low precision: "
    for name, (kind, inputs) in ZOO.items():
        torch.manual_seed(0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            net = peppp.low_precision(kind(), "1-4-1/1-6-7", rounding="nearest", seed=0)
            points = peppp.rounding_points(net, inputs(0))
            alike = is_packed_alike(name)
        texts = [str(w.message) for w in said if w.category is UserWarning]
        reported = sorted({text.removeprefix(prefix) for text in texts if text.startswith(prefix)})
        equal = "bit for bit" if alike else "no"
        lines.append(f"| {name} | {len(points)} | {'; '.join(reported) or 'nothing'} | {equal} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
