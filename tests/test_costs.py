"""Costs beside error and memory: what they are made of, and the frontier over several of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from peppp.advise.advisor import Advisor
from peppp.advise.costs import add_energy, column_cost, energy_cost, memory_cost, multiply_energy, time_cost
from peppp.errors import NetworkError, TableError
from peppp.footprint.operations import count_multiply_adds
from peppp.formats import Configuration, paper_grid, parse_format
from peppp.page.report import render
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.table.matrix import ErrorMatrix, Row
from peppp.tasks.readers import load
from peppp.training.sizes import training_operations

GRID = paper_grid()


def timed(task, configuration, seconds, machine="Z80"):
    return Measurement(
        task, task, task, configuration, Recipe(), 0, 0.9, 0.5, 0.5, (), Footprint(1, 1, 1, {}),
        Outcome.FINISHED, seconds, provenance={"device": "cpu", "processor": machine},
    )  # fmt: skip


def pick(costs=()):
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.2, 0.9, (9, 1)) * rng.uniform(0.3, 0.9, (1, len(GRID)))
    table = ErrorMatrix.from_values(errors, [Row(f"t{i}", "", f"t{i}") for i in range(9)], GRID)
    footprints = {c: Footprint(c.format_a.bits * 1000, 0, c.format_b.bits * 1000, {}) for c in GRID}
    return replace(Advisor(table, footprints, "24KB", measurements=0).recommend(), costs=tuple(costs))


def test_published_energies_are_met_and_widths_between_lie_between():
    assert [multiply_energy(parse_format(f)) for f in ("int8", "fp16", "fp32")] == pytest.approx(
        [0.2, 1.1, 3.7]
    )
    assert [add_energy(parse_format(f)) for f in ("int8", "fp16", "fp32")] == pytest.approx([0.03, 0.4, 0.9])
    by_width = [multiply_energy(parse_format(f)) for f in ("1-3-1", "1-4-3", "fp16", "1-7-11", "fp32")]
    assert by_width == sorted(by_width)
    for text in ("mx-1-4-3/32", "mx-1-4-3/32@even", "scaled-1-4-3"):
        assert multiply_energy(parse_format(text)) == multiply_energy(parse_format("1-4-3"))
    assert multiply_energy(parse_format("nvfp4")) == multiply_energy(parse_format("mxfp4"))
    # Half the width on a power law through 16 and 32 bits costs less by the same factor again.
    assert multiply_energy(parse_format("1-4-3")) == pytest.approx(1.1 * 1.1 / 3.7)


def test_energy_grows_with_both_formats_and_is_called_a_model():
    cost = energy_cost(GRID, 1e6, 1e4, 100)
    assert "not measured" in cost.source
    one = Configuration.parse("1-4-1/1-6-7")
    for wider in ("1-4-2/1-6-7", "1-4-1/1-6-9"):
        assert cost.values[Configuration.parse(wider)] > cost.values[one]
    by_hand = 100 * (1e6 * (multiply_energy(one.format_a) + 0.9) + 1e4 * 3 * (
        multiply_energy(one.format_b) + add_energy(one.format_b)
    ))  # fmt: skip
    assert cost.values[one] == pytest.approx(by_hand * 1e-12)


def test_multiply_adds_are_those_of_the_layers():
    """A convolution: outputs x weights each; three times with both gradients, twice in the first layer."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, device="meta"),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 5, device="meta"),
    )
    convolution, linear = 16 * 16 * 8 * 27, 8 * 16 * 16 * 5
    assert count_multiply_adds(network, [3, 16, 16], 4) == 4 * (2 * convolution + 3 * linear)
    with pytest.raises(NetworkError, match="cannot be counted on inputs of 3x8x8"):
        count_multiply_adds(network, [3, 8, 8], 4)


