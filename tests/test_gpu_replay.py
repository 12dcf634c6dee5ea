"""What a GPU replays, run on the CPU: the bits of the loop, whatever was trained before."""

import gc
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.lowprec.gpu import device
from peppp.lowprec.gpu.keytable import KeyTable, evaluation_roots, training_roots
from peppp.lowprec.rounding.streams import Clock, PathKey, mix, mix_words, signed64
from peppp.records import Outcome, Recipe
from peppp.tasks.dataset import cut
from peppp.tasks.readers import load
from peppp.training import exactness, graphs, loop, replay

RECIPE = Recipe(network="resnet8-w8", epochs=3, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="module")
def digits():
    return cut(load("digits"), train=100, test=500)


@pytest.fixture(autouse=True)
def captured():
    replay._replays.clear()
    yield replay._replays
    replay._replays.clear()


def equal(a, b, tolerance=0.0):
    assert (a.test_error, a.train_error, a.curve, a.outcome) == (
        b.test_error,
        b.train_error,
        b.curve,
        b.outcome,
    )
    for ours, theirs in zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=tolerance)


def test_one_captured_step_serves_all_configurations_bit_for_bit(digits, captured):
    for text in ("1-4-1/1-6-7", "1-5-3/1-8-11", "1-3-1/1-7-9", "1-4-1/1-6-7"):
        configuration = Configuration.parse(text)
        for seed in (0, 1):
            recipe = replace(RECIPE, learning_rate=0.01 * (seed + 1), epochs=1 + seed)
            expected = loop.train(digits, configuration, recipe, seed)
            equal(replay.train(digits, configuration, recipe, seed, device="cpu"), expected)
    assert len(captured) == 1


@pytest.mark.parametrize("text", ["fp32/fp32", "1-4-3@ocp/1-6-9@ieee"])
@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, epochs=1),
        replace(RECIPE, epochs=1, accumulator=False, optimizer_options=(), error_format="B"),
        replace(
            RECIPE,
            epochs=1,
            rounding="values=nearest,errors=nearest,gradient=stochastic,states=stochastic",
        ),
    ],
    ids=["default", "plain", "mixed"],
)
def test_recipes_and_rarer_formats(digits, text, recipe):
    configuration = Configuration.parse(text)
    replayed = replay.train(digits, configuration, recipe, 3, device="cpu")
    # torch's SGD, which runs without rounding, may fuse a multiplication and an addition.
    tolerance = 1e-5 if configuration.is_fp32 else 0.0
    equal(replayed, loop.train(digits, configuration, recipe, 3), tolerance)


