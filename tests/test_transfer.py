"""Whether a table helps beyond its own networks, resolutions and roundings: tables whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from peppp.advise.caution import Asked, digest_of, transfers
from peppp.formats import FP32_CONFIGURATION, paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.table.csv import write_table
from peppp.table.measured import error_matrix
from peppp.table.select import alike, taught_by

GRID = paper_grid()[:33]


def table(networks, tasks=6, configurations=GRID, resolutions=(16,)):
    """Errors that fall along the columns for network ``a`` and rise along them for every other one."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(tasks):
        network, resolution = networks[number % len(networks)], resolutions[number % len(resolutions)]
        level = rng.uniform(0.5, 1.0)
        along = np.linspace(0.9, 0.1, len(GRID))
        errors = level * (along if network == "a" else along[::-1])
        recipe = replace(Recipe(), network=network, resolution=resolution)
        row = f"task{number}", f"f{number}", f"g{number}"
        found += [
            Measurement(
                *row, c, recipe, 0, 0.9, error, error, (), Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0
            )
            for c, error in zip(configurations, errors, strict=False)
        ]
    return found


def transferred(measurements, recipe, method="ed-mf", count=6, budget=np.inf):
    matrix = error_matrix(measurements)
    memory = np.arange(1.0, 1.0 + len(matrix.columns))
    pick = Asked.of(method, count, 3, memory <= budget)
    return transfers(matrix, lambda: matrix, recipe, pick, digest_of(matrix))


def asked(**fields):
    return replace(Recipe(), **{"network": "a", "resolution": 16, **fields})


@pytest.mark.parametrize(
    ("tasks", "columns", "learned"), [(3, 10, "nearest"), (2, 33, "stochastic"), (6, 9, "stochastic")]
)
def test_rows_of_the_same_rounding_teach_unless_they_are_few(tmp_path, tasks, columns, learned):
    nearest = [
        replace(m, recipe=replace(m.recipe, rounding="nearest"))
        for m in table(["a"], tasks=tasks, configurations=GRID[:columns])
    ]
    write_table(tmp_path / "table.csv", table(["a"]) + nearest)
    found, _ = alike(tmp_path / "table.csv", asked(rounding="nearest"))
    assert {m.recipe.rounding for m in found} == {learned}
    write_table(tmp_path / "nearest.csv", nearest)
    found, unused = alike(tmp_path / "nearest.csv", asked(rounding="nearest"))
    assert (len(found), unused) == (len(nearest), "")


def test_a_pick_learns_from_its_own_recipe_where_that_has_enough_tasks_and_else_from_the_commonest():
    few, many = table(["a"], tasks=9), table(["b"], tasks=12)
    fp32 = [replace(m, configuration=FP32_CONFIGURATION) for m in few[: len(GRID)] + many[: len(GRID)]]
    everything = [*few, *many, *fp32]

    def networks(measurements, recipe):
        return {m.recipe.network for m in taught_by(measurements or everything, recipe)}

    assert networks(None, recipe=asked(network="b")) == {"b"}
    assert networks(None, recipe=asked(network="a")) == {"b"}  # nine tasks are few
    assert networks(None, recipe=asked(network="c")) == {"b"}
    more = table(["a"], tasks=10)
    assert networks([*more, *many], recipe=asked(network="a")) == {"a"}
    assert networks(table(["a", "b"], tasks=2), recipe=asked(network="a")) == {"a", "b"}  # all that there is
    rates = [replace(m, recipe=replace(m.recipe, learning_rate=0.1)) for m in more]
    assert len(taught_by([*more, *rates, *many], asked(), every_rate=True)) == len(more) + len(rates)
    assert {m.recipe.learning_rate for m in taught_by([*more, *rates], asked())} == {0.001}


def test_nothing_is_said_of_what_the_table_has():
    assert transferred(table(["a"]), asked()) == ()


def test_rows_of_one_network_alone_cannot_tell_how_another_fares():
    (found,) = transferred(table(["a"]), asked(network="mine"))
    assert (found.field, found.value, found.known) == ("network", "mine", ("a",))
    assert found.across is None
    assert "few or no rows with network mine, so the pick learned from a" in str(found)
    assert "could not be measured" in str(found)


def test_networks_that_rank_formats_the_other_way_round_teach_nothing_about_each_other():
    (found,) = transferred(table(["a", "b"], tasks=12), asked(network="c"))
    # One row of a level is a multiple of another, so that a single measurement tells all within a network.
    assert found.tasks == 12
    assert found.within == pytest.approx(0, abs=1e-9)
    assert found.across > 0.2


def test_resolutions_that_rank_formats_alike_do():
    (found,) = transferred(table(["a"], tasks=12, resolutions=(8, 16)), asked(resolution=32))
    assert (found.tasks, found.known) == (12, ("8", "16"))
    assert found.across == pytest.approx(0, abs=1e-9)
    assert "12 tasks" in str(found)


def test_every_field_that_differs_is_named():
    found = transferred(table(["a"]), asked(network="b", resolution=32, rounding="nearest"))
    assert [transfer.field for transfer in found] == ["network", "resolution", "rounding"]


def test_tasks_known_at_a_few_configurations_are_not_judged():
    (found,) = transferred(table(["a", "b"], tasks=12, configurations=GRID[:9]), asked(network="c"))
    assert (found.tasks, found.across) == (0, None)


def test_the_note_speaks_for_the_pick_that_was_asked_for():
    """Within a budget of one configuration nothing can be regretted; a method is judged as it is."""
    both = table(["a", "b"], tasks=12)
    (one,) = transferred(both, asked(network="c"), budget=1)
    assert (one.across, one.within) == (0, 0)
    none, six = (transferred(both, asked(network="c"), count=count)[0] for count in (0, 6))
    assert none.within == pytest.approx(0, abs=1e-9)
    assert "ed-mf with 0 measurements" in str(none)
    assert "ed-mf with 6 measurements" in str(six)
    (largest,) = transferred(both, asked(network="c"), method="high-memory", count=3)
    assert "high-memory with 3 measurements" in str(largest)
    assert largest.across == largest.within > 0.1  # it picks by memory, whatever teaches it
