"""Training in every way people train: right, the same in both storages, or refused in one line of ours."""

import copy
import os
import re
import warnings
from itertools import chain

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.utils import checkpoint as checkpointing
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import peppp
from peppp.errors import NetworkError
from peppp.formats import parse_format
from peppp.lowprec.network import recomputed
from peppp.lowprec.rounding.quantize import quantize

STORAGES = ["simulated", "packed"]
ROUNDINGS = ["nearest", "stochastic"]
A, B = parse_format("1-4-1"), parse_format("1-6-7")


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


def converted(make=mlp, rounding="stochastic", configuration="1-4-1/1-6-7", **options):
    torch.manual_seed(0)
    return peppp.low_precision(make(), configuration, rounding=rounding, seed=7, **options)


def sgd(net, parameters=None, lr=0.1, momentum=0.9, **options):
    base = torch.optim.SGD(list(parameters or net.parameters()), lr=lr, momentum=momentum)
    return peppp.low_precision_optimizer(base, net, **options)


def step(net, *optimizers, x=None, seed=1):
    x = draw(6, 6, seed=seed) if x is None else x
    for optimizer in optimizers:
        optimizer.zero_grad()
    F.cross_entropy(net(x), torch.arange(len(x)) % 3).backward()
    for optimizer in optimizers:
        optimizer.step()


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return len(one) == len(other) and all(torch.equal(one[name], value) for name, value in other.items())


def of_a(net):
    return all(torch.equal(quantize(v, A), v) for v in net.state_dict().values())


@pytest.mark.case("D")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("frozen", ["by requires_grad", "by the optimizer"])
def test_frozen_parameters_are_of_format_a_in_both_storages(frozen, rounding):
    found = []
    for storage in STORAGES:
        net = converted(rounding=rounding)
        before = quantize(net[0].weight.detach(), A)
        if frozen == "by requires_grad":
            net[0].requires_grad_(False)
        optimizer = sgd(net, net[2].parameters(), storage=storage)
        for k in range(3):
            step(net, optimizer, seed=k)
        assert of_a(net)
        assert torch.equal(net.state_dict()["0.weight"], before)
        if storage == "packed":
            assert all(p.untyped_storage().nbytes() == 4 for p in net.parameters())
        found.append(weights(net))
    assert same(*found)


@pytest.mark.case("D")
def test_without_an_optimizer_the_first_pass_rounds_parameters():
    net = converted()
    assert not of_a(net)
    net(draw(2, 6))
    assert of_a(net)


WRITES = {
    "load_state_dict": lambda net, new: net.load_state_dict(new),
    "copy_": lambda net, new: [p.copy_(v) for p, v in zip(net.parameters(), new.values(), strict=True)],
    "data.copy_": lambda net, new: [
        p.data.copy_(v) for p, v in zip(net.parameters(), new.values(), strict=True)
    ],
    "data =": lambda net, new: [
        setattr(p, "data", v.clone()) for p, v in zip(net.parameters(), new.values(), strict=True)
    ],
    "vector_to_parameters": lambda net, new: nn.utils.vector_to_parameters(
        torch.cat([v.flatten() for v in new.values()]), net.parameters()
    ),
}


@pytest.mark.case("E")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("accumulator", [True, False])
@pytest.mark.parametrize("write", WRITES)
def test_weights_written_later_are_the_weights_and_accumulators_follow(write, accumulator, rounding):
    torch.manual_seed(5)
    new = mlp().state_dict()
    net = converted(rounding=rounding)
    optimizer = sgd(net, lr=0.0, momentum=0.0, accumulator=accumulator)
    for k in range(2):
        step(net, optimizer, seed=k)
    with torch.no_grad():
        WRITES[write](net, new)
    step(net, optimizer)
    nearby = 1.01 if rounding == "stochastic" else 0.51
    for p, v in zip(net.parameters(), new.values(), strict=True):
        assert torch.equal(quantize(p.detach(), A), p.detach())
        spacing = torch.maximum(v.abs() / 2, torch.tensor(A.min_subnormal))
        assert ((p - v).abs() <= nearby * 2 * spacing).all()
        if accumulator:
            assert ((optimizer.accumulators[p] - v).abs() <= 2**-6 * v.abs() + B.min_subnormal).all()


@pytest.mark.case("E")
@pytest.mark.parametrize("storage", STORAGES)
def test_weights_of_format_a_that_are_loaded_stay_what_they_are(storage):
    net = converted()
    optimizer = sgd(net, lr=0.0, storage=storage)
    new = {name: torch.full_like(v, 0.75) for name, v in weights(net).items()}
    net.load_state_dict(new)
    for k in range(2):
        step(net, optimizer, seed=k)
        assert same(weights(net), new)


