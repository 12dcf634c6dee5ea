"""Tensors in containers: whatever holds them, they are found and replaced in one order."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

import peppp
from peppp.lowprec.network.nested import mapped, mapped_alike, tensors_in

Two = namedtuple("Two", "a b")


class Own(tuple):
    __slots__ = ()


leaves = st.integers(0, 99).map(lambda n: torch.tensor([n])) | st.sampled_from(
    [None, 3, "text", torch.float32]
)
containers = st.recursive(
    leaves,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.lists(parts, max_size=3).map(Own)
        | st.tuples(parts, parts).map(lambda pair: Two(*pair))
        | st.dictionaries(st.text(max_size=2), parts, max_size=3).map(OrderedDict)
        | st.just(torch.max(torch.eye(2), 0))  # torch's own named results
    ),
    max_leaves=8,
)


@given(containers)
def test_tensors_are_replaced_in_the_order_in_which_they_are_found(values):
    found = tensors_in((values,), [])
    for walk in (mapped, mapped_alike):
        visited = []
        made = walk((values,), lambda x, visited=visited: visited.append(x) or x + 1)
        assert [id(x) for x in visited] == [id(x) for x in found]
        again = tensors_in(made, [])
        assert len(again) == len(found)
        assert all(torch.equal(new, old + 1) for new, old in zip(again, found, strict=True))
        assert isinstance(made[0], type(values)) or isinstance(values, dict)


class Branches(nn.Module):
    """Gives a checkpointed function a container of tensors, and then one tensor twice."""

    def __init__(self, pack, again):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.pack, self.again = pack, again

    def branch(self, pair, x, y):
        a, b = pair.values() if isinstance(pair, dict) else pair
        return torch.tanh(self.second(a * 1.5 + x * x)) + b * y.sin()

    def forward(self, x):
        h = self.first(x)
        pair = self.pack(h.tanh(), h.sigmoid())
        if not self.again:
            return self.branch(pair, h, h)
        return checkpoint(self.branch, pair, h, h, use_reentrant=False)


@pytest.mark.parametrize("precision", ["1-4-3/1-6-7", "amp-bf16"])
@pytest.mark.parametrize(
    "pack",
    [lambda a, b: (a, b), lambda a, b: [a, b], Two, lambda a, b: Own((a, b)), lambda a, b: {"a": a, "b": b}],
)
def test_a_checkpointed_function_gets_its_tensors_back_from_any_container(pack, precision):
    def gradients(again):
        torch.manual_seed(0)
        net = peppp.low_precision(Branches(pack, again), precision, seed=1)
        net(torch.randn(8, 4)).square().mean().backward()
        return [p.grad for p in net.parameters()]

    for plain, again in zip(gradients(again=False), gradients(again=True), strict=True):
        assert torch.equal(plain, again)