def test_another_data_set_of_the_same_shape_takes_the_place_of_the_first(digits, captured):
    inputs = (digits.train_inputs // 2, digits.test_inputs // 2)
    other = replace(digits, fingerprint="other", train_inputs=inputs[0], test_inputs=inputs[1])
    configuration, recipe = Configuration.parse("1-4-2/1-6-7"), replace(RECIPE, epochs=1)
    for dataset in (digits, other, digits):
        replayed = replay.train(dataset, configuration, recipe, 0, device="cpu")
        equal(replayed, loop.train(dataset, configuration, recipe, 0))
    assert len(captured) == 1


def test_a_last_test_batch_that_is_not_full_changes_no_bits(digits, captured):
    fewer = replace(digits, test_inputs=digits.test_inputs[:330], test_targets=digits.test_targets[:330])
    recipe = replace(RECIPE, epochs=1)
    replayed = replay.train(fewer, Configuration.parse("1-4-1/1-6-7"), recipe, 0, device="cpu")
    assert replayed.curve == loop.train(fewer, Configuration.parse("1-4-1/1-6-7"), recipe, 0).curve
    replay.train(digits, Configuration.parse("1-4-1/1-6-7"), recipe, 0, device="cpu")
    assert len(captured) == 1


def test_divergence_ends_a_training_at_its_epoch_and_harms_no_later_one(digits):
    wild = replace(RECIPE, learning_rate=1e30)
    diverged = replay.train(digits, FP32_CONFIGURATION, wild, 0, device="cpu")
    assert diverged.outcome is Outcome.DIVERGED
    assert diverged.test_error == digits.chance_error
    recipe = replace(RECIPE, epochs=1)
    equal(
        replay.train(digits, FP32_CONFIGURATION, recipe, 0, device="cpu"),
        loop.train(digits, FP32_CONFIGURATION, recipe, 0),
        tolerance=1e-5,
    )


def test_what_cannot_be_replayed_is_said_so(digits):
    served = {
        "1-4-1/1-6-7": True,
        "fp32/fp32": True,
        "int8/1-6-7": False,
        "mx-1-2-1/32/1-6-7": False,
    }
    for text, expected in served.items():
        assert replay.serves(digits, Configuration.parse(text), RECIPE) is expected
    configuration = Configuration.parse("1-4-1/1-6-7")
    assert not replay.serves(digits, configuration, replace(RECIPE, augmentation="flip-crop"))
    assert not replay.serves(digits, configuration, replace(RECIPE, network="own:network"))
    assert not replay.serves(digits, configuration, replace(RECIPE, optimizer_options=(("nesterov", 1),)))


def test_capture_rehearses_aside_and_runs_the_step_once_while_it_captures(digits, monkeypatch):
    """With stand-ins for CUDA's streams and graphs: what is captured, replayed, is the training."""
    configuration, recipe = Configuration.parse("1-4-1/1-6-7"), replace(RECIPE, epochs=1)
    expected = replay.train(digits, configuration, recipe, 0, device="cpu")
    events, captured = [], []

    @contextmanager
    def within(name, *_):
        events.append(f"begin {name}")
        yield
        events.append(f"end {name}")

    class Stream:
        def wait_stream(self, other):
            events.append("wait")

    class Graph:
        def replay(self):
            captured[-1]()

    (replayed,) = replay._replays.values()
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: within("aside"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: within(f"capture {stream is aside}"))
    aside = Stream()
    monkeypatch.setattr(graphs, "_stream", lambda device: aside)
    monkeypatch.setattr(replayed, "device", "cuda")
    for name, keys in (("train", "keys"), ("test", "test_keys")):
        known = getattr(replayed, keys).shape[1]
        setattr(replayed, keys, getattr(replayed, keys)[:, :0])
        columns = []

        def step(name=name, keys=keys, columns=columns):
            events.append("step")
            columns.append(getattr(replayed, keys).shape[1])
            getattr(replayed, f"_{name}")()

        captured.append(getattr(replayed, f"_{name}"))
        replayed.network.train(name == "train")
        events.clear()
        again = replayed._captured(
            step, getattr(replayed, {"train": "_reserve_keys", "test": "_reserve_test_keys"}[name])
        )
        rehearsed = ["wait", "begin aside", *["step"] * graphs._REHEARSALS, "end aside", "wait"]
        assert events == [*rehearsed, "begin capture True", "step", "end capture True"]
        assert columns == [0, *[known] * graphs._REHEARSALS]  # what is captured has run before, as it is
        assert again.__func__ is Graph.replay
        monkeypatch.setattr(replayed, f"{name}_step", captured[-1])
    monkeypatch.setattr(replayed, "device", "cpu")
    equal(replayed.train(digits, configuration, recipe, 0, None), expected)


def test_tf32_only_where_it_is_exact():
    def exact(text, error):
        return exactness.is_exact_in_tf32(Configuration.parse(text), Recipe(error_format=error))

    assert exact("1-5-3/1-6-11", "A")
    assert exact("1-5-3/1-6-9", "B")
    assert not exact("1-5-3/1-6-11", "B")
    assert not exact("fp32/fp32", "A")


@pytest.mark.parametrize(
    "program",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    ],
    ids=["nothing", "older", "everything", "convolutions", "products"],
)
def test_arithmetic_is_exact_whatever_the_program_has_set_and_set_back_after(program):
    before = (torch.backends.fp32_precision, exactness._precision())
    try:
        program()
        theirs = (torch.backends.fp32_precision, exactness._precision())
        for error, expected in (("A", "tf32"), ("B", "ieee")):
            recipe = Recipe(error_format=error)
            with exactness.exact_arithmetic(Configuration.parse("1-4-1/1-6-11"), recipe):
                assert exactness._precision() == (error == "A", "highest", expected, expected, "ieee")
                assert torch.backends.cudnn.deterministic
            assert (torch.backends.fp32_precision, exactness._precision()) == theirs
    finally:
        torch.backends.fp32_precision = before[0]
        exactness._set_precision(*before[1])


def test_keys_on_the_device_are_those_of_the_clock():
    words = torch.randint(-(2**63), 2**63 - 1, (50,), generator=torch.Generator().manual_seed(0))
    values = words.roll(1)
    for mixed, word, value in zip(mix_words(words, values), words, values, strict=True):
        assert mixed.item() == signed64(mix(word.item() % 2**64, value.item()))
    seed = mix(5, 6)
    clock = Clock(seed)
    for row in training_roots(seed, 0, 4, "cpu"):
        assert row.item() == signed64(clock.begin_pass(True))
        clock.advance()
    for row in evaluation_roots(seed, 4, 3, "cpu"):
        assert row.item() == signed64(clock.begin_pass(False))


def test_table_of_paths_equals_mixing_one_by_one():
    table, roots = KeyTable("cpu"), torch.tensor([3, -1, 2**62])
    paths = [(), (0,), (7, mix(1, 2)), (7, 0, 1, 2, 3)]
    columns = [table.word(path) for path in paths]
    keys = table.fill(roots)
    for row, root in enumerate(roots.tolist()):
        table.take(keys, torch.tensor([row]))
        for path, column in zip(paths, columns, strict=True):
            key = root % 2**64
            for number in path:
                key = mix(key, number)
            assert column.item() == signed64(key)
    key = mix(PathKey(table), 7)
    assert mix(key, mix(1, 2)).word().data_ptr() == columns[2].data_ptr()


