"""A judge of conversions that knows nothing of how they are made: it sees what each operation really gets.

An outer function mode looks at the operands of every arithmetic operation in which a number of the network
takes part, that is, one with a gradient. Each must be of Format A, or the operation be named in a warning.
Formats are listed value by value, so the judge shares no rounding with what it judges.
"""

import re
import warnings
from collections import Counter

import torch
from torch.overrides import TorchFunctionMode

import peppp

_LAYERS = """
    linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d bilinear matmul mm bmm mv
    addmm baddbmm einsum scaled_dot_product_attention multi_head_attention_forward lstm gru rnn_tanh rnn_relu
    lstm_cell gru_cell batch_norm layer_norm group_norm instance_norm rms_norm embedding
"""
_ELEMENTWISE = """
    add sub rsub mul div true_divide softmax log_softmax interpolate index_add scatter_add scatter_reduce pow
    square sqrt rsqrt exp log sigmoid tanh gelu silu elu leaky_relu mean sum cumsum norm normalize lerp
    addcmul
"""
ARITHMETIC = {*_LAYERS.split(), *_ELEMENTWISE.split()}
STATISTICS = {"batch_norm": {1, 2, "running_mean", "running_var"}}  # they stay float32 on purpose


def values_of(fmt):
    """All numbers of a format 1-E-M of the default flavour, from its definition: sorted, without zero's
    sign.
    """
    _, e, m = map(int, fmt.split("-"))
    bias = 2 ** (e - 1) - 1
    fractions = [i / 2**m for i in range(2**m)]
    found = [2.0 ** (1 - bias) * f for f in fractions]
    found += [2.0 ** (k - bias) * (1 + f) for k in range(1, 2**e) for f in fractions]
    return torch.tensor(sorted({*found, *(-x for x in found)}), dtype=torch.float32)


class Watch(TorchFunctionMode):
    """Counts the numbers that Format A does not have, for each operation and operand."""

    def __init__(self, fmt, allowed=()):
        super().__init__()
        self.values = torch.cat([values_of(fmt), torch.tensor(allowed)]).sort().values
        self.bad, self.seen = Counter(), Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = re.sub(r"^(__r?i?|)(\w+?)(__|_|)$", r"\2", func.__name__)
        name = {"truediv": "div"}.get(name, name)
        if name in ARITHMETIC:
            with torch._C.DisableTorchFunction(), torch.no_grad():
                operands = list(_operands([*enumerate(args), *kwargs.items()]))
                if any(x.requires_grad for _, x in operands):
                    for place, x in operands:
                        if place not in STATISTICS.get(name, ()) and place != "out":
                            self._look(name, place, x)
        return func(*args, **kwargs)

    def _look(self, name, place, x):
        x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
        if x.dtype != torch.float32:
            self.bad[name, place] += x.numel() * x.is_floating_point()
            return
        x = (x.coalesce().values() if x.layout != torch.strided else x).flatten()
        x = x[x.isfinite()]
        nearest = self.values[torch.searchsorted(self.values, x).clamp(max=len(self.values) - 1)]
        self.seen[name, place] += x.numel()
        self.bad[name, place] += int((nearest != x).sum())


def _operands(values, prefix=""):
    for place, value in values:
        place = f"{prefix}.{place}" if prefix else place
        if isinstance(value, (list, tuple)):
            yield from _operands(enumerate(value), place)
        elif isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
            yield place, value


def judge(network, inputs, fmt="1-4-1", rounding="nearest", allowed=()):
    """Convert a network and run one pass: ({(operation, operand): wrong numbers}, warnings, results).

    ``inputs`` are a list or, by name, a dict.

    Operations that a warning names are not counted, and neither are the numbers ``allowed``.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        network = peppp.low_precision(network, f"{fmt}/1-6-7", rounding=rounding, seed=0)
        with Watch(fmt, allowed) as watch:
            results = network(**inputs) if isinstance(inputs, dict) else network(*inputs)
    assert sum(watch.seen.values()) > 0
    said = sorted({str(w.message) for w in said})
    bad = {k: n for k, n in watch.bad.items() if n and not any(k[0] in text for text in said)}
    return bad, said, results