@pytest.mark.case("E")
def test_weights_that_a_loop_clips_after_each_step_stay_clipped():
    net = converted(rounding="nearest")
    optimizer = sgd(net, lr=0.5)
    for k in range(4):
        step(net, optimizer, seed=k)
        for p in net.parameters():
            p.data.clamp_(-0.25, 0.25)
        net(draw(6, 6))  # up to 0.3125 is 0.25 in Format A
        assert all(accumulator.abs().max() <= 0.3125 for accumulator in optimizer.accumulators.values())


@pytest.mark.case("E")
@pytest.mark.parametrize("first", ["weights", "optimizer"])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_training_resumes_in_either_order(storage, first, tmp_path):
    net = converted()
    optimizer = sgd(net, storage=storage)
    for k in range(2):
        step(net, optimizer, seed=k)
    torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    step(net, optimizer, seed=5)
    again = converted()
    its_optimizer = sgd(again, storage=storage)
    for k in range(3):  # somewhere else
        step(again, its_optimizer, seed=10 + k)
    state, optimizer_state = torch.load(tmp_path / "state.pt")
    loads = [lambda: again.load_state_dict(state), lambda: its_optimizer.load_state_dict(optimizer_state)]
    for load in loads if first == "weights" else reversed(loads):
        load()
    step(again, its_optimizer, seed=5)
    assert same(weights(again), weights(net))


@pytest.mark.case("E")
def test_averaged_weights_are_evaluated_in_format_a_and_keep_their_own_numbers():
    net = converted(rounding="nearest")
    optimizer = sgd(net)
    averaged = torch.optim.swa_utils.AveragedModel(net, avg_fn=lambda a, p, _: a + 0.25 * (p - a))
    seen = []
    averaged.module[2].register_forward_pre_hook(lambda m, _: seen.append(m.weight.detach().clone()))
    expected = [p.detach().clone() for p in net.parameters()]
    for k in range(4):
        step(net, optimizer, seed=k)
        averaged.update_parameters(net)
        now = [p.detach() for p in net.parameters()]
        expected = now if k == 0 else [a + 0.25 * (p - a) for a, p in zip(expected, now, strict=True)]
        expected = [e.clone() for e in expected]
        with torch.no_grad():
            averaged.eval()(draw(6, 6))
        assert all(torch.equal(p, e) for p, e in zip(averaged.module.parameters(), expected, strict=True))
        assert torch.equal(seen[-1], quantize(expected[2], A))


@pytest.mark.case("E")
def test_weights_lent_for_an_evaluation_leave_accumulators_alone():
    plain, lent = (converted(rounding="stochastic") for _ in range(2))
    optimizers = sgd(plain), sgd(lent)
    for k in range(3):
        step(plain, optimizers[0], seed=k)
        step(lent, optimizers[1], seed=k)
        kept = [p.detach().clone() for p in lent.parameters()]
        for p in lent.parameters():
            p.data.copy_(draw(*p.shape))
        with torch.no_grad():
            lent(draw(6, 6))
        for p, value in zip(lent.parameters(), kept, strict=True):
            p.data.copy_(value)
    assert same(weights(plain), weights(lent))