def test_a_step_without_random_bits_takes_no_keys():
    table = KeyTable("cpu")
    keys = table.fill(torch.tensor([3, 4]))
    assert keys.shape == (2, 0)
    table.take(keys, torch.tensor([1]))
    assert not table.row.any()


def test_nothing_of_a_rehearsal_outlives_it(digits):
    """Its graph would keep torch's nodes of the parameters, on the stream of the rehearsal, in a capture."""
    replay.train(digits, Configuration.parse("1-4-1/1-6-7"), replace(RECIPE, epochs=1), 0, device="cpu")
    (replayed,) = replay._replays.values()
    replayed.network.train()

    def alive():
        return [o for o in gc.get_objects() if type(o) is torch.Tensor and o.grad_fn is not None]

    before = {id(tensor) for tensor in alive()}
    gc.disable()
    try:
        replayed.position.zero_()
        replayed._train()
        assert not [tensor for tensor in alive() if id(tensor) not in before]
    finally:
        gc.enable()


class Watched(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold, and counts the operations that compute.

    With another default device, what is not given the step's own lies elsewhere.
    """

    def __init__(self, where):
        super().__init__()
        self.where, self.computed = torch.device(where), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        before, after = (
            [x for x in tree_leaves(tree) if torch.is_tensor(x)] for tree in ((args, kwargs), result)
        )
        indexes = function.overloadpacket.__name__ in ("index", "index_put", "index_put_")
        by_mask = indexes and any(x.dtype in (torch.bool, torch.uint8) for x in before[1:])
        assert not by_mask, f"{function} by a mask waits for its count"
        assert torch.Tag.data_dependent_output not in function.tags, f"{function} waits for a number"
        assert torch.Tag.dynamic_output_shape not in function.tags or indexes, (
            f"{function} waits for its shape"
        )
        assert function is not torch.ops.aten.lift_fresh.default, "a literal comes from the host"
        elsewhere = {x.device for x in (*before, *after)} - {self.where}
        assert not elsewhere, f"{function} has tensors on {elsewhere}"
        self.computed += not function.is_view and "empty" not in str(function)
        return result


class Unread(TorchFunctionMode):
    """Refuses what reads a tensor without an operation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        names = {
            "item",
            "tolist",
            "numpy",
            "cpu",
            "__array__",
            "__bool__",
            "__int__",
            "__float__",
            "__index__",
        }
        assert getattr(function, "__name__", "") not in names, f"{function} reads numbers"
        return function(*args, **(kwargs or {}))


def stand_ins():
    """For Triton's kernels: they write what these write."""

    def round_all(x, out, gate, constants, rare, key, order, *, relu=False):
        out.copy_(x)

    def sgd(gradient, momentum, accumulator, weight, *rest):
        for tensor in (momentum, accumulator, weight):
            tensor.add_(gradient)

    return SimpleNamespace(round_all=round_all, sgd=sgd)


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize("text", ["1-4-1/1-6-7", "1-4-3@ocp/1-6-9@ieee"])
@pytest.mark.parametrize(
    ("network", "kernels"),
    [("resnet18-w8", True), ("vgg11-w8", True), ("resnet8-w8", True), ("resnet8-w8", False)],
)
def test_a_step_waits_for_nothing_and_makes_nothing_on_the_host(
    digits, monkeypatch, network, kernels, text, rounding
):
    """With Triton's kernels, and with the operations that stand in for them."""
    monkeypatch.setattr(loop, "TEST_BATCH", 10)
    if kernels:
        monkeypatch.setattr(device, "_triton", lambda _: stand_ins())
    dataset = cut(digits, train=10, test=10)
    if network.startswith("vgg"):  # five poolings
        wide = [np.tile(array, (1, 4, 4, 1)) for array in (dataset.train_inputs, dataset.test_inputs)]
        dataset = replace(dataset, train_inputs=wide[0], test_inputs=wide[1])
    recipe = Recipe(network=network, batch_size=5, rounding=rounding)
    configuration = Configuration.parse(text)
    replayed = graphs.Replay(dataset, recipe, "cpu", rare="@" in text)
    for error_format in "AB":
        formats = exactness.formats_of(configuration, replace(recipe, error_format=error_format))
        for slot, fmt in zip(replayed.slots, formats, strict=True):
            slot.set(fmt)
        for step, training in ((replayed._train, True), (replayed._test, False)):
            replayed.position.zero_()
            replayed.network.train(training)
            with Unread(), torch.device("meta"), Watched("cpu") as watched:
                step()
            assert watched.computed > 30
