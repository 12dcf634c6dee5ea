"""Whatever a public function is given, it answers, or says in one line what is wrong with it.

``pytest -m fuzz`` calls each with valid arguments of which one, two or three are changed. What was found once
stays in ``FOUND``, and is tried first.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

import peppp
from peppp import pareto
from peppp.advise import limits
from peppp.advise import pick as answers
from peppp.advise.advisor import Advisor
from peppp.advise.costs import Cost
from peppp.campaign import cells, runner
from peppp.campaign.engines import InProcess
from peppp.campaign.estimates import Estimates
from peppp.errors import PepppError
from peppp.footprint import counting
from peppp.formats import (
    FP32_CONFIGURATION,
    BlockFormat,
    Configuration,
    DynamicFormat,
    FixedFormat,
    FloatFormat,
    IntegerFormat,
    ScaledFormat,
    TwoLevelFormat,
    element_of,
    paper_grid,
    parse_format,
)
from peppp.learn import completion, design, softimpute
from peppp.page import overview, report
from peppp.precisions.known import parse_precision
from peppp.records import Footprint, Measurement, Outcome, Recipe, RoundingModes
from peppp.table import csv, labels, matrix, measured
from peppp.table.store.store import Store
from peppp.tasks import dataset, networks, readers
from peppp.training import losses
from peppp.units import format_bytes, parse_bytes

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]
EXAMPLES = 200


# What is wrong with an argument


class Odd:
    """Something that no function knows."""


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        raise KeyError("first line\nsecond line")


PLAIN = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, -(2**31), 2**63, 2**64, 10**400, -(10**400),
    0.0, -0.0, 0.5, -0.5, 1.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, 1 + 2j,
    Decimal("0.5"), Fraction(1, 3), np.int64(3), np.float32(0.5), np.bool_(True), np.float64("nan"),
    "", " ", "\n", "\0", "a\nb", "\ud800", "\udcff", "🦆", "1-٤-3", "١٢", "x" * 5000, "nan", "-1",
    "1e999", "0",
    "1-4-3", "fp32", "bf16", "int8", "mxfp4", "dynamic8/256", "1-4-1/1-6-7", "fp32/fp32", "amp-bf16", "A",
    "B",    "nearest", "stochastic", "sgd", "adam", "resnet8", "mlp", "mlp-w0",
    "mlp-w99999999999999999999", "digits",
    "100MB", "1e3", "auto", "cpu", "meta", "cuda", "a:b", "os:path", "math:pi", "no/such/file",
    "own:os:getcwd",    "digits?train=1", "digits?train=0", "1-4-1/1-6-7 at 0.01", "gaussian", "ed-mf",
    "true", "no such",
    b"", b"1-4-3", object(), Odd(), int, FloatFormat, len, lambda *a, **k: None,
    Path("no/such"), Path(), range(3), np.s_[:2], ..., NotImplemented, ValueError("x"),
    np.zeros(0), np.zeros((0, 3)), np.zeros((3, 0)), np.array(1.0), np.ones(3), np.full(3, np.nan),
    np.full((2, 3), np.inf), np.ones((2, 3)), np.zeros((2, 3)), np.eye(3), np.ones((2, 3), complex),
    np.array([None, 1]), np.array(["a", "b", "c"]), np.arange(3), np.arange(-3, 0), np.ones((1, 2, 3)),
    np.ones(3, bool), np.zeros(3, bool), np.ones((2, 3), bool), np.ones((3, 2))[::-1], np.full(3, 1e308),
    np.array([-1e308, 0.0, 1e308]), np.array([1e-320, 1.0, 2.0]), np.array([3, 99, -99]),
    np.array(["2020-01-01"], "datetime64[D]"), np.zeros((2, 3), np.float16), np.full((2, 3), 1e200),
    Configuration.parse("1-4-1/1-6-7"), FP32_CONFIGURATION, FloatFormat(4, 3), IntegerFormat(8),
    parse_precision("amp-bf16"), Recipe(), Outcome.DIVERGED, Footprint(1, 1, 1, {}),
]  # fmt: skip
FRESH: list[Callable[[], Any]] = [
    list, dict, set, lambda: [[]], lambda: [[1, 2], [3]], lambda: [None], lambda: [math.nan, 1, 2],
    lambda: [0.1, 0.2, 0.3], lambda: [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], lambda: {"a": 1}, lambda: {None: []},
    lambda: ["1-4-3"], lambda: ["a", "a"], lambda: [0, 1], lambda: [0, 0, 0], lambda: [10**400],
    lambda: (1, 2), lambda: ("a", 1), lambda: iter([1, 2]), lambda: [Odd()], lambda: [True, False, True],
    lambda: [1e308, 1e308, -1e308], lambda: [2, -1, 5], lambda: {1: 2}, lambda: [["a"]], lambda: [(1, 0.5)],
    lambda: torch.ones(2, 2), lambda: torch.zeros(0), lambda: torch.zeros(2, 0), lambda: torch.tensor(1.0),
    lambda: torch.ones(2, 2, dtype=torch.int64), lambda: torch.ones(2, dtype=torch.float16),
    lambda: torch.ones(2, dtype=torch.bfloat16), lambda: torch.ones(2, dtype=torch.complex64),
    lambda: torch.ones(2, dtype=torch.float64), lambda: torch.ones(2, dtype=torch.bool),
    lambda: torch.ones(2, 2, device="meta"), lambda: torch.full((2, 2), math.nan),
    lambda: torch.tensor([1e38, -1e38, math.inf]), lambda: torch.ones(2, 2, requires_grad=True),
    lambda: torch.ones(1, 2).expand(3, 2), lambda: torch.ones(2, 3).t(), lambda: torch.eye(2).to_sparse(),
    lambda: torch.ones(4, 2, 2, 2).to(memory_format=torch.channels_last),
    lambda: nn.Parameter(torch.ones(2)), nn.Identity, nn.Sequential, lambda: nn.Linear(2, 2), Raises,
    lambda: nn.Linear(2, 2, device="meta"), lambda: nn.Linear(2, 2).half(), lambda: nn.LazyLinear(2),
    lambda: nn.Linear(2, 2, dtype=torch.complex64),
    lambda: nn.Embedding(3, 2, sparse=True), lambda: nn.LSTM(2, 2), lambda: nn.BatchNorm1d(2),
    lambda: torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1),
    lambda: peppp.low_precision(nn.Linear(2, 2), "1-4-1/1-6-7", seed=0),
]  # fmt: skip
WRONG = st.one_of(
    st.sampled_from(PLAIN),
    st.sampled_from(FRESH).map(lambda make: make()),
    st.integers(),
    st.floats(),
    st.text(max_size=8).filter(lambda text: not text.startswith(("/", "~", "."))),
    st.lists(st.floats() | st.integers(-3, 3), max_size=4),
    st.lists(st.floats(-1, 2), min_size=3, max_size=3),
)


def either(*values):
    """One of some values, or of what they make where they are functions."""
    return st.sampled_from(values).map(lambda value: value() if callable(value) else value)


NUMBERS_LIKE = st.floats() | st.floats(-2, 3) | either(math.nan, math.inf, 1e308, -1e308, 1e-320, 10**400)


def arrays_like(value):
    """Arrays of the shape of another, or nearly, of numbers of any kind."""
    shape = np.shape(value)
    shapes = [shape, shape, shape, shape[1:], (*shape, 1), shape[::-1], (0, *shape[1:]), (*shape[:-1], 0)]
    kinds = [st.floats(-1, 2), st.floats(), st.integers(-2, 4), st.booleans(), st.sampled_from([0.0, 1.0])]

    def filled(drawn):
        shape, kind = drawn
        size = math.prod(shape)
        return st.lists(kind, min_size=size, max_size=size).map(lambda some: np.array(some).reshape(shape))

    return st.tuples(st.sampled_from(shapes), st.sampled_from(kinds)).flatmap(filled)


def like(value):
    """Values of the kind of another."""
    if isinstance(value, np.ndarray) or (
        isinstance(value, list) and value and isinstance(value[0], (int, float))
    ):
        return arrays_like(value)
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-3, 9) | st.integers()
    if isinstance(value, float):
        return NUMBERS_LIKE
    if isinstance(value, str):
        return st.sampled_from([text for text in PLAIN if isinstance(text, str)])
    return WRONG


def is_list(value):
    return isinstance(value, list)


def small(number):
    """Sizes are bounded: what is asked for is allocated."""
    try:
        return abs(number) < 100 or math.isinf(number) or math.isnan(number)
    except Exception:
        return True


# What is right


GRID = paper_grid()[:3]
SIZE = Footprint(10, 20, 30, {"momentum": 30})
DIGITS = readers.load("digits:01?train=8&test=8")
NUMBERS = dataset.Dataset(
    "tiny", "tiny", "t1", ("a", "b"),
    np.linspace(0, 1, 16, dtype=np.float32).reshape(8, 2), np.array([0, 1] * 4),
    np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2), np.array([0, 1] * 2),
)  # fmt: skip
MLP = Recipe(network="mlp-w2", epochs=1, batch_size=4)
MEASURED = Measurement(
    "digits", "d1", "digits", GRID[0], Recipe(), 0, 0.9, 0.25, 0.2, ((10, 0.25),), SIZE, Outcome.FINISHED, 2.5
)
ERRORS = np.array([[0.5, 0.4, 0.3], [0.8, math.nan, 0.6], [0.9, 0.7, 0.5], [0.2, 0.1, 0.1]])
ROWS = tuple(matrix.Row(name, "", name, 0.9) for name in "abcd")


def some_errors(columns=GRID, values=ERRORS):
    return matrix.ErrorMatrix(values, ROWS, columns)


def some_matrices():
    lone = matrix.ErrorMatrix([[0.5]], [ROWS[0]], ["mine"])
    empty = matrix.ErrorMatrix(np.zeros((0, 0)), (), ())
    blank = some_errors(values=np.full((4, 3), math.nan))
    zero = some_errors(values=np.zeros((4, 3)))
    gap = some_errors(values=np.where(np.arange(3) == 1, math.nan, ERRORS))
    hopeless = dataclasses.replace(some_errors(), rows=tuple(matrix.Row(n, "", n, 0.0) for n in "abcd"))
    return st.sampled_from(
        [some_errors(), some_errors(("x", "y", "z")), lone, empty, blank, zero, gap, hopeless]
    )


def some_recipes():
    """Recipes of which a field is odd."""
    odd = {
        "network": ["", "mlp", "resnet8", "transformer", "vgg11", "no", "a:b", "math:pi", "mlp-w1"],
        "epochs": [0, -1, 2],
        "min_steps": [-1, 3],
        "batch_size": [0, -1, 1, 3, 10**6],
        "optimizer": ["adam", "adamw", "", "lbfgs"],
        "learning_rate": [math.nan, math.inf, -1.0, 0.0, 1e308],
        "optimizer_options": [(), (("momentum", math.nan),), (("no", 1.0),), (("momentum", -1.0),)],
        "rounding": ["", "nearest", "values=nearest"],
        "error_format": ["", "B", "1-4-3", "1-9-9", "mxfp4", "fp32"],
        "accumulator": [False],
        "loss": ["", "squared_error", "a:b", "math:pi"],
        "augmentation": ["", "flip", "no"],
        "arithmetic_version": [0, -1, 99],
        "pretrained": ["no/such", "\0"],
        "freeze": [("*",), ("",), ("no",), ("[",)],
        "resolution": [-1, 9],
    }
    one = st.sampled_from([(name, value) for name, values in odd.items() for value in values])
    return st.lists(one, min_size=1, max_size=2).map(lambda some: dataclasses.replace(MLP, **dict(some)))


def some_measurements():
    changes = [
        {}, {"task": ""}, {"test_error": math.nan}, {"test_error": 2.0}, {"chance_error": 0.0},
        {"footprint": Footprint(0, 0, 0, {})}, {"configuration": FP32_CONFIGURATION}, {"seed": -1},
        {"configuration": parse_precision("amp-bf16")}, {"task": "a\nb", "fingerprint": ""},
        {"configuration": Configuration.parse("mxfp4/int8")}, {"curve": ()}, {"seconds": math.inf},
        {"configuration": GRID[1], "test_error": 0.5}, {"fingerprint": "d2"}, {"provenance": {"a": "b"}},
        {"task": "\ud800"}, {"recipe": Recipe(arithmetic_version=1)}, {"seconds": -1.0}, {"seed": -5},
    ]  # fmt: skip
    return st.sampled_from(changes).map(lambda change: dataclasses.replace(MEASURED, **change))


def a_prediction(**changes):
    return dataclasses.replace(answers.Prediction(GRID[0], 0.3, 0.25, SIZE, True), **changes)


def some_predictions():
    changes = [
        {}, {"permissible": False}, {"configuration": GRID[1]}, {"configuration": "mine"},
        {"interval": (0.1, 0.2)},        {"measured_error": None}, {"estimated_error": math.nan},
        {"settled": False}, {"peak": 3},
        {"configuration": GRID[2], "interval": (math.nan, math.inf)},
    ]  # fmt: skip
    return st.sampled_from(changes).map(lambda change: a_prediction(**change))


def converted():
    return peppp.low_precision(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), GRID[0], seed=0)


CONVERTED = "the module that an optimizer belongs to"


def optimizer_of(module, make=torch.optim.SGD, **options):
    return make(module.parameters(), **({"lr": 0.1} | options))


# Calls of a class go on to what can be asked of it


def asked(thing):
    """A thing, when all of its properties and methods without arguments have been asked for."""
    for name in dir(type(thing)):
        if not name.startswith("_") and not isinstance(getattr(type(thing), name, None), type):
            with suppress(PepppError):  # which is an answer, too
                value = getattr(thing, name)
            if name in ("to_dict", "to_json", "values", "page_data") and callable(value):
                value()
    return str(thing)


def advise(**arguments):
    advisor = Advisor(**arguments)
    if (configuration := advisor.ask()) is not None:
        advisor.tell(configuration, 0.4)
    advisor.predictions()
    asked(advisor)
    return asked(advisor.recommend())


def told(configuration, error, count):
    advisor = Advisor(**ADVISOR())
    advisor.tell(configuration, error)
    advisor.batch(count)
    return str(advisor.recommend())


def format_of(flavoured):
    def make(**arguments):
        fmt = flavoured(**arguments)
        if not isinstance(fmt, FloatFormat) or fmt.bits <= 12:
            asked(fmt)
        return parse_format(str(fmt)) == fmt

    return make


def stored(measurements, create):
    with Store.open("sqlite://", create=create) as store:
        store.add_all(measurements)
        return len(store.measurements())


def store_at(place, create):
    with Store.open(place, create=create) as store:
        return store.keys()


def written(path, measurements):
    csv.write_table(path, measurements)
    return len(csv.read_table(path))


def campaign(cells, store, **options):
    return runner.run_campaign(store, cells, InProcess(lambda cell: MEASURED), **options)


def forward(module, **options):
    runs = runs_alone(module)
    converted = peppp.low_precision(module, **options)
    return converted(torch.ones(3, 2)) if runs else None


def trained(optimizer, module, **options):
    if module is CONVERTED:
        module = converted()
    if isinstance(optimizer, tuple) and callable(optimizer[0]) and isinstance(module, nn.Module):
        optimizer = optimizer_of(module, optimizer[0], **optimizer[1])
    ready = peppp.low_precision_optimizer(optimizer, module, **options)
    module(torch.ones(1, 2)).sum().backward()
    ready.step()


def prepared(module, optimizer, **options):
    runs = runs_alone(module)
    if isinstance(optimizer, tuple) and callable(optimizer[0]) and isinstance(module, nn.Module):
        some = [*module.parameters()] or [nn.Parameter(torch.ones(2))]
        optimizer = optimizer[0](some, **({"lr": 0.1} | optimizer[1]))
    ready = peppp.prepare(module, optimizer, **options)
    if runs:
        ready.backward(ready.forward(torch.ones(3, 2)).square().mean())
        ready.step()


def runs_alone(module):
    """Whether a module takes what it is given here; where it does not, that is no fault of ours."""
    try:
        module(torch.ones(3, 2)).square().mean().backward()
    except Exception:
        return False
    module.zero_grad()
    return True


def a_net():
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 2))


def ADVISOR():  # noqa: N802  as the tables below
    return {"table": some_errors(), "footprints": dict.fromkeys(GRID, SIZE), "budget": 1000}


PAGE = {
    "title": "t", "task": "a", "network": "n", "budget": 100, "rank": 1, "frontier": [0], "pick": 0,
    "rows": [
        {
            "configuration": "1-4-1/1-6-7", "total": 90, "estimated": 0.2, "measured": None,
            "interval": [0.1, 0.3],
            "format_a": {"text": "1-4-1", "exponent_bits": 4, "mantissa_bits": 1},
            "format_b": {"text": "1-6-7", "exponent_bits": 6, "mantissa_bits": 7},
            "memory": {"weights": 10, "activations": 20, "optimizer": 30, "raw": 30},
        }
    ],
}  # fmt: skip


def some_pages():
    """Pages of which an entry is missing or odd."""
    entry = st.sampled_from([(place, name) for place in (PAGE, PAGE["rows"][0]) for name in place])

    def changed(drawn):
        (place, name), value = drawn
        new = {key: item for key, item in place.items() if key != name}
        if value is not Odd:
            new[name] = value
        return new if place is PAGE else PAGE | {"rows": [new]}

    odd = st.sampled_from([Odd, None, "", "x", -1, math.nan, math.inf, [], {}, [None], [99], 10**30, "a\nb"])
    return st.tuples(entry, odd).map(changed)


def fixed(**arguments):
    return lambda: arguments


STEP = ["sgd", "adam", "adamw", "adafactor", "lion", "", lambda: torch.optim.SGD]
TEXTS = ["fp32", "amp-bf16", "amp-fp16", "bf16", "bf16-sr", "bf16-kahan", "1-4-1/1-6-7", "amp-bf16-sgd8bit"]


@dataclass(frozen=True)
class Target:
    """What is called, with which valid arguments (fresh ones), and what else suits an argument nearly."""

    call: Callable[..., Any]
    valid: Callable[[], dict[str, Any]]
    near: Mapping[str, Any] = field(default_factory=dict)
    allowed: Callable[[Any], bool] = lambda value: True

    @property
    def wrong(self):
        return WRONG.filter(self.allowed)


POINTS = {"memory": [1, 2, 4], "error": [0.5, 0.3, 0.2]}
FRONTS = {"memory": [1, 2, 4], "true_error": [0.5, 0.3, 0.2], "estimated_error": [0.4, 0.4, 0.1]}
FRONTS_AND_MORE = fixed(**FRONTS, feasible=[True, True, False], at="estimated")
VALUES = {"values": ERRORS, "observed": ~np.isnan(ERRORS)}
EMBEDDINGS = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 0.5]])
SOME_MATRICES = {"on": some_matrices(), "matrix": some_matrices(), "table": some_matrices()}
SOURCE = cells.Source("digits", "d1", "digits")
CELL = SOURCE.cell(GRID[0], Recipe())
TARGETS: dict[str, Target] = {
    # Formats, records, units
    "parse_format": Target(lambda text: asked(parse_format(text)), fixed(text="1-4-3")),
    "element_of": Target(lambda fmt: str(element_of(fmt)), fixed(fmt=FloatFormat(4, 3))),
    "FloatFormat": Target(format_of(FloatFormat), fixed(exponent_bits=4, mantissa_bits=3, flavour="ieee")),
    "FloatFormat.parse": Target(lambda text: str(FloatFormat.parse(text)), fixed(text="1-4-3")),
    "FixedFormat": Target(format_of(FixedFormat), fixed(bits=8, fraction_bits=6)),
    "IntegerFormat": Target(format_of(IntegerFormat), fixed(bits=8)),
    "BlockFormat": Target(
        format_of(BlockFormat), fixed(element=FloatFormat(4, 3, "ocp-sat"), block=32, scale="even")
    ),
    "TwoLevelFormat": Target(format_of(TwoLevelFormat), fixed(element=FloatFormat(2, 1, "ocp-sat"),
    block=16)),
    "ScaledFormat": Target(format_of(ScaledFormat), fixed(element=FloatFormat(4, 3, "ocp-sat"))),
    "DynamicFormat": Target(format_of(DynamicFormat), fixed(signed=True, block=256)),
    "Configuration": Target(
        lambda **a: asked(Configuration(**a)), fixed(format_a=FloatFormat(4, 3), format_b=FloatFormat(6, 7))
    ),
    "Configuration.parse": Target(lambda text: asked(Configuration.parse(text)), fixed(text="1-4-1/1-6-7")),
    "paper_grid": Target(peppp.paper_grid, fixed()),
    "RoundingModes": Target(
        lambda **a: str(RoundingModes(**a)),
        fixed(values="nearest", errors="nearest", gradient="nearest", states="nearest"),
    ),
    "RoundingModes.parse": Target(lambda text: str(RoundingModes.parse(text)), fixed(text="nearest")),
    "Recipe": Target(
        lambda **a: Recipe.from_json(Recipe(**a).to_json()).digest,
        lambda: {f.name: f.default for f in dataclasses.fields(Recipe)},
        {"optimizer_options": either((), (("a", 1),), (("a", math.nan),), [["b", 2]])},
    ),
    "Recipe.from_json": Target(
        lambda text: Recipe.from_json(text).digest,
        fixed(text=Recipe().to_json()),
        {"text": either("{}", "[]", "{", "null", '{"no": 1}', '{"epochs": "a"}', '{"freeze": 1}',
        "[" * 9999)},
    ),
    "Footprint": Target(
        lambda **a: asked(Footprint(**a)),
        fixed(weights=1, activations=2, gradients=3, states={"momentum": 3}, raw=0, working=0),
    ),
    "Measurement": Target(
        lambda **a: (asked(measurement := Measurement(**a)), measured.error_matrix([measurement])),
        lambda: {f.name: getattr(MEASURED, f.name) for f in dataclasses.fields(Measurement)},
        {"recipe": some_recipes(), "curve": either((), ((1, 2, 3),), [[1, 0.5]])},
    ),
    "parse_bytes": Target(parse_bytes, fixed(text="100MB")),
    "format_bytes": Target(format_bytes, fixed(count=10)),
    # Frontiers
    "nondominated": Target(pareto.nondominated, fixed(**POINTS, feasible=[True, True, False])),
    "frontier": Target(pareto.frontier, fixed(**POINTS, feasible=[True, True, False])),
    "settled": Target(pareto.settled, fixed(errors=[0.1, 0.2])),
    "best": Target(pareto.best, fixed(**POINTS, feasible=[True, True, False])),
    "hypervolume": Target(pareto.hypervolume, fixed(**POINTS, reference=(5.0, 1.0))),
    "convergence": Target(pareto.convergence, FRONTS_AND_MORE),
    "hyperdiff": Target(pareto.hyperdiff, FRONTS_AND_MORE),
    "frontier_area_difference": Target(pareto.frontier_area_difference, FRONTS_AND_MORE),
    "igd_plus": Target(pareto.igd_plus, FRONTS_AND_MORE),
    # Completion and design
    "Completion": Target(
        lambda **a: (completion.Completion(**a).groups, completion.Completion(**a).take([0])),
        fixed(
            estimate=np.ones((2, 3)), singular_values=np.ones(2), configuration_embeddings=np.ones((3, 1)),
            observed=np.ones((2, 3), bool), families=("a", "b"), columns=GRID, shrinkage=0.1,
        ),
    ),
    "Completion.take": Target(
        lambda columns: completion.complete(some_errors()).take(columns).estimate, fixed(columns=[0, 1])
    ),
    "complete": Target(
        lambda **a: completion.complete(**a).estimate,
        lambda: {
            "matrix": some_errors(), "rank": 2, "shrinkage": 0.1, "relative_to_chance": True,
            "weights": np.ones((4, 3)),
        },
        SOME_MATRICES,
    ),
    "learn": Target(
        lambda **a: completion.learn(**a).estimate,
        lambda: {"matrix": some_errors(), "rows": [0, 2], "rank": 2, "shrinkage": 0.1},
        SOME_MATRICES,
    ),
    "filled": Target(completion.filled, lambda: {"matrix": some_errors()}, SOME_MATRICES),
    "complete_values": Target(
        lambda **a: completion.complete_values(**a).estimate, fixed(**VALUES, rank=2, shrinkage=0.1)
    ),
    "factorise": Target(completion.factorise, fixed(estimate=np.ones((2, 3)), rank=2)),
    "inverse_propensity": Target(completion.inverse_propensity, fixed(probabilities=[0.5, 0.1], floor=0.02)),
    "soft_impute": Target(
        softimpute.soft_impute,
        fixed(
            **VALUES, shrinkage=0.1, weights=np.ones((4, 3)), start=np.zeros((4, 3)), accelerate=True,
            tolerance=1e-4, iterations=50,
        ),
        {},
        small,
    ),
    "d_optimal": Target(design.d_optimal, fixed(embeddings=EMBEDDINGS, count=2, feasible=[True, True, True])),
    "least_squares": Target(
        design.least_squares, fixed(embeddings=EMBEDDINGS, measured=[0, 2], errors=[0.4, 0.3])
    ),
    "determines": Target(design.determines, fixed(embeddings=EMBEDDINGS, measured=[0, 2])),
    "spanned": Target(design.spanned, fixed(embeddings=EMBEDDINGS)),
    "candidates": Target(design.candidates, fixed(embeddings=EMBEDDINGS, feasible=[True, False, True])),
    # Tables
    "TunedConfiguration": Target(
        lambda **a: str(labels.TunedConfiguration(**a)), fixed(configuration=GRID[0], learning_rate=0.1)
    ),
    "TunedConfiguration.parse": Target(
        lambda text: str(labels.TunedConfiguration.parse(text)),
        fixed(text="1-4-1/1-6-7 at 0.1"),
        {"text": either("1-4-1/1-6-7 at nan", "1-4-1/1-6-7 at 1,2", "a at 1", " at ")},
    ),
    "parse_label": Target(lambda text: str(labels.parse_label(text)), fixed(text="amp-bf16")),
    "Row": Target(
        lambda **a: str(matrix.Row(**a)),
        fixed(task="a", recipe_digest="", group="", chance_error=0.9, fingerprint="", recipe=None),
    ),
    "ErrorMatrix": Target(
        lambda **a: asked(matrix.ErrorMatrix(**a)),
        fixed(
            values=ERRORS, rows=ROWS, columns=GRID, memory=np.ones((4, 3)), counts=np.ones((4, 3)),
            squares=np.zeros((4, 3)),
        ),
    ),
    "ErrorMatrix.from_values": Target(
        lambda **a: matrix.ErrorMatrix.from_values(**a).share, fixed(values=ERRORS, rows=ROWS, columns=GRID)
    ),
    "ErrorMatrix.take": Target(
        lambda on, **a: on.take(**a).share,
        lambda: {"on": some_errors(), "rows": [0, 1], "columns": [1]},
        {"on": some_matrices()},
    ),
    "ErrorMatrix.masked": Target(
        lambda on, mask: on.masked(mask).share,
        lambda: {"on": some_errors(), "mask": np.ones((4, 3), bool)},
        SOME_MATRICES,
    ),
    "ErrorMatrix.without": Target(
        lambda on, task: on.without(task).share,
        lambda: {"on": some_errors(), "task": "a"},
        SOME_MATRICES,
    ),
    "ErrorMatrix.require": Target(
        lambda on, **a: on.require(**a).share,
        lambda: {"on": some_errors(), "rows": 3, "columns": 3},
        SOME_MATRICES,
    ),
    "error_matrix": Target(
        lambda **a: asked(measured.error_matrix(**a)),
        lambda: {
            "measurements": [MEASURED], "seed": 0, "learning_rates": (), "recipe_digest": None,
            "include_reference": True, "include_named": True,
        },
        {"measurements": st.lists(some_measurements(), max_size=4), "learning_rates": either([0.001, 0.01])},
    ),
    "read_table": Target(csv.read_table, fixed(path="no.csv")),
    "write_table": Target(
        written,
        lambda: {"path": "out.csv", "measurements": [MEASURED]},
        {"path": either("out.csv.gz"), "measurements": st.lists(some_measurements(), max_size=3)},
    ),
    "open_table": Target(
        lambda **a: peppp.open_table(**a).share,
        fixed(place="small.csv", recipe=Recipe(), without=(), learning_rates=()),
        {"recipe": some_recipes(), "learning_rates": either((0.1, 0.2), (0.001, 0.01))},
    ),
    "read_measurements": Target(peppp.read_measurements, fixed(place="small.csv")),
    "Store.open": Target(store_at, fixed(place="sqlite://", create=True), {"place": either("a.db", "x://y")}),
    "Store.add_all": Target(
        stored,
        lambda: {"measurements": [MEASURED], "create": True},
        {"measurements": st.lists(some_measurements(), max_size=3)},
    ),
    # Asking, telling, answering
    "Advisor": Target(
        advise,
        lambda: ADVISOR() | {
            "measurements": 2, "cap": None, "rank": 1, "shrinkage": None, "chance_error": 0.9, "task": "t",
            "network": "n", "method": "gaussian", "until_sure": None, "tolerance": 0.002, "fp32_error": None,
            "noise": 0.02, "peaks": None,
        },
        {
            "table": some_matrices(),
            "method": either("ed-mf", "gaussian", "two-best", "random", "ed-mf:3"),
            "footprints": either(
                {GRID[0]: SIZE}, {GRID[0]: 1, GRID[1]: 2}, {"mine": 3}, {GRID[0]: -1}, dict.fromkeys(GRID, 0)
            ),
            "peaks": either(dict.fromkeys(GRID, 9), {GRID[0]: 1}, dict.fromkeys(GRID, -9)),
        },
    ),
    "Advisor.tell": Target(
        told, fixed(configuration=GRID[0], error=0.5, count=1), {"configuration": either(*map(str, GRID))}
    ),
    "Prediction": Target(
        lambda **a: asked(answers.Prediction(**a)),
        lambda: {f.name: getattr(a_prediction(), f.name) for f in dataclasses.fields(answers.Prediction)},
        {"interval": either((0.1, 0.2), (1, 2, 3), [math.nan, 1.0])},
    ),
    "Pick": Target(
        lambda **a: asked(answers.Pick(**a)),
        lambda: {f.name: getattr(AN_ANSWER, f.name) for f in dataclasses.fields(answers.Pick)},
        {
            "interval": either((0.1, 0.2), (1, 2, 3), (math.nan, 1.0)),
            "predictions": st.lists(some_predictions(), max_size=3).map(tuple),
            "configuration": either(*GRID, "mine"),
            "frontier": either((), GRID, ("mine",)),
            "costs": either((Cost("a", "s", "", dict.fromkeys(GRID, 1.0)),), (Cost("a", "s", "", {}),)),
        },
    ),
    "Pick.frontier_over": Target(
        lambda costs: AN_ANSWER.frontier_over(*costs),
        fixed(costs=[dict.fromkeys(GRID, 1.0)]),
        {"costs": either([], [{}], [{GRID[0]: None}], [{GRID[0]: "a"}], [None], [{GRID[0]: math.nan}])},
        is_list,
    ),
    "Pick.report": Target(lambda path: AN_ANSWER.report(path), fixed(path="a.html")),
    "pick": Target(
        lambda **a: asked(peppp.pick(dry_run=True, **a)),
        lambda: {
            "data": "wine?train=20", "budget": "1MB", "network": "mlp-w2", "measurements": 1, "spend": None,
            "until_sure": None, "method": "ed-mf", "tolerance": 0.002, "table": some_errors(),
            "recipe": None, "learning_rates": (), "resolution": 0, "cap": None, "rank": 1, "seed": 0,
            "store": None, "workers": 0, "device": "cpu", "fp32_error": None, "noise": None, "costs": (),
            "progress": None, "count": "kept", "recompute": True, "micro_batch": None, "choices": "paper",
        },
        {
            "table": some_matrices(),
            "recipe": some_recipes(),
            "count": either("peak", "kept"),
            "choices": either("paper", "all", "runnable"),
            "costs": either(("memory",), ("time",), ("energy",), ("a.csv:b",), ("no",)),
            "micro_batch": either(1, 2, "auto", 0, -1),
            "learning_rates": either((0.1,), (0.1, 0.2), (math.nan,)),
            "data": either("digits:01?train=8", "tiny.npz", "small.csv", "wine?train=9"),
        },
    ),
    "footprints": Target(
        limits.footprints,
        lambda: {"dataset": NUMBERS, "recipe": MLP, "labels": GRID},
        {"recipe": some_recipes(), "labels": either(["amp-bf16"], ["mine"], [FP32_CONFIGURATION]),
         "dataset": either(DIGITS)},
    ),
    # Low precision in torch
    "quantize": Target(
        peppp.quantize,
        lambda: {"x": torch.ones(2, 2), "fmt": "1-4-3", "rounding": "nearest", "seed": 0, "out": None},
        {
            "fmt": either(*map(parse_format, ("int8", "fixed-8-6", "mxfp4", "nvfp4", "scaled-1-4-3",
            "dynamic8/256"))),
            "x": either(lambda: torch.zeros(()), lambda: torch.tensor([math.nan, 1e38, -math.inf])),
            "rounding": either("stochastic"),
            "out": either(lambda: torch.zeros(2, 2), lambda: torch.zeros(1, 2).expand(2, 2)),
        },
    ),
    "low_precision": Target(
        forward,
        lambda: {"module": a_net(), "precision": GRID[0], "rounding": "nearest", "error_format": "A",
        "seed": 0},
        {"precision": either("amp-bf16", "fp8", "mxfp4/1-6-7"), "error_format": either("B", "1-4-3", "int8")},
    ),
    "rounding_points": Target(
        lambda module, inputs: peppp.rounding_points(module, *inputs),
        lambda: {"module": converted(), "inputs": [torch.ones(1, 2)]},
        {"inputs": either(lambda: [torch.ones(1, 3)], list, lambda: [torch.ones(1, 2)] * 2)},
    ),
    "low_precision_optimizer": Target(
        trained,
        lambda: {
            "optimizer": (torch.optim.SGD, {}), "module": CONVERTED, "accumulator": True,
            "storage": "simulated",
            "gradients": "fp32", "weights": "recomputed",
        },
        {
            "optimizer": either(
                (torch.optim.Adam, {}), (torch.optim.LBFGS, {}), (torch.optim.SGD, {"momentum": 0.9}),
                (torch.optim.SGD, {"nesterov": True, "momentum": 0.9}), (torch.optim.Adagrad, {}),
                (torch.optim.Adafactor, {}),
            ),
            "storage": either("packed"),
            "gradients": either("packed", "in_backward"),
            "weights": either("packed"),
        },
    ),
    "prepare": Target(
        prepared,
        lambda: {
            "module": a_net(), "optimizer": (torch.optim.SGD, {"momentum": 0.9}), "precision": "amp-bf16",
            "recompute": (), "seed": 0, "rounding": "stochastic",
        },
        {
            "precision": either(*TEXTS),
            "optimizer": either((torch.optim.Adam, {}), (torch.optim.LBFGS, {}), (torch.optim.AdamW, {})),
            "recompute": either(["1"], ["9"], [""], ["0", "0"]),
        },
    ),
    "recompute": Target(
        peppp.recompute,
        lambda: {
            "module": a_net(), "example_inputs": torch.ones(4, 2), "budget": "1MB", "optimizer": "sgd",
            "precision": "fp32", "loss": None,
        },
        {"optimizer": either(*STEP), "precision": either(*TEXTS), "budget": either(600, 700, 800, "1kB"),
         "loss": either(lambda: (lambda y: y.sum()), lambda: (lambda y: 3), lambda: (lambda y: y))},
    ),
    "training_memory": Target(
        lambda **a: asked(peppp.training_memory(**a)),
        lambda: {
            "module": a_net(), "example_inputs": torch.ones(4, 2), "optimizer": "sgd", "precision": "fp32",
            "loss": None, "device": "cpu", "accumulate": 1, "release_gradients": False,
        },
        {"optimizer": either(*STEP), "precision": either(*TEXTS), "device": either("cuda"),
         "loss": either(lambda: (lambda y: y.sum()), lambda: (lambda y: 3), lambda: (lambda y: y)),
         "accumulate": either(2)},
        small,
    ),
    # Data, networks, training
    "load": Target(
        readers.load,
        fixed(text="digits:01?train=8", resolution=0, seen=None),
        {"text": either("digits:", "digits:ab", "wine?train=3", "tiny.npz", "small.csv", "text:tiny.npz", "?",
                        "digits?resolution=99999999999999999999", "npz:", "folder:", "own:a", "a=b",
                        "digits=x")},
        small,
    ),
    "Dataset": Target(
        lambda **a: asked(dataset.Dataset(**a)),
        lambda: {f.name: getattr(NUMBERS, f.name) for f in dataclasses.fields(dataset.Dataset)},
        {
            "train_inputs": either(np.zeros((8, 4, 4, 3), np.uint8), np.zeros((8, 4), np.int64),
            np.zeros((8,))),
            "train_targets": either(np.zeros(8), np.full(8, 5), np.full(8, np.nan), np.zeros((8, 2),
            np.int64)),
            "classes": either((), ("a",), ("a", "a")),
        },
    ),
    "digest": Target(
        lambda parts: dataset.digest(*parts), fixed(parts=["a", b"b", np.ones(2)]), {}, is_list
    ),
    "Digest.add": Target(lambda part: dataset.Digest().add(part), fixed(part="a")),
    "blank_images": Target(dataset.blank_images, fixed(classes=2, side=4, count=3), {}, small),
    "stratified": Target(
        dataset.stratified,
        fixed(labels=np.array([0, 1, 0, 1]), counts=[1, 1], seed=0),
        {"counts": either([-1, 1], [9, 9], [1])},
    ),
    "split": Target(
        dataset.split,
        fixed(labels=np.array([0, 1, 0, 1]), classes=["a", "b"], share=0.5, seed=0),
        {"labels": either(np.array([-1, 0, 1, 1]), np.array([0, 0, 1, 5]))},
        small,
    ),
    "cut": Target(lambda dataset, train, test: readers.cut(dataset, train=train, test=test),
                  lambda: {"dataset": NUMBERS, "train": 4, "test": 4}, {"dataset": either(DIGITS)}),
    "build": Target(
        lambda **a: sum(p.numel() for p in networks.build(**a).parameters()),
        fixed(name="mlp", classes=2, channels=3, device="meta"),
        {"name": either("transformer-w8", "transformer-w7", "resnet8-w1", "a:b", "math:pi", "os:getcwd")},
        small,
    ),
    "measure": Target(
        lambda **a: asked(peppp.measure(**a)),
        lambda: {"dataset": NUMBERS, "configuration": GRID[0], "recipe": MLP, "seed": 0, "device": "cpu"},
        {
            "recipe": some_recipes(),
            "configuration": either(parse_precision("amp-bf16"), FP32_CONFIGURATION,
            *map(Configuration.parse, (
                "int8/1-6-7", "mxfp4/1-6-7", "1-4-3@ocp/1-5-2@ocp", "fixed-8-6/fixed-16-12",
                "dynamic8/256/1-6-7"))),
            "dataset": either(
                dataclasses.replace(NUMBERS, loss="squared_error"),
                dataclasses.replace(NUMBERS, train_inputs=np.full((8, 2), np.nan, np.float32)),
                dataclasses.replace(NUMBERS, classes=(), train_targets=np.ones(8, np.float32),
                                    test_targets=np.ones(4, np.float32), loss="squared_error"),
            ),
        },
    ),
    "Loss.error": Target(
        lambda **a: losses.LOSSES["cross_entropy"].error(**a),
        lambda: {"misses": 2.0, "examples": 4, "targets": torch.zeros(4, dtype=torch.int64)},
    ),
    "Loss": Target(
        lambda **a: str(losses.Loss(**a)), fixed(function=max, misses=max, scale=max)
    ),
    "find_loss": Target(losses.find_loss, fixed(name="cross_entropy")),
    "ElementCounts": Target(
        lambda configuration, optimizer, accumulator, **a: counting.ElementCounts(**a).footprint(
            configuration, optimizer=optimizer, accumulator=accumulator),
        fixed(weights=9, activations=9, raw_bytes=0, frozen=0, configuration=GRID[0], optimizer="sgd",
              accumulator=True),
        {"configuration": either(Configuration.parse("mxfp4/int8"))},
    ),
    "bytes_of": Target(counting.bytes_of, fixed(count=9, fmt=FloatFormat(4, 3))),
    "count_elements": Target(
        counting.count_elements,
        lambda: {"network": nn.Linear(2, 2, device="meta"), "input_shape": (2,), "batch_size": 2,
                 "dtype": torch.float32, "loss": None},
        {"input_shape": either((3,), (), (-1,), (2.5,), (2, 2, 2)), "dtype": either(torch.int64,
        torch.float16)},
    ),
    "count_layers": Target(
        counting.count_layers,
        lambda: {"network": nn.Linear(2, 2, device="meta"), "input_shape": (2,), "batch_size": 2},
    ),
    # Campaigns and pages
    "Source.cell": Target(SOURCE.cell, fixed(configuration=GRID[0], recipe=Recipe(), seed=0)),
    "Cell": Target(
        lambda **a: asked(cells.Cell(**a)),
        lambda: {f.name: getattr(CELL, f.name) for f in dataclasses.fields(cells.Cell)},
    ),
    "rows_of": Target(cells.rows_of, fixed(sources=[SOURCE], recipes=[Recipe()])),
    "plan": Target(
        cells.plan,
        fixed(rows=[(SOURCE, Recipe())], configurations=GRID, seeds=(0,), share=0.5, p_max=None, memory=None,
              sampling_seed=0),
        {"memory": either(np.ones((1, 3)), np.arange(3.0)[None]), "seeds": either([-1], [0, 0], [2**64]),
         "share": either(None), "p_max": either(0.5)},
    ),
    "balanced": Target(cells.balanced, fixed(cells=[CELL], present=())),
    "Summary": Target(
        lambda **a: asked(runner.Summary(**a)),
        lambda: {f.name: getattr(runner.Summary(3, 1), f.name) for f in dataclasses.fields(runner.Summary)},
    ),
    "run_campaign": Target(
        campaign,
        lambda: {
            "cells": [CELL], "store": Store.open("sqlite://"), "progress": None, "estimates": Estimates({}),
            "max_seconds": 1.0, "max_measurements": 1, "tries": 1, "lease": 60.0,
        },
    ),
    "overview": Target(
        lambda **a: report.render(overview.overview(**a)),
        lambda: {"measurements": [MEASURED], "budget": None},
        {"measurements": st.lists(some_measurements(), max_size=4)},
    ),
    "render": Target(report.render, fixed(page=PAGE), {"page": some_pages()}),
    "write_report": Target(report.write_report, fixed(path="a.html", page=PAGE), {"page": some_pages()}),
}  # fmt: skip
AN_ANSWER = Advisor(**ADVISOR(), rank=1, method="ed-mf", measurements=1).recommend()
FOUND: dict[str, list[dict[str, Any]]] = {
    "FloatFormat": [
        {"exponent_bits": "e"}, {"flavour": []}, {"mantissa_bits": 1.5}, {"flavour": "a\nb"},
        {"flavour": "x" * 5000},
    ],
    "FloatFormat.parse": [{"text": 0}, {"text": None}],
    "Recipe.from_json": [{"text": ""}, {"text": "[]"}, {"text": "[" * 9999}, {"text": b"1"}],
    "parse_bytes": [{"text": 10**400}, {"text": "9" * 400}],
    "format_bytes": [{"count": Fraction(1, 3)}, {"count": 10**400}],
    "nondominated": [{"memory": 1.5}, {"error": [1, 2]}, {"memory": [[1, 2], [3]]}],
    "settled": [{"errors": [1e308, -1e308]}],
    "hypervolume": [{"memory": -math.inf}, {"error": [0.1]}],
    **{
        name: [{"memory": [0, 0, 0]}, {"memory": [-1, 0, 1]}, {"feasible": 3}]
        for name in ("convergence", "hyperdiff", "frontier_area_difference", "igd_plus")
    },
    "Completion": [{"observed": []}, {"estimate": -2}, {"configuration_embeddings": 0},
    {"columns": list("abc")}],
    "Completion.take": [{"columns": 0}, {"columns": "A"}, {"columns": [99]}, {"columns": [[1, 2], [3]]}],
    "complete": [{"shrinkage": -5.0}, {"shrinkage": math.nan}],
    "learn": [{"rows": True}, {"rows": []}, {"rows": 2**63}],
    "filled": [{"matrix": matrix.ErrorMatrix(np.zeros((0, 0)), (), ())}],
    "complete_values": [{"values": True}, {"observed": []}, {"values": 0, "shrinkage": None}],
    "factorise": [{"estimate": 7}, {"estimate": np.zeros((0, 3))}],
    "inverse_propensity": [{"floor": 0.0, "probabilities": 0}, {"floor": 1e-320, "probabilities": 0},
    {"floor": 10**400}],
    "soft_impute": [{"shrinkage": math.nan}, {"tolerance": 10**400}, {"weights": np.full((4, 3), 1e308)}],
    "d_optimal": [{"embeddings": 0, "feasible": None}, {"embeddings": np.full((3, 2), math.nan)}],
    "least_squares": [{"embeddings": 2}, {"measured": [0, 9]}],
    "determines": [{"measured": 7}, {"embeddings": [4, 2]}, {"measured": [10**400]},
    {"measured": np.array(4)}],
    "spanned": [{"embeddings": 0}, {"embeddings": np.ones((3, 2, 1))}, {"embeddings": [[math.inf]]}],
    "candidates": [{"embeddings": 0, "feasible": None}],
    "ErrorMatrix.take": [{"rows": []}, {"columns": 0}, {"columns": [99]}],
    "ErrorMatrix.masked": [{"mask": []}],
    "error_matrix": [{"measurements": np.array(1.0)}],
    "read_table": [{"path": "a\nb"}, {"path": "\0"}, {"path": "x" * 5000}],
    "read_measurements": [{"place": "a\nb"}, {"place": "x" * 5000}],
    "Store.open": [{"place": "\ud800"}, {"place": "\udcff"}, {"place": "x" * 5000}],
    "Advisor": [{"tolerance": -1.0}, {"peaks": {GRID[0]: 1}}],
    "Pick": [
        {"interval": (math.nan, 1.0)}, {"line": "bf16"}, {"predictions": ()}, {"configuration": ""},
        {"planned": ["1-4-3"]},
    ],
    "Pick.frontier_over": [{"costs": [0]}, {"costs": [{GRID[0]: None}]}, {"costs": [{GRID[0]: "a"}]}],
    "quantize": [{"out": torch.zeros(1, 2).expand(2, 2)}],
    "rounding_points": [{"inputs": [torch.ones(1, 3)]}, {"inputs": []}],
    "plan": [{"sampling_seed": -1}],
    "prepare": [{"module": nn.Linear(2, 2, device="meta")}, {"module": nn.Identity()}, {"recompute": ["9"]},
    {"precision": "fp32", "optimizer": (torch.optim.LBFGS, {})}],
    "Dataset": [{"train_inputs": 1}, {"test_inputs": [[]], "test_targets": [[]]}],
    "digest": [{"parts": ["\udcff"]}],
    "blank_images": [{"side": True}, {"count": -1}],
    "stratified": [{"seed": -1}, {"labels": 7}, {"counts": -1}, {"counts": [-1, 1]}],
    "split": [{"share": math.inf}, {"labels": np.array([-1, 0, 1, 1])}, {"labels": np.array([0, 0, 1, 5])}],
    "cut": [{"train": -1}, {"test": 0}],
    "build": [{"channels": -1}, {"name": "mlp-w99999999999999999999"}, {"device": "nearest"}],
    "measure": [
        {"device": "nearest"}, {"dataset": dataclasses.replace(NUMBERS, loss="squared_error")},
        *(
            {"recipe": dataclasses.replace(MLP, **{name: value})}
            for name, value in [("epochs", 0), ("epochs", -1), ("batch_size", 0), ("learning_rate", 1e308)]
        ),
    ],
    "Loss.error": [{"examples": 0}, {"targets": torch.zeros(0)}],
    "ElementCounts": [{"optimizer": "Q"}],
    "run_campaign": [{"lease": 1e308}, {"tries": 0}],
    "render": [{"page": {"a": 1}}, {"page": PAGE | {"rows": {}}}, {"page": PAGE | {"pick": None,
    "frontier": [9]}}],
}  # fmt: skip


@st.composite
def changes(draw, target):
    """Other values for some of a target's arguments."""
    valid = target.valid()
    chosen = draw(st.lists(st.sampled_from(sorted(valid)), max_size=3, unique=True)) if valid else []

    def others(name):
        if name in ("on", "inputs"):
            return target.near[name]
        near = target.near.get(name, target.wrong)
        kinds = [near, near, like(valid[name]).filter(target.allowed), target.wrong]
        return st.one_of(kinds)

    return {name: draw(others(name)) for name in chosen}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A folder with a small table and data set in it, where everything is written."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        csv.write_table("small.csv", [dataclasses.replace(MEASURED, configuration=c) for c in GRID])
        parts = {name: getattr(NUMBERS, name) for name in ("train_inputs", "train_targets")}
        np.savez("tiny.npz", x=parts["train_inputs"], y=parts["train_targets"])
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_any_argument_is_taken_or_refused_in_one_line(name):
    target = TARGETS[name]

    @settings(max_examples=EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
    @given(changed=changes(target))
    def fuzzed(changed):
        answers_or_refuses(target, changed)

    fuzzed.__name__ = name  # under which hypothesis keeps what it found
    for found in FOUND.get(name, []):
        fuzzed = example(changed=found)(fuzzed)
    fuzzed()


@pytest.mark.parametrize("name", TARGETS)
def test_valid_arguments_are_taken(name):
    """Else nothing of a function would be seen but its border."""
    if name != "read_table":
        TARGETS[name].call(**TARGETS[name].valid())


def answers_or_refuses(target, changed):
    arguments = target.valid() | changed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        try:
            result = target.call(**arguments)
        except PepppError as error:
            text = str(error)
            assert text.strip(), "says nothing"
            assert len(text.splitlines()) == 1, f"more than one line: {text!r}"
            assert len(text) < 2100, "a long line"
            return
    finite = not any(map(has_nan, arguments.values()))
    assert not (finite and has_nan(result)), f"NaN of finite numbers: {result}"


def has_nan(value):
    """Whether there is a number in a value that is not finite, or NaN in a result."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and value.device.type == "cpu" and not value.isfinite().all()
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and not np.isfinite(value).all()
    if isinstance(value, (list, tuple)):
        return any(map(has_nan, value))
    return isinstance(value, (float, np.floating)) and not math.isfinite(value)