@pytest.mark.case("F")
@pytest.mark.parametrize("gradients", ["fp32", "packed", "in_backward"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_two_optimizers_of_one_network(gradients, rounding):
    found = []
    for storage in STORAGES:
        net = converted(rounding=rounding)
        options = {"storage": storage, "gradients": gradients}
        both = (
            sgd(net, net[0].parameters(), **options),
            sgd(net, [*net[2].parameters(), *net[4].parameters()], **options),
        )
        before = weights(net)
        for k in range(3):
            step(net, *both, seed=k)
        assert all(
            not torch.equal(before[name], value) for name, value in weights(net).items() if "weight" in name
        )
        found.append(weights(net))
    assert same(*found)


@pytest.mark.case("F")
def test_optimizers_of_one_network_share_its_storage():
    net = converted()
    kept = sgd(net, net[0].parameters(), storage="packed")
    with pytest.raises(NetworkError, match="storage"):
        sgd(net, net[2].parameters())
    del kept


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.BatchNorm1d(6)

    def middle(self, h):
        return self.b(torch.tanh(self.norm(self.a(h))))

    def forward(self, h):
        return h + self.middle(F.relu(h))


def kept(function, *args, form):
    return function(*args) if form is None else checkpoint(function, *args, use_reentrant=form)


RECOMPUTED = {
    "a module": lambda net, h, form: kept(net.block, h, form=form),
    "a module twice": lambda net, h, form: kept(net.block, kept(net.block, h, form=form), form=form),
    "a method": lambda net, h, form: kept(net.block.middle, h, form=form),
    "a lambda": lambda net, h, form: kept(lambda t: net.block(t) * 0.7, h, form=form),
    "a leaf": lambda net, h, form: kept(net.block.a, h, form=form),
    "a relu first": lambda net, h, form: kept(lambda t: net.block(F.relu(t)), h, form=form),
    "a residual": lambda net, h, form: h + kept(net.block, h, form=form),
    "a view of a sum": lambda net, h, form: kept(lambda t: (net.block(t) + t).view(2, 18), h, form=form).view(
        6, 6
    ),
    "nested": lambda net, h, form: kept(lambda t: kept(net.block, t, form=form) * 0.7, h, form=form),
    "dropout": lambda net, h, form: kept(lambda t: F.dropout(net.block(t), 0.3), h, form=form),
    "two results": lambda net, h, form: sum(kept(lambda t: (net.block(t), t * 0.3), h, form=form)),
    "softmax": lambda net, h, form: kept(lambda t: net.block.a(t).softmax(1), h, form=form),
    "in place": lambda net, h, form: kept(
        lambda t: F.silu(net.block.a(t), inplace=True).mul_(0.7), h, form=form
    ),
    "a sequence": lambda net, h, form: (
        net.row(h) if form is None else checkpoint_sequential(net.row, 2, h, use_reentrant=form)
    ),
    "an argument in another layout": lambda net, h, form: kept(net.block, h.t() + h.t() * 0.7, form=form),
    "sequences in a sequence": lambda net, h, form: (
        net.rows(h)
        if form is None
        else checkpoint_sequential(list(chain(*net.rows)), 2, h, use_reentrant=form)
    ),
    "each of the sequences in a sequence": lambda net, h, form: (
        net.rows(h)
        if form is None
        else net.rows[2](checkpoint_sequential(list(chain(*net.rows[:2])), 2, h, use_reentrant=form))
    ),
}


@pytest.mark.case("G")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("what", RECOMPUTED)
def test_recomputed_parts_give_the_gradients_of_the_run_without(what, rounding):
    class Net(nn.Module):
        def __init__(self, form):
            super().__init__()
            self.first, self.block, self.last, self.form = nn.Linear(6, 6), Block(), nn.Linear(6, 3), form
            self.row = nn.Sequential(nn.Linear(6, 6), Block(), nn.ReLU(), Block(), nn.Linear(6, 6))
            self.rows = nn.Sequential(
                nn.Sequential(nn.Linear(6, 6), Block(), nn.Linear(6, 6)),
                nn.Sequential(Block(), nn.Linear(6, 6), nn.Tanh()),
                nn.Sequential(nn.Linear(6, 6)),
            )

        def forward(self, x):
            return self.last(RECOMPUTED[what](self, self.first(x), self.form))

    found = []
    for storage in STORAGES:
        for form in (None, False, True):
            net = converted(lambda form=form: Net(form), rounding)
            optimizer = sgd(net, storage=storage)
            for k in range(2):
                torch.manual_seed(k)
                step(net, optimizer, seed=k)
            found.append(weights(net))
    assert all(value.isfinite().all() for value in found[0].values())
    assert all(same(found[0], other) for other in found[1:])


@pytest.mark.parametrize("form", [None, False, True])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("what", ["a divisor", "a parameter"])
def test_looking_for_infinity_leaves_nothing_behind_in_either_storage(what, storage, form):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 40), nn.Linear(40, 3)
            self.high = nn.Parameter(torch.full((40,), 300.0))

        def scaled(self, h):
            if what == "a parameter":
                return h * torch.exp(self.high)
            centred = h - h.mean(1, keepdim=True)
            return centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) * 0 + 1e-12)

        def forward(self, x):
            return self.last(kept(self.scaled, self.first(x), form=form))

    name = {"a divisor": "div", "a parameter": "exp"}[what]
    net = converted(Net, "nearest")
    optimizer = sgd(net, storage=storage)
    with pytest.warns(UserWarning, match=f"{name} gave infinity or NaN from finite numbers"):
        step(net, optimizer)
    step(net, optimizer)
    expected = {name: tuple(value.shape) for name, value in Net().state_dict().items()}
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected


@pytest.mark.case("G")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("storage", STORAGES)
def test_wrappers_that_recompute_take_no_part_in_the_random_bits(storage, rounding):
    found = []
    for when in ("never", "before", "after"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 6), Block(), nn.Sequential(Block(), nn.ReLU()), nn.Linear(6, 3))
        wrap = lambda net=net: apply_activation_checkpointing(net, check_fn=lambda m: isinstance(m, Block))  # noqa: E731
        if when == "before":
            wrap()
        peppp.low_precision(net, "1-4-1/1-6-7", rounding=rounding, seed=7)
        if when == "after":
            wrap()
        optimizer = sgd(net, storage=storage)
        for k in range(2):
            step(net, optimizer, seed=k)
        found.append(list(weights(net).values()))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*found, strict=True))


@pytest.mark.case("G")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("form", [False, True])
def test_a_network_that_is_recomputed_as_a_whole(form, rounding):
    found = []
    for recompute in (False, True):
        net = converted(rounding=rounding)
        optimizer = sgd(net)
        for k in range(2):
            x = draw(6, 6, seed=k).requires_grad_()
            optimizer.zero_grad()
            y = checkpoint(net, x, use_reentrant=form) if recompute else net(x)
            F.cross_entropy(y, torch.arange(6) % 3).backward()
            optimizer.step()
        found.append(weights(net))
    assert same(*found)


