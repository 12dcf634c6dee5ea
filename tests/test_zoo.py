"""What people train, re-created small: judged by an oracle, packed as simulated, saved and resumed."""

import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from oracle import judge
from peppp.lowprec.conversion import low_precision
from peppp.lowprec.optimizers import low_precision_optimizer
from zoo import ZOO


def made(name, rounding, storage):
    torch.manual_seed(0)
    net = low_precision(ZOO[name][0](), "1-4-1/1-6-7", rounding=rounding, seed=3)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    return net, low_precision_optimizer(optimizer, net, storage=storage)


def train(net, optimizer, name, first, steps):
    torch.manual_seed(first)  # of dropout
    for step in range(first, first + steps):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is reported is another test's
            outputs = net(ZOO[name][1](step))
        F.cross_entropy(outputs, torch.arange(6) % 3).backward()
        optimizer.step()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ZOO)
def test_every_operand_is_of_format_a_or_named(name, rounding):
    torch.manual_seed(0)
    kind, inputs = ZOO[name]
    bad, _, results = judge(kind(), [inputs(0)], rounding=rounding)
    assert not bad
    assert results.shape[0] == 6


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ZOO)
def test_packed_is_simulated_and_goes_on_after_saving(name, rounding, tmp_path):
    whole = {storage: made(name, rounding, storage) for storage in ("simulated", "packed")}
    for net, optimizer in whole.values():
        train(net, optimizer, name, 0, 3)
    weights = {storage: net.state_dict() for storage, (net, _) in whole.items()}
    assert all(torch.equal(weights["packed"][key], value) for key, value in weights["simulated"].items())
    assert all(value.isfinite().all() for value in weights["simulated"].values())
    for storage, (net, optimizer) in whole.items():
        again, its_optimizer = made(name, rounding, storage)
        torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
        weights, state = torch.load(tmp_path / "state.pt")
        again.load_state_dict(weights)
        its_optimizer.load_state_dict(state)
        train(again, its_optimizer, name, 3, 2)
        train(net, optimizer, name, 3, 2)
        one, other = again.state_dict(), net.state_dict()
        assert all(torch.equal(one[key], value) for key, value in other.items())
