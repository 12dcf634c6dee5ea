"""Modules as users write them: attention, tied weights, dicts, branches on data, gradient accumulation."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from peppp.errors import NetworkError
from peppp.formats import FloatFormat
from peppp.lowprec.network.conversion import low_precision, rounding_points
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.rounding.functions import uses_in_hook
from tensors import rounded


class Transformer(nn.Module):
    """One block over characters; the head shares the embedding's weights."""

    def __init__(self, own_attention=True, width=16, symbols=11):
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        self.norm = nn.LayerNorm(width)
        self.own_attention = own_attention
        if own_attention:
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        else:
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))
        self.head = nn.Linear(width, symbols, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words):
        x = self.embedding(words) + self.position[: words.shape[1]]
        h = self.norm(x)
        if self.own_attention:
            q, k, v = self.qkv(h).view(*h.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
            x = x + self.out(
                F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            )
        else:
            mask = torch.ones(words.shape[1], words.shape[1], dtype=torch.bool).triu(1)
            x = x + self.attention(h, h, h, attn_mask=mask, need_weights=False)[0]
        x = x + self.mlp(x)
        return {"logits": self.head(x)}


def words():
    drawn = torch.randint(0, 11, (16, 8), generator=torch.Generator().manual_seed(0))
    drawn[:, 4:] = drawn[:, :4]  # the second half repeats the first
    return drawn


def loss_of(net, batch):
    return F.cross_entropy(net(batch)["logits"][:, 3:-1].flatten(0, 1), batch[:, 4:].flatten())


@pytest.mark.parametrize("own_attention", [True, False])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_transformer_trains_with_adamw(own_attention, rounding):
    torch.manual_seed(0)
    net = low_precision(Transformer(own_attention), "1-4-3/1-8-11", rounding=rounding, seed=0)
    optimizer = low_precision_optimizer(torch.optim.AdamW(net.parameters(), lr=1e-2), net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left out unsaid
        for _ in range(100):
            optimizer.zero_grad()
            loss = loss_of(net, words())
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.2
    net.eval()
    with torch.no_grad():
        assert loss_of(net, words()).item() < 0.3


def test_the_points_of_a_transformer():
    torch.manual_seed(0)
    net = low_precision(Transformer(), "1-4-3/1-8-11", seed=0)
    assert [str(point) for point in rounding_points(net, words())] == [
        "(module): add",
        "norm: layer_norm",
        "qkv: linear",
        "(module): scaled_dot_product_attention",
        "out: linear",
        "(module): add",
        "mlp.0: layer_norm",
        "mlp.1: linear",
        "mlp.2: gelu",
        "mlp.3: linear",
        "(module): add",
    ]


def test_torchs_own_encoder_layer_in_training_and_at_evaluation():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    net = low_precision(nn.TransformerEncoder(layer, 2), "1-4-3/1-8-11", rounding="nearest", seed=0)
    x = torch.randn(2, 5, 16)
    training = net(x).detach()
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(x), training)


class Deep(nn.Module):
    """Linear layers on three dimensions, whose results torch makes as views."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.second(F.gelu(self.norm(self.first(x))))


def test_three_dimensions_equal_the_network_written_out():
    torch.manual_seed(0)
    plain = Deep()
    net = low_precision(copy.deepcopy(plain), "1-4-2/1-6-7", rounding="nearest", seed=0)
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    ours = net(x)
    plain.load_state_dict(net.state_dict())
    twin = plain.second(rounded(F.gelu(rounded(plain.norm(rounded(plain.first(rounded(x))))))))
    assert torch.equal(ours, twin)
    for result in (ours, twin):
        (result * torch.arange(4)).sum().backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


class Branching(nn.Module):
    """Goes one way or the other by what it computes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = self.a(x)
        return self.b(y) if float(y.detach().sum()) > 0 else self.b(F.relu(-y))


def test_a_forward_that_depends_on_data_runs_and_rounds_either_way():
    torch.manual_seed(0)
    net = low_precision(Branching(), "1-3-1/1-6-7", rounding="nearest", seed=0)
    fmt, seen = FloatFormat.parse("1-3-1"), []
    net.b.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    for sign in (1, -1):
        net(sign * x)
    assert all(set(value.flatten().tolist()) <= set(fmt.values().tolist()) for value in seen)
    assert len(seen) == 2


def test_a_parameter_of_another_module_is_refused_by_the_names_of_both():
    net = low_precision(nn.Linear(3, 3), "1-4-1/1-6-7")
    foreign = nn.Linear(2, 2)
    with pytest.raises(NetworkError, match=r"SGD holds a parameter that is not one of Linear's"):
        low_precision_optimizer(torch.optim.SGD([*net.parameters(), *foreign.parameters()], lr=0.1), net)
    with pytest.raises(NetworkError, match="LBFGS"):
        low_precision_optimizer(torch.optim.LBFGS(net.parameters()), net)


def test_a_converted_module_that_shares_parameters_with_another_says_so():
    outer = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    outer["b"].weight = outer["a"].weight
    net = low_precision(outer["a"], "1-4-1/1-6-7")
    with pytest.raises(NetworkError, match="already"):
        low_precision(outer, "1-4-1/1-6-7")
    assert net is outer["a"]


def test_a_network_is_converted_in_inference_mode_too():
    """What is asked of torch at the first conversion takes a backward pass."""
    uses_in_hook.cache_clear()
    network = torch.nn.Linear(2, 2)
    with torch.inference_mode():
        low_precision(network, "1-4-1/1-6-7", seed=0)
    found = uses_in_hook()
    uses_in_hook.cache_clear()
    assert found == uses_in_hook()