def test_operations_of_a_training_count_its_steps():
    dataset = load("digits:0123?train=120&test=60")
    recipe = Recipe(network="resnet8-w4", batch_size=32, epochs=2)
    operations, parameters, steps = training_operations(dataset, recipe)
    assert steps == 2 * 3
    assert operations > 32 * parameters
    assert training_operations(dataset, replace(recipe, min_steps=10))[2] == 12  # whole epochs


def test_times_are_those_of_a_log_linear_law():
    """Seconds made of task, machine and formats are found again, also where nothing was timed."""
    of_a = {a: 1 + 0.1 * i for i, a in enumerate(sorted({str(c.format_a) for c in GRID}))}
    of_b = {b: 1 + 0.3 * i for i, b in enumerate(sorted({str(c.format_b) for c in GRID}))}
    law = {c: of_a[str(c.format_a)] * of_b[str(c.format_b)] for c in GRID}
    rng = np.random.default_rng(0)
    measurements = [
        timed(task, GRID[j], level * law[GRID[j]], machine)
        for task, level, machine in [("x", 2.0, "Z80"), ("y", 9.0, "Z80"), ("z", 5.0, "6502")]
        for j in rng.permutation(99)[:60]
    ]
    cost = time_cost(measurements, GRID)
    ratios = np.array([cost.values[c] / law[c] for c in GRID])
    assert ratios.max() / ratios.min() == pytest.approx(1.0, abs=2e-5)  # to six digits
    assert "180 trainings measured on 6502 and Z80" in cost.source
    own = cost.anchored({GRID[3]: 7.0, GRID[5]: 7.0 * law[GRID[5]] / law[GRID[3]]})
    assert own.values[GRID[3]] == pytest.approx(7.0, rel=2e-5)
    with pytest.raises(TableError, match="no seconds"):
        time_cost([], GRID)


def test_a_column_of_ones_own(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("configuration,euro\n" + "".join(f"{c},{i}\n" for i, c in enumerate(GRID)))
    cost = column_cost(f"{file}:euro", GRID)
    assert (cost.name, cost.values[GRID[7]], cost.source) == ("euro", 7.0, "from prices.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("configuration,joules\n", "has no column 'euro'; it has configuration, joules"),
        ("configuration,euro\n1-4-1/1-6-7,cheap\n", "line 2, column euro: 'cheap' is not a number"),
        ("configuration,euro\n1-4-1/1-6-7,nan\n", "'nan' is not a finite number"),
        ("configuration,euro\n1-4,1\n", "line 2: not a"),
        ("configuration,euro\n1-4-1/1-6-7,1\n1-4-1/1-6-7,2\n", "line 3: 1-4-1/1-6-7 is listed twice"),
        ("configuration,euro\n1-4-1/1-6-7,1\n", "has no euro for"),
    ],
)
def test_a_column_that_is_wrong_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "prices.csv"
    file.write_text(text)
    with pytest.raises(TableError, match=message) as caught:
        column_cost(f"{file}:euro", GRID)
    assert "\n" not in str(caught.value)


def test_a_pick_lists_what_is_optimal_in_all_its_costs():
    energy = energy_cost(GRID, 1e6, 1e4, 100)
    footprints = {p.configuration: p.footprint for p in pick().predictions}
    chosen = pick([memory_cost({c: f.total for c, f in footprints.items()}), energy])
    assert set(chosen.cost_frontier) >= set(chosen.frontier)
    assert "Pareto optimal in error and memory and energy" in str(chosen)
    assert "energy: modelled, not measured" in str(chosen)
    plain = json.loads(chosen.to_json())
    assert [cost["name"] for cost in plain["costs"]] == ["memory", "energy"]
    assert plain["cost_frontier"] == [str(c) for c in chosen.cost_frontier]
    assert math.isclose(plain["predictions"][0]["costs"]["energy"], energy.values[GRID[0]])
    html = render(chosen.page_data())
    assert "modelled, not measured" in html
    assert html.count('<th scope="row">') == len(GRID) + len(chosen.cost_frontier)
    assert pick().cost_frontier == ()
    assert 'id="costs"' not in render(pick().page_data())