class Reversible(torch.autograd.Function):
    """Runs its block again in the backward pass, by hand."""

    @staticmethod
    def forward(ctx, x, block, *parameters):
        ctx.block = block
        ctx.save_for_backward(x)
        return block(x)

    @staticmethod
    def backward(ctx, error):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.block(x)
        gradients = torch.autograd.grad(y, [x, *ctx.block.parameters()], error)
        return gradients[0], None, *gradients[1:]


@pytest.mark.case("G")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    "inner", [nn.Linear, lambda a, b: nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Linear(b, b))]
)
def test_a_function_that_runs_its_block_again(inner, rounding):
    class Net(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.first, self.block, self.last, self.again = (
                nn.Linear(6, 6),
                inner(6, 6),
                nn.Linear(6, 3),
                again,
            )

        def forward(self, x):
            h = self.first(x)
            h = Reversible.apply(h, self.block, *self.block.parameters()) if self.again else self.block(h)
            return self.last(h)

    found = []
    for storage in STORAGES:
        for again in (False, True):
            net = converted(lambda again=again: Net(again), rounding)
            optimizer = sgd(net, storage=storage)
            for k in range(2):
                step(net, optimizer, seed=k)
            found.append(weights(net))
    assert all(value.isfinite().all() for value in found[0].values())
    assert all(same(found[0], other) for other in found[1:])


@pytest.mark.case("G")
def test_the_private_names_of_torch_that_recomputation_hangs_on_are_there():
    converted()
    assert checkpointing.CheckpointFunction.__mro__[1].__name__ == "CheckpointFunction"
    for name in ("_current_graph_task_id", "_get_tracing_state", "_storage_Use_Count"):
        assert callable(getattr(torch._C, name))
    assert torch._C._functorch.peek_interpreter_stack() is None
    assert torch.autograd.forward_ad._current_level == -1
    memory = torch.ones(2).untyped_storage()
    memory.note = 1
    assert torch.ones(0).set_(memory).untyped_storage().note == 1


@pytest.mark.case("G")
@pytest.mark.parametrize("reentrant", [False, True])
def test_torch_s_checkpointing_goes_through_ours(monkeypatch, reentrant):
    seen, wrap = [], recomputed.repeatable

    def noted(function, args, **how):
        seen.append((function, how.get("reentrant", False)))
        return wrap(function, args, **how)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    net = converted(Net)
    monkeypatch.setattr(recomputed, "repeatable", noted)
    net(draw(6, 4).requires_grad_()).sum().backward()
    assert seen == [(net.inner, reentrant)]


class Critic(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(4, 8), nn.Linear(8, 1), activation

    def forward(self, x):
        return self.b(self.activation(self.a(x)))


def penalty(net, x):
    (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return (g.norm(dim=1) - 1).square().mean()


class Through(torch.autograd.Function):
    """Nearest forward and, differentiably, backward."""

    @staticmethod
    def forward(ctx, x, fmt):
        ctx.fmt = fmt
        return quantize(x, fmt)

    @staticmethod
    def backward(ctx, g):
        return Through.apply(g, ctx.fmt), None


@pytest.mark.case("H")
@pytest.mark.parametrize(
    "activation", [nn.Tanh(), nn.ReLU(), nn.GELU(), nn.Softplus()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("text", ["1-8-20", "1-5-6", "1-4-3"])
def test_a_gradient_penalty_equals_the_network_written_out(activation, text):
    fmt = parse_format(text)
    torch.manual_seed(0)
    twin = Critic(copy.deepcopy(activation))
    net = peppp.low_precision(copy.deepcopy(twin), f"{text}/1-8-11", rounding="nearest", seed=0)
    for p in twin.parameters():
        p.data = quantize(p.data, fmt)

    def by_hand(x):
        h = Through.apply(twin.a(Through.apply(x, fmt)), fmt)
        h = twin.activation(h)
        return twin.b(h if isinstance(activation, nn.ReLU) else Through.apply(h, fmt))

    x = draw(8, 4).requires_grad_()
    one, other = penalty(net, x), penalty(by_hand, x)
    assert torch.equal(one, other)
    for value in (one, other):
        value.backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        if q.grad is not None:
            assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.case("H")
@pytest.mark.parametrize("error_format", ["A", "fp32"])
def test_a_gradient_penalty_of_a_packed_network_is_refused(error_format):
    net = converted(lambda: Critic(nn.Tanh()), error_format=error_format)
    sgd(net, storage="packed")
    with pytest.raises(NetworkError, match="create_graph"):
        penalty(net, draw(8, 4).requires_grad_())


@pytest.mark.case("J")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("storage", STORAGES)
def test_inference_mode_equals_no_grad(storage, rounding):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.body = (
                nn.Embedding(5, 6),
                nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.SiLU(True)),
            )

        def forward(self, words, x):
            return self.body(self.words(words) + x).softmax(1)

    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        net = converted(Net, rounding)
        kept_alive = sgd(net, storage=storage)
        net.eval()
        with mode():
            found.append(net(torch.arange(5), draw(5, 6) * 1.0) + 0)
        del kept_alive
    assert torch.equal(*found)


@pytest.mark.case("K")
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_group_added_later_is_trained_like_the_others(kind, rounding):
    found = []
    for storage in STORAGES:
        net = converted(rounding=rounding)
        optimizer = peppp.low_precision_optimizer(kind(net[4].parameters(), lr=0.1), net, storage=storage)
        step(net, optimizer)
        before = weights(net)
        optimizer.add_param_group({"params": net[0].parameters(), "lr": 0.5})
        optimizer.add_param_group({"params": net[2].weight})
        for k in range(2):
            step(net, optimizer, seed=k)
        assert not torch.equal(before["0.weight"], net.state_dict()["0.weight"])
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 0.1]
        found.append(weights(net))
        assert of_a(net)
    assert same(*found)
    with pytest.raises(NetworkError, match="not one of the converted module"):
        optimizer.add_param_group({"params": nn.Linear(2, 2).parameters()})


@pytest.mark.case("K")
@pytest.mark.parametrize("storage", STORAGES)
def test_groups_and_their_accumulators_resume(storage):
    net = converted()
    optimizer = sgd(net, net[4].parameters(), storage=storage)
    optimizer.add_param_group({"params": net[0].parameters()})
    step(net, optimizer)
    state = copy.deepcopy([net.state_dict(), optimizer.state_dict()])
    step(net, optimizer, seed=3)
    again = converted()
    other = sgd(again, again[4].parameters(), storage=storage)
    other.add_param_group({"params": again[0].parameters()})
    again.load_state_dict(state[0])
    other.load_state_dict(state[1])
    step(again, other, seed=3)
    assert same(weights(again), weights(net))


@pytest.mark.case("L")
@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_other_number_types_are_refused_at_conversion_and_later(dtype):
    with pytest.raises(NetworkError, match=r"0\.weight is .*convert the network with \.float\(\) first"):
        peppp.low_precision(mlp().to(dtype), "1-4-1/1-6-7")
    later = converted().to(dtype)
    with pytest.raises(NetworkError, match=r"0\.weight is"):
        later(draw(2, 6))
    if dtype.is_floating_point:
        with pytest.raises(NetworkError, match=r"an input is .*give it \.float\(\)"):
            converted()(draw(2, 6).to(dtype))


@pytest.mark.case("L")
def test_autocast_tracing_compiling_and_transforms_are_refused_in_one_line():
    net, x = converted(), draw(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(NetworkError, match="autocast"):
        net(x)
    with torch.autocast("cpu", enabled=False):
        net(x)
    with pytest.raises(NetworkError, match=r"torch\.func"):
        torch.vmap(net)(x)
    with pytest.raises(NetworkError, match=r"torch\.func"):
        torch.func.jvp(net, (x,), (x,))
    with pytest.raises(NetworkError, match=r"torch\.func"):
        torch.func.grad(lambda t: net(t).sum())(x)
    with pytest.raises(NetworkError, match="traced or compiled"):
        torch.jit.trace(net, x)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NetworkError, match="forward-mode"):
        net(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.case("L")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_is_refused_and_runs_on_without():
    net, x = converted(rounding="nearest"), draw(2, 6)
    expected = net(x)
    with pytest.raises(NetworkError, match="compiled"):
        torch.compile(net, backend="eager")(x)
    assert torch.equal(net(x), expected)


@pytest.mark.case("L")
def test_an_exported_network_is_refused_and_runs_on_without():
    net, x = converted(rounding="nearest"), draw(2, 6)
    expected = net(x)
    with pytest.raises(NetworkError, match=r"leave out torch.compile, torch.export and torch.jit.trace"):
        torch.export.export(net, (x,))
    assert torch.equal(net(x), expected)


@pytest.mark.case("N")
@pytest.mark.parametrize("storage", STORAGES)
def test_sparse_gradients_are_refused_before_training(storage):
    net = converted(lambda: nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2)))
    with pytest.raises(NetworkError, match="sparse"):
        sgd(net, storage=storage)


@pytest.mark.case("N")
@pytest.mark.parametrize("storage", STORAGES)
def test_sparse_gradients_of_a_function_are_refused_before_anything_moves(storage):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(F.embedding(x, self.words, sparse=True))

    net = converted(Net)
    optimizer = sgd(net, momentum=0.0, storage=storage)
    before = weights(net)

    def step():
        net(torch.tensor([1, 2])).sum().backward()
        optimizer.step()

    with pytest.raises(NetworkError, match="sparse gradient"):
        step()
    assert same(before, weights(net))


@pytest.mark.case("Q")
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_scaler_and_clipping_are_right_in_a_loop_of_one_s_own(rounding):
    found = []
    for storage in STORAGES:
        net = converted(rounding=rounding)
        optimizer = sgd(net, storage=storage)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for k in range(3):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(net(draw(6, 6, seed=k)), torch.arange(6) % 3)).backward()
            scaler.unscale_(optimizer)
            assert nn.utils.clip_grad_norm_(net.parameters(), 0.1) > 0.1
            nn.utils.clip_grad_value_(net.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
        found.append(weights(net))
    assert same(*found)


@pytest.mark.case("Q")
@pytest.mark.parametrize("gradients", ["in_backward", "packed"])
@pytest.mark.parametrize(
    "use",
    [
        lambda net: nn.utils.clip_grad_norm_(net.parameters(), 1.0),
        lambda net: nn.utils.clip_grad_value_(net.parameters(), 1.0),
        lambda net: [p.grad.abs().max() for p in net.parameters()],
        lambda net: net[0].weight.grad.mul_(0.5),
        lambda net: float(net[0].weight.grad.sum()),
        lambda net: torch.autograd.graph and net[0].weight.grad.data,
    ],
)
def test_gradients_that_are_not_kept_refuse_to_be_used(use, gradients):
    net = converted()
    optimizer = sgd(net, storage="packed", gradients=gradients)
    F.cross_entropy(net(draw(6, 6)), torch.arange(6) % 3).backward()
    with pytest.raises(NetworkError, match="gradients='fp32'"):
        use(net)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    step(net, optimizer)


@pytest.mark.case("Q")
def test_a_scaled_loss_of_steps_in_the_backward_pass_is_refused_before_anything_moves():
    net = converted()
    optimizer = sgd(net, storage="packed", gradients="in_backward")
    before = weights(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with pytest.raises(NetworkError, match="GradScaler"):
        scaler.scale(net(draw(6, 6)).sum()).backward()
    assert same(before, weights(net))
    other = nn.Linear(6, 3)  # another network may use one
    scaler.scale(other(draw(6, 6)).sum()).backward()
    off = torch.amp.GradScaler("cpu", enabled=False)
    off.scale(net(draw(6, 6)).sum()).backward()
    del optimizer


@pytest.mark.case("AH")
@pytest.mark.parametrize(
    "use",
    [
        lambda net: [p.detach().clone() for p in net.parameters()],
        lambda net: net[0].weight.sum(),
        lambda net: {n: p.data for n, p in net.named_parameters()},
        lambda net: nn.utils.parameters_to_vector(net.parameters()),
        lambda net: torch.optim.swa_utils.AveragedModel(net).update_parameters(net),
        lambda net: float(net[0].bias[0]),
        lambda net: net[0].weight.tolist(),
        lambda net: net[0].weight.numpy(),
        lambda net: F.linear(draw(2, 6), net[0].weight),
        lambda net: sum(p.square().sum() for p in net.parameters()),
        lambda net: copy.deepcopy(net)[0].weight + 0,
        lambda net: torch.norm(net[0].weight),
        lambda net: net.double(),
        lambda net: torch.equal(net[0].weight, net[0].weight),
    ],
)
def test_packed_parameters_refuse_to_be_read(use):
    net = converted()
    optimizer = sgd(net, storage="packed")
    before = weights(net)
    with pytest.raises(NetworkError, match=r"packed parameter has no numbers.*state_dict\(\) gives them"):
        use(net)
    assert same(before, weights(net))
    step(net, optimizer)


@pytest.mark.case("AH")
def test_packed_parameters_tell_what_needs_no_numbers():
    net = converted()
    optimizer = sgd(net, storage="packed")
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in mlp().parameters())
    assert net[0].weight.shape == (8, 6)
    assert net[0].weight.requires_grad
    assert isinstance(net[0].weight, nn.Parameter)
    assert "(8, 6)" in repr(net[0].weight)
    assert net.float().to("cpu") is net
    plain = nn.Parameter(torch.zeros(8, 6))
    facts = [name for name in dir(torch.Tensor) if re.fullmatch("is_[a-z]+(_csr)?", name)]
    for name in facts:
        told, expected = getattr(net[0].weight, name), getattr(plain, name)
        if name not in (
            "is_coalesced",
            "is_nonzero",
            "is_contiguous",
            "is_distributed",
            "is_same_size",
            "is_set_to",
        ):
            assert (told() if callable(told) else told) == (expected() if callable(expected) else expected)
    net.zero_grad()
    other = copy.deepcopy(net)
    assert same(weights(net), weights(other))
    step(net, optimizer)
    assert not same(weights(net), weights(other))


@pytest.mark.case("AO")
@pytest.mark.parametrize(
    "write",
    [
        lambda net: [p.data.copy_(torch.zeros(p.shape)) for p in net.parameters()],
        lambda net: nn.init.zeros_(net[0].weight),
        lambda net: net[0].reset_parameters(),
        lambda net: setattr(net[0].weight, "data", torch.zeros(8, 6)),
        lambda net: net[0].weight.detach().zero_(),
        lambda net: nn.utils.vector_to_parameters(torch.zeros(147), net.parameters()),
        lambda net: net.apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None),
    ],
)
def test_packed_parameters_refuse_to_be_written(write):
    net = converted()
    optimizer = sgd(net, storage="packed")
    before = weights(net)
    with (
        pytest.raises(NetworkError, match=r"packed parameter has no numbers.*load_state_dict\(\) sets them"),
        torch.no_grad(),
    ):
        write(net)
    assert same(before, weights(net))
    step(net, optimizer)


@pytest.mark.case("AO")
@pytest.mark.parametrize(
    "write",
    [
        lambda v: v.mul_(0.9),
        lambda v: v.copy_(torch.zeros_like(v)),
        lambda v: v.view(-1).zero_(),
        lambda v: v[0].add_(1.0),
        lambda v: v.data.lerp_(torch.zeros(v.shape), 0.1),
        lambda v: v.detach().fill_(0),
        lambda v: torch.add(v, 1, out=v),
    ],
)
def test_writing_into_the_state_of_a_packed_network_is_refused(write):
    net = converted()
    optimizer = sgd(net, storage="packed")
    with pytest.raises(NetworkError, match=r"copies of its weights.*load_state_dict"):
        write(net.state_dict()["0.weight"])
    del optimizer


@pytest.mark.case("AO")
def test_the_state_of_a_packed_network_can_be_read_saved_and_averaged_outside(tmp_path):
    net = converted()
    optimizer = sgd(net, storage="packed")
    average = {name: value.clone() for name, value in net.state_dict().items()}
    for k in range(2):
        step(net, optimizer, seed=k)
        for name, value in net.state_dict().items():
            average[name].lerp_(value, 0.5)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    loaded = torch.load(tmp_path / "w.pt")
    assert same(loaded, net.state_dict())
    assert all(type(value) is torch.Tensor for value in (*loaded.values(), *average.values()))
    assert all(type(value) is torch.Tensor for value in copy.deepcopy(net.state_dict()).values())
    net.load_state_dict(average)
    assert of_a(net)


@pytest.mark.case("AI")
def test_evaluations_under_stochastic_rounding_differ_and_how_to_get_one_that_repeats():
    net, x = converted().eval(), draw(32, 6)
    with torch.no_grad():
        assert not torch.equal(net(x), net(x))
        steady = peppp.low_precision(mlp(), "1-4-1/1-6-7", rounding="nearest").eval()
        steady.load_state_dict(net.state_dict())
        assert torch.equal(steady(x), steady(x))
    assert same(weights(steady), weights(net))


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 6)

    def encode(self, x):
        return self.encoder(x) * 0.7

    def forward(self, x):
        return self.decode(self.encode(x))

    def decode(self, h):
        return self.decoder(torch.tanh(h))

    def generate(self, count):
        return self.decode(torch.ones(count, 8))

    def training_step(self, x):
        return F.mse_loss(self(x), x) * 0.37

    def numbers(self):
        return sum(p.numel() for p in self.parameters())


