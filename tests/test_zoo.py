"""What people train, re-created small: judged by an oracle, packed as simulated, saved and resumed."""

import warnings
from pathlib import Path

import pytest
import torch

from oracle import judge
from zoo import ZOO, made, table, train

PAGE = Path(__file__).parents[1] / "docs" / "numbers.md"


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ZOO)
def test_every_operand_is_of_format_a_or_named(name, rounding):
    torch.manual_seed(0)
    kind, inputs = ZOO[name]
    bad, _, results = judge(kind(), [inputs(0)], rounding=rounding)
    assert not bad
    assert results.shape[0] == 6


@pytest.mark.filterwarnings("ignore:not rounded to low precision")  # what is reported is another test's
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
        state, optimizer_state = torch.load(tmp_path / "state.pt")
        again.load_state_dict(state)
        its_optimizer.load_state_dict(optimizer_state)
        train(again, its_optimizer, name, 3, 2)
        train(net, optimizer, name, 3, 2)
        one, other = again.state_dict(), net.state_dict()
        assert all(torch.equal(one[key], value) for key, value in other.items())


def test_the_table_of_the_zoo_in_the_docs_is_current():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = table()
    assert "\n".join(lines) in PAGE.read_text()
