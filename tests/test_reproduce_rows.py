"""Figures of rows that few tables have, on rows made by hand whose answer is known, also where it is no."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from peppp import Footprint, Measurement, Outcome, Recipe, paper_grid
from peppp.cli import app
from peppp.paper import pictures
from peppp.paper.figure import Panel
from peppp.paper.figures import reproduce
from peppp.paper.study import Study
from peppp.paper.synthetic import synthetic_table
from peppp.table.csv import write_table

GRID = paper_grid()[:18]  # Formats A 1-3-1 and 1-3-2, each with the nine Formats B
D = len(GRID)
DOWN = np.linspace(0.9, 0.2, D)  # the more memory, the less error: every configuration is Pareto optimal


def row(task, errors, *, seed=0, **recipe):
    """Measurements of a task by hand: column j takes 1000 (j + 1) bytes."""
    return [
        Measurement(
            task=task,
            fingerprint=task,
            group=task,
            configuration=configuration,
            recipe=Recipe(**recipe),
            seed=seed,
            chance_error=0.9,
            test_error=float(error),
            train_error=float(error),
            curve=(),
            footprint=Footprint(1000 * (j + 1), 0, 0, {}),
            outcome=Outcome.FINISHED,
            seconds=1.0,
        )
        for j, (configuration, error) in enumerate(zip(GRID, errors, strict=True))
    ]


def rows(matrix, **recipe):
    return [m for i, errors in enumerate(matrix) for m in row(f"t{i}", errors, **recipe)]


# Figure 19.


def test_figure_19_holds_where_long_training_keeps_the_order():
    table = [*rows([DOWN, DOWN / 2]), *row("t0", DOWN - 0.1, epochs=100)]
    figure = reproduce("19", Study(table))
    assert figure.holds is None  # of one task nothing is shown
    assert figure.verdict == "not shown here"
    assert reproduce("19", Study([*table, *row("t1", DOWN / 3, epochs=100)])).holds is True
    assert "Kendall's tau 1.00 on t0" in figure.finding
    assert "lowest error 10.0% after 100 epochs" in figure.finding
    assert len(figure.records) == D
    first = next(r for r in figure.records if r["configuration"] == str(GRID[0]))
    assert (first["error_after_10_epochs"], first["error_after_100_epochs"]) == pytest.approx((0.9, 0.8))


def test_figure_19_does_not_hold_where_long_training_turns_the_order_round():
    turned = [m for t in ("t0", "t1") for m in row(t, DOWN[::-1], epochs=100)]
    figure = reproduce("19", Study([*rows([DOWN, DOWN]), *turned]))
    assert figure.holds is False
    assert "Kendall's tau -1.00 on t0, -1.00 on t1" in figure.finding


# Figure 20.


def test_figure_20_holds_where_another_rate_errs_less():
    better = np.where(np.arange(D) < D // 2, DOWN + 0.1, DOWN - 0.1)
    table = [*rows([DOWN] * 3), *(m for t in ("t0", "t1") for m in row(t, better, learning_rate=0.01))]
    figure = reproduce("20", Study(table))
    assert figure.holds is True
    assert "0.001 for 50%, 0.01 for 50%" in figure.finding
    assert "tuning lowers the mean error by 0.050 on 2 tasks" in figure.finding
    assert f"then have {D} to {D} configurations" in figure.finding
    tuned = [r["error"] for r in figure.records if r["learning_rate"] == "tuned"]
    assert tuned == pytest.approx(np.minimum(DOWN, better))
    assert {r["point"] for r in figure.records} == {"Pareto optimal"}


@pytest.mark.parametrize(
    ("base", "other", "holds"),
    [(DOWN, DOWN + 0.05, None), (DOWN[::-1], DOWN[::-1] - 0.1, False)],
    ids=["no gain: ties alone", "no trade-off"],
)
def test_figure_20_does_not_hold_where_nothing_is_gained_or_nothing_traded(base, other, holds):
    tuned = [m for t in ("t0", "t1") for m in row(t, other, learning_rate=0.01)]
    figure = reproduce("20", Study([*rows([base] * 3), *tuned]))
    assert figure.holds is holds


# Figure 12.


def test_figure_12_shows_nothing_of_one_family_and_of_ties():
    """Of one family the interval of a ratio is all of [0, inf]."""
    one = [replace(m, group="one") for m in rows(low_rank(8, 2))]
    figure = reproduce("12", Study(one))
    assert figure.holds is None
    assert figure.verdict == "not shown here"
    assert reproduce("12", Study(rows(np.full((8, D), 0.5)))).holds is None  # all picks err alike


# Figures 21 to 24: rows are tasks at several rates.

RATES = (0.01, 0.0001)


def at_rates(matrix):
    """Rows of a matrix [3 n, d] as n tasks at three learning rates, the commonest first."""
    n = len(matrix) // 3
    parts = [rows(matrix[:n])] + [
        rows(matrix[(k + 1) * n : (k + 2) * n], learning_rate=rate) for k, rate in enumerate(RATES)
    ]
    return [m for part in parts for m in part] + row("alone", DOWN)


def low_rank(n, rank, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.3, 1.0, (n, rank)) @ rng.uniform(0.2, 0.9, (rank, D)) / rank


def twice(matrix, again=None):
    """Rows on two seeds, with a rounding under which each column is judged by its own other run."""
    mixed = "values=nearest,errors=nearest,gradient=stochastic,states=nearest"
    return [*rows(matrix, rounding=mixed), *rows(matrix if again is None else again, rounding=mixed, seed=1)]


def noise(n, seed=0):
    return np.random.default_rng(seed).random((n, D))


def test_figure_21_tells_a_low_rank_from_none():
    holding = reproduce("21", Study(at_rates(low_rank(12, 1))))
    assert holding.holds is True
    assert "the second singular value is 0% of the first" in holding.finding
    assert "rank 5 holds 100.0% of the sum of squares and 100% of the sum" in holding.finding
    E = np.array(low_rank(12, 1))
    assert holding.records[0]["singular_value"] == pytest.approx(np.linalg.norm(E))
    assert len(holding.records) == 12
    failing = reproduce("21", Study(at_rates(noise(12))))
    assert failing.holds is False


@pytest.mark.parametrize(("share", "largest"), [(0.55, 0.25), (0.33, 0.15)])
def test_figure_9_leaves_half_of_what_a_table_knows_to_be_estimated(share, largest):
    rng = np.random.default_rng(0)
    table = [m for m in synthetic_table(12, further=False) if rng.random() < share]  # invented errors
    figure = reproduce("9", Study(table, masks=1))
    assert figure.settings["amounts"][-1] == largest
    assert (figure.holds is None) == (largest < 0.2)  # whether 20 % suffice cannot be tried
    assert f"knows {Study(table).known.share:.0%}" in figure.finding


def test_errors_that_nobody_measured_are_not_shown_as_measured():
    rng = np.random.default_rng(1)
    table = [m for m in synthetic_table(12, further=False) if rng.random() < 0.5]  # invented errors
    measured = {(m.task, str(m.configuration)): m.test_error for m in table}
    study = Study(table)
    assert study.known.share < 1
    first = study.known.names[0]
    for name in ("1a", "4", "7"):
        records = reproduce(name, study).records
        assert {(r.get("task", first), r["configuration"]) for r in records} <= set(measured)
        assert all(r["error"] == measured[r.get("task", first), r["configuration"]] for r in records)
    assert sorted(r["error"] for r in reproduce("15", study).records) == sorted(measured.values())
    seven = reproduce("7", study)
    beyond = {
        r["memory_mb"] > seven.settings["cap"] / 1e6 for r in seven.records if r["point"] == "beyond the cap"
    }
    assert beyond == {True}


@pytest.mark.parametrize("name", ["22", "23"])
def test_figures_22_and_23_complete_what_has_a_low_rank(name):
    figure = reproduce(name, Study(at_rates(low_rank(36, 1)), masks=3))
    assert figure.holds is True
    last = figure.settings["amounts"][-1]
    errors = [r["relative_error"] for r in figure.records if (r["sampled"], r["kind"]) == (last, "task")]
    assert len(errors) == 36
    assert max(errors) < 0.1
    bars = [r for r in figure.records if r["kind"] != "task"]
    assert {r["task"] for r in bars} == {"t0 learning_rate=0.01"}  # as the paper's: at the highest rate
    assert bars[0]["kind"].endswith("over 3 masks")
    assert all(r["hyperdiff_low"] <= r["hyperdiff"] <= r["hyperdiff_high"] for r in bars)


def test_figure_22_does_not_hold_where_nothing_can_be_completed():
    assert reproduce("22", Study(at_rates(noise(36)), masks=1)).holds is False


def test_figure_23_does_not_hold_where_nothing_is_wrong_to_begin_with():
    constant = np.full((36, D), 0.5)  # two effects say it all, however little is sampled
    assert reproduce("23", Study(at_rates(constant), masks=1)).holds is False


def test_figure_24_holds_where_one_factor_decides_and_not_where_there_is_nothing_to_learn():
    exact = reproduce("24", Study(at_rates(low_rank(12, 1)), leave="row"))
    assert exact.holds is True
    first = next(r for r in exact.records if (r["setting"], r["method"]) == ("I", "ed-mf"))
    assert first["hyperdiff"] == pytest.approx(0.0, abs=1e-9)  # one measurement tells the factor
    assert {r["setting"] for r in exact.records} == {"I", "II", "III", "IV", "V", "VI"}
    assert reproduce("24", Study(at_rates(noise(6)), leave="row")).holds is not True


# Figures 25 and 26: rows of several networks.


def test_figure_25_holds_where_networks_share_a_factor():
    E = low_rank(8, 1)
    exact = reproduce("25", Study([*rows(E), *rows(E[:4] * 0.9, network="vgg11")]))
    assert exact.holds is True
    assert "ED-MF is best or within 10 % of the best in 12 of 12 comparisons" in exact.finding
    assert "vgg11 0.000" in exact.finding


def test_figure_25_does_not_hold_where_the_columns_means_are_all_there_is_to_know():
    apart = noise(12) / 5 - 0.1
    known = rows([*(DOWN + apart), *(DOWN - apart)])  # their means are DOWN, which no few factors hold
    other = [m for task in ("new", "newer") for m in row(task, DOWN, network="vgg11")]
    figure = reproduce("25", Study([*known, *other]))
    assert figure.holds is False
    exact = [r["hyperdiff"] for r in figure.records if r["method"] == "bo-mf"]
    assert exact == pytest.approx([0.0] * len(exact), abs=1e-9)  # its prior mean are the columns' means
    assert "in 0 of 12 comparisons" in figure.finding


def test_figure_26_holds_where_only_another_network_has_seen_the_like():
    u, v, w = np.eye(D)[:3] * 0.6 + 0.05 * np.random.default_rng(0).random((3, D)) + 0.2
    table = [*rows([u, v, w]), *rows([v, w, u], network="vgg11")]
    figure = reproduce("26", Study(table))
    assert figure.holds is True
    assert "mean HyperDiff" in figure.finding
    assert "0.0000 in Case ii" in figure.finding
    assert {r["source"] for r in figure.records} == {"i: same network", "ii: all networks"}
    assert all(r["rows"] == 6 for r in figure.records)


def test_relatives_are_left_out_where_others_remain():
    E = low_rank(6, 1)
    table = [*rows(E), *rows(E, network="vgg11")]
    related = [replace(m, group="family") if m.task in ("t0", "t1", "t2") else m for m in table]
    most = [replace(m, group="family") if m.task != "t5" else m for m in table]
    for name in ("25", "26"):
        assert reproduce(name, Study(related)).settings["leave"] == "family"
        assert reproduce(name, Study(related, leave="row")).settings["leave"] == "row"
        assert reproduce(name, Study(most)).settings["leave"] == "row"


def test_figure_26_does_not_hold_where_the_same_network_says_it_all():
    E = low_rank(4, 1)
    table = [*rows(E), *rows(noise(4), network="vgg11"), *rows(noise(4, 1), network="vgg13")]
    figure = reproduce("26", Study([m for m in table if m.recipe.network != "vgg13" or m.task != "t3"]))
    assert figure.holds is False


# Stochastic against nearest.


def test_rounding_counts_cells_and_finds_what_format_b_decides():
    a = np.repeat([0.2, 0.45], D // 2)  # Format A decides
    b = np.tile(np.linspace(0.8, 0.4, D // 2), 2)  # Format B decides; once nearest is better
    figure = reproduce("rounding", Study([*rows([a, a, a]), *rows([b, b, b], rounding="nearest")]))
    assert figure.holds is None
    less = np.mean(a < b)
    assert (
        f"the lower error in {less:.0%} of {3 * D} cells, and a mean error lower by {np.mean(b - a):.3f};"
        in figure.finding
    )
    stochastic, nearest = figure.finding.split("; ")[1:]
    assert "stochastic: Format B explains 0.0% of the column means' variance" in stochastic
    assert "nearest: Format B explains 100.0% of the column means' variance" in nearest
    assert f"most frontiers {GRID[0]} 3, {GRID[1]} 3, {GRID[2]} 3" in nearest
    assert f"most frontiers {GRID[0]} 3" in stochastic  # of the second Format A all are dominated
    assert len(figure.records) == 3 * D


# What is measured against how the rest is predicted.


def test_one_factor_is_predicted_whatever_is_measured_and_the_best_in_turn_are_the_tables():
    figure = reproduce("designs", Study(twice(low_rank(8, 1))))
    assert len(figure.records) == 3 * 4 * 4
    exact = [r for r in figure.records if r["predictor"] in ("least squares", "rank 1")]
    assert max(r["regret"] for r in exact) == pytest.approx(0.0, abs=1e-9)
    assert max(r["prediction_error"] for r in exact) == pytest.approx(0.0, abs=1e-6)
    assert "judged by noise-free errors" in figure.finding


def test_what_is_measured_decides_where_each_task_is_good_at_something_else():
    # One in four configurations is good, another one on each task, and the table knows which four these are.
    E = np.full((16, D), 0.8) + 0.01 * np.arange(16)[:, None]
    E[np.arange(16), np.arange(16) % 4] = 0.1
    records = reproduce("designs", Study(twice(E))).records
    regret = {(r["design"], r["predictor"]): r["regret"] for r in records if r["measurements"] == 6}
    assert regret["table's best in turn", "BO's process"] == pytest.approx(0.0)
    another = reproduce("designs", Study(twice(E, 1 - E))).records
    worst = {(r["design"], r["predictor"]): r["regret"] for r in another if r["measurements"] == 6}
    assert worst["table's best in turn", "BO's process"] > 0.2  # what was best is worst on that seed


# All of them as a user asks for them.

EVERYTHING = [
    *at_rates(low_rank(12, 2)),
    *rows(low_rank(4, 2, 1), epochs=100),
    *rows(low_rank(4, 2, 2), network="vgg11"),
    *rows(low_rank(4, 2, 3), rounding="nearest"),
]


@pytest.mark.parametrize("name", ["19", "20", "21", "22", "23", "24", "25", "26", "rounding"])
def test_each_is_written_as_numbers_and_as_a_picture(name, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    table, numbers, picture = tmp_path / "t.csv", tmp_path / "n.csv", tmp_path / "p.png"
    write_table(table, EVERYTHING)
    line = ["reproduce", name, str(table), "--masks", "2", "--csv", str(numbers), "--plot", str(picture)]
    done = CliRunner().invoke(app, [*line, "--json"], catch_exceptions=False)
    answer = json.loads(done.stdout)
    with open(numbers) as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(answer["records"]) > 0
    for one, other in zip(written, answer["records"], strict=True):
        for field, value in other.items():
            if value is not None:
                assert one[field] == (str(value) if not isinstance(value, float) else repr(value))
    assert picture.read_bytes().startswith(b"\x89PNG")


def axes():
    matplotlib = pytest.importorskip("matplotlib.figure", reason="needs the plot extra")
    return matplotlib.Figure().subplots()


def test_a_violin_shows_tasks_and_red_bars_show_masks():
    records = [{"sampled": s, "hyperdiff": s * t} for s in (0.1, 0.2) for t in (1, 2, 3)]
    records += [
        {"sampled": s, "hyperdiff": 0.5, "hyperdiff_low": 0.4, "hyperdiff_high": 0.7, "kind": "5 masks"}
        for s in (0.1, 0.2)
    ]
    ax = axes()
    panel = Panel("violin", "sampled", "hyperdiff", low="hyperdiff_low", high="hyperdiff_high")
    pictures._violin(ax, panel, records)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10%", "20%"]
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[1, 0.5], [2, 0.5]])
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx([0.4, 0.7])] * 2


def test_bars_of_lines_end_where_the_records_say_and_nothing_measured_is_a_level():
    records = [
        {"used": x, "y": 1.0, "a": 0.5, "b": 2.0, "method": m, "l": x}
        for m, xs in (("one", (1.0, 2.0)), ("zero", (0.0, 0.0)))
        for x in xs
    ]
    ax = axes()
    pictures._line(ax, Panel("line", "used", "y", "method", "a", "b"), records)
    (bars,) = ax.containers
    assert [s[:, 1].tolist() for s in bars.lines[2][0].get_segments()] == [[0.5, 2.0]] * 2
    assert ax.get_legend_handles_labels()[1].count("zero") == 1


def test_more_seeds_and_other_tasks_do_not_mix(tmp_path):
    table = [*rows([DOWN, DOWN]), *row("t0", DOWN - 0.1, epochs=100)]
    again = [replace(m, seed=1, test_error=0.99) for m in table if m.recipe.epochs == 100]
    assert reproduce("19", Study([*table, *again])).records == reproduce("19", Study(table)).records