@pytest.mark.case("AK")
@pytest.mark.parametrize("storage", STORAGES)
def test_other_methods_are_rounded_as_forward_is(storage):
    net, x = converted(Coder, "nearest"), draw(16, 6)
    optimizer = sgd(net, storage=storage)
    w = weights(net)
    q = lambda t: quantize(t, A)  # noqa: E731
    h = q(torch.tanh(q(F.linear(q(x), w["encoder.0.weight"], w["encoder.0.bias"])))) * 0.7
    encoded = net.encode(x)
    assert torch.equal(encoded, h)
    assert torch.equal(
        net.encoder(x), torch.tanh(q(F.linear(q(x), w["encoder.0.weight"], w["encoder.0.bias"])))
    )
    decoded = F.linear(q(torch.tanh(q(h))), w["decoder.weight"], w["decoder.bias"])
    assert torch.equal(net.decode(h), decoded)
    assert torch.equal(net(x), decoded)
    assert torch.equal(
        net.decoder(x[:, :6].repeat(1, 2)[:, :8]), F.linear(q(x.repeat(1, 2)[:, :8]), *list(w.values())[2:])
    )
    with pytest.warns(UserWarning, match="a tensor made on the way"):
        made = net.generate(2)
    assert torch.equal(made, F.linear(torch.tanh(torch.ones(2, 8)), *list(w.values())[2:]))
    assert net.numbers() == 6 * 8 + 8 + 8 * 6 + 6
    net.encode(x).square().sum().backward()
    optimizer.step()


@pytest.mark.case("AK")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("storage", STORAGES)
def test_a_method_that_calls_the_network_changes_nothing(storage, rounding):
    found = []
    for method in (False, True):
        net = converted(Coder, rounding)
        optimizer = sgd(net, storage=storage)
        for k in range(3):
            x = draw(16, 6, seed=k)
            optimizer.zero_grad()
            loss = net.training_step(x) if method else F.mse_loss(net(x), x) * 0.37
            loss.backward()
            assert net.numbers()
            optimizer.step()
        found.append([*weights(net).values(), loss.detach()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.case("AK")
def test_passes_of_other_methods_draw_bits_of_their_own():
    net, x = converted(Coder), draw(64, 6)
    assert not torch.equal(net.encode(x), net.encode(x))
    other = copy.deepcopy(net)
    assert torch.equal(net.encode(x), other.encode(x))  # a copy goes its own way
    assert other.encode.module is other


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_micro_batches_equal_in_both_storages(rounding):
    found = []
    for storage in STORAGES:
        net = converted(rounding=rounding)
        optimizer = sgd(net, storage=storage)
        for k in range(2):
            optimizer.zero_grad()
            for part in range(3):
                F.cross_entropy(net(draw(6, 6, seed=3 * k + part)), torch.arange(6) % 3).backward()
            optimizer.step()
        found.append(weights(net))
    assert same(*found)


def test_functional_call_rounds_the_parameters_it_is_given_and_passes_gradients():
    net, x = converted(rounding="nearest"), draw(6, 6)
    own = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    found = torch.func.functional_call(net, own, x)
    assert torch.equal(found, net(x))
    other = {name: (p.detach() * 1.3).requires_grad_() for name, p in own.items()}
    torch.func.functional_call(net, other, x).sum().backward()
    fresh = peppp.low_precision(mlp(), "1-4-1/1-6-7", rounding="nearest")
    fresh.load_state_dict({name: p.detach() for name, p in other.items()})
    fresh(x).sum().backward()
    for name, p in fresh.named_parameters():
        assert torch.equal(other[name].grad, p.grad)
    assert same(weights(net), {name: quantize(p.detach(), A) for name, p in own.items()})


def test_a_network_without_shapes_yet_is_refused():
    with pytest.raises(NetworkError, match=r"0\.weight has no shape yet; run the network once"):
        peppp.low_precision(nn.Sequential(nn.LazyLinear(4)), "1-4-1/1-6-7")


@pytest.mark.parametrize("storage", STORAGES)
def test_an_activation_may_serve_several_networks(storage):
    found = []
    for shared in (False, True):
        act = nn.Sigmoid()
        nets = [
            converted(lambda: nn.Sequential(nn.Linear(6, 9), act, nn.Dropout(0.2), nn.Linear(9, 3)))  # noqa: B023
            if shared
            else converted(
                lambda: nn.Sequential(nn.Linear(6, 9), nn.Sigmoid(), nn.Dropout(0.2), nn.Linear(9, 3))
            )
            for _ in range(2)
        ]
        optimizers = [sgd(net, storage=storage) for net in nets]
        for k in range(2):
            for net, optimizer in zip(nets, optimizers, strict=True):
                torch.manual_seed(k)
                step(net, optimizer, seed=k)
        found.append([weights(net) for net in nets])
    for one, other in zip(*found, strict=True):
        assert same(one, other)


def test_a_part_of_another_network_at_low_precision_is_refused():
    shared = nn.Linear(6, 6)
    kept_alive = peppp.low_precision(nn.Sequential(shared, nn.ReLU()), "1-4-1/1-6-7")
    with pytest.raises(NetworkError, match="another low-precision network"):
        peppp.low_precision(nn.Sequential(shared, nn.GELU()), "1-4-1/1-6-7")
    del kept_alive


def _replica(rank, folder, seeds, results):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.manual_seed(rank if seeds == "different" else 0)
    net = peppp.low_precision(mlp(), "1-4-1/1-6-7", seed=None if seeds == "different" else 7)
    optimizer = sgd(net)
    replica = nn.parallel.DistributedDataParallel(net)
    for k in range(3):
        step(replica, optimizer, x=draw(12, 6, seed=k)[rank::2])
    torch.save([net.state_dict(), list(optimizer.accumulators.values())], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    del results


@pytest.mark.parametrize("seeds", ["equal", "different"])
def test_replicas_in_two_processes_stay_equal(seeds, tmp_path):
    torch.multiprocessing.spawn(_replica, (str(tmp_path), seeds, None), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert same(one[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    assert of_a_dict(one[0])
    assert os.path.exists(tmp_path / "0.pt")


def of_a_dict(state):
    return all(torch.equal(quantize(v, A), v) for v in state.values())


def test_replicas_of_a_packed_network_are_refused(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        net = converted()
        optimizer = sgd(net, storage="packed")
        with pytest.raises(NetworkError, match="DistributedDataParallel need storage='simulated'"):
            nn.parallel.DistributedDataParallel(net)
        del optimizer
    finally:
        torch.distributed.destroy_process_group()
