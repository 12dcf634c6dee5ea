"""Each figure from a synthetic table: the numbers are what their definitions say, and gaps are named."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from typer.testing import CliRunner

from peppp import Configuration
from peppp.cli import app
from peppp.errors import PepppError, TableError
from peppp.paper import frontiers, head_to_head, pictures
from peppp.paper.figures import ELSEWHERE, FIGURES, canonical, reproduce
from peppp.paper.results_page import draw_all, write_page
from peppp.paper.scale import paper_scale
from peppp.paper.study import Study
from peppp.paper.synthetic import synthetic_table
from peppp.table.csv import write_table
from peppp.table.matrix import Lacking
from peppp.table.measured import error_matrix
from peppp.table.slices import largest_slice

TABLE = synthetic_table(12)  # invented errors
QUICK = [name for name in FIGURES if name not in ("head-to-head", "better-picks")]


@pytest.fixture(scope="module")
def study():
    return Study(TABLE, masks=2)


@pytest.fixture(scope="module")
def figures(study):
    found, lacking = draw_all(study, QUICK)
    assert not lacking
    return {figure.name: figure for figure in found}


def test_every_figure_of_the_issue_can_be_asked_for():
    asked = [
        "1a",
        "1b",
        "4",
        "5",
        "6a",
        "6b",
        "7",
        "9",
        "10",
        "11",
        "12",
        "13",
        "14",
        "15",
        "16",
        "17",
        "18",
        "19",
        "20",
        "21",
        "22",
        "23",
        "24",
        "25",
        "26",
        "D",
    ]
    assert set(asked) <= set(FIGURES)
    for name in ("2", "3", "8", "table1", "table5"):
        with pytest.raises(TableError, match=r"docs/"):
            canonical(name)
    assert set(ELSEWHERE) == {"2", "3", "8", "table1", "table2", "table3", "table4", "table5"}
    with pytest.raises(TableError, match="unknown figure '27'"):
        canonical("27")


@pytest.mark.parametrize("name", QUICK)
def test_figures_have_numbers_a_claim_and_a_finding(figures, name):
    figure = figures[name]
    assert figure.records
    said = {True: "holds here", False: "does not hold here", None: "not shown here"}
    assert figure.verdict == (said[figure.holds] if figure.claims else "nothing to decide")
    numbers = [v for r in figure.records for v in r.values() if isinstance(v, float)]
    assert np.isfinite(numbers).sum() >= len(numbers) / 2
    assert any(character.isdigit() for character in figure.finding)  # a finding is a number, not a claim
    assert json.loads(json.dumps(figure.to_dict()))["finding"] == figure.finding
    for panel in figure.panels:
        shown = panel.records(figure.records)
        assert any(panel.x in record for record in shown)


def test_figure_6a_is_kendalls_tau(figures, study):
    known = study.known
    record = figures["6a"].records[5]
    i, j = known.names.index(record["task"]), known.names.index(record["other"])
    expected = scipy.stats.kendalltau(known.values[i], known.values[j]).statistic
    assert record["tau"] == pytest.approx(expected)


def test_figure_14_has_both_definitions_of_explained_variance(figures, study):
    S = np.linalg.svd(study.known.values, compute_uv=False)
    second = figures["14"].records[1]
    assert second["share_of_squares"] == pytest.approx((S[:2] ** 2).sum() / (S**2).sum())
    assert second["share_of_values"] == pytest.approx(S[:2].sum() / S.sum())


def test_appendix_d_counts_frontiers(study):
    known = study.known
    counts = frontiers.frontier_counts(known)
    column = known.labels[40]
    by_hand = 0
    for m, e in zip(known.memory, known.values, strict=True):
        better = (m <= m[40]) & (e <= e[40]) & ((m < m[40]) | (e < e[40]))
        by_hand += not better.any()
    assert counts[column] == by_hand


def test_figure_9_takes_the_papers_counts_unless_told():
    assert Study(TABLE).masks == 100
    settings = reproduce("10", Study(TABLE, masks=3)).settings
    assert settings == {"masks": 3}


def test_figures_of_learning_rates_have_a_row_for_each_task_and_rate(study):
    rates = study.rates()
    assert len(rates.names) == 6 * 3
    assert {row.recipe.learning_rate for row in rates.rows} == {0.01, 0.001, 0.0001}
    assert len(rates.columns) == 99


def test_the_papers_scale_counts_the_papers_elements():
    weights, outputs = 11_173_962, 1_785_856  # ResNet-18 at 32 pixels: its convolutions, norms, ReLUs
    known = error_matrix([m for m in largest_slice(TABLE) if m.task == "synthetic-01"], seed=0)
    known = replace(known, rows=(replace(known.rows[0], chance_error=0.9),))
    scaled = paper_scale(known)
    for column, a, b in (("1-4-1/1-6-7", 6, 14), ("1-5-3/1-8-11", 9, 20)):
        expected = (a * (weights + 4 * 32 * outputs) + b * 2 * weights) / 8
        assert scaled.memory[0, known.labels.index(column)] == pytest.approx(expected, abs=4)  # whole bytes


def test_a_poor_table_is_told_what_it_lacks():
    study = Study(synthetic_table(12, further=False), masks=1)
    for name, missing in (
        ("19", "differ in epochs"),
        ("20", "differ in learning_rate"),
        ("25", "differ in network"),
        ("rounding", "differ in rounding"),
    ):
        with pytest.raises(Lacking, match=f"the table lacks .*{missing}"):
            reproduce(name, study)
    found, lacking = draw_all(Study(synthetic_table(2, further=False)), ["1a", "5", "6b", "11"])
    assert [figure.name for figure in found] == ["5"]
    assert set(lacking) == {"1a", "6b", "11"}
    found, lacking = draw_all(Study([]), QUICK)
    assert len(lacking) == len(QUICK) - 1
    assert all("lacks" in why for why in lacking.values())


def test_the_page_names_what_holds_what_does_not_and_what_is_missing(study, figures):
    page = write_page(study, list(figures.values())[:4], {"26": "the table lacks networks"}, "t.csv")
    assert "SYNTHETIC" in page
    assert "peppp reproduce 1a t.csv --masks 2\n" in page
    assert "- 26: the table lacks networks" in page
    assert "Do not hold here" in page
    assert all(figure.finding.replace("|", "\\|") in page for figure in list(figures.values())[:4])


@pytest.mark.parametrize("name", ["1a", "6a", "9", "11", "13", "15", "16", "D", "5"])
def test_pictures_are_drawn(figures, name, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    pictures.draw(figures[name], tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    with pytest.raises(PepppError, match="cannot write the picture"):
        pictures.draw(figures[name], tmp_path / "none" / "picture.svg")


def test_the_head_to_head_judges_by_regret(monkeypatch):
    pytest.importorskip("optuna", reason="needs the optuna extra")
    monkeypatch.setattr(head_to_head, "BUDGETS", (0.75,))
    small = [m for m in synthetic_table(7, further=False) if m.configuration.format_b.bits < 16]
    figure = reproduce("head-to-head", Study(small))
    methods = {r["method"] for r in figure.records}
    assert {
        "peppp",
        "two-best",
        "optuna tpe",
        "optuna gp, warm",
        "random search",
        "largest that fits",
    } <= methods
    regrets = [
        r["regret"] for r in figure.records if np.isfinite(r["regret"])
    ]  # some have no run to judge by
    assert len(regrets) > len(figure.records) / 2
    assert min(regrets) >= 0
    assert "judged by noise-free errors" in figure.finding


def test_what_a_sampler_is_told_and_what_it_costs():
    known = error_matrix([m for m in TABLE if m.recipe == TABLE[0].recipe and m.seed == 0])
    columns = [known.labels.index(c) for c in ("1-3-1/1-6-7", "1-3-2/1-6-7", "1-3-4/1-6-7", "1-5-3/1-8-11")]
    unknown, budget = columns[1], float(known.memory[0, columns[2]])
    values = known.values.copy()
    values[0, unknown] = np.nan
    known = replace(known, values=values)
    feasible = known.observed[0] & (known.memory[0] <= budget)
    told = []

    class Trial:
        def __init__(self, j):
            self.pair, self.violation = known.labels[j].split("/"), None

        def suggest_categorical(self, name, choices):
            assert self.pair["ab".index(name)] in choices
            return self.pair["ab".index(name)]

        def set_constraint(self, name, value):
            self.violation = value

    class Samplers:
        TPESampler = GPSampler = staticmethod(lambda **arguments: arguments)

    class Optuna:
        samplers = Samplers

        def create_study(self, sampler):
            return self

        def enqueue_trial(self, parameters):
            self.enqueued = parameters

        def ask(self):
            return Trial(columns[len(told) % 4])

        def tell(self, trial, error):
            told.append((trial.violation, error))

    optuna = Optuna()
    measured = head_to_head._search(optuna, known, 0, feasible, budget, "tpe", 0, enqueued=columns[2])
    assert optuna.enqueued == {"a": "1-3-4", "b": "1-6-7"}
    (one, lacking, other, beyond) = told[:4]
    assert one == (pytest.approx(known.memory[0, columns[0]] / budget - 1), known.values[0, columns[0]])
    assert other == (0.0, known.values[0, columns[2]])
    assert lacking == (1.0, 1.0)
    assert beyond[0] == pytest.approx(min(known.memory[0, columns[3]] / budget - 1, 1.0))
    assert beyond[1] == 1.0
    assert measured[:2] == [columns[0], columns[2]]  # each once, only what fits and is known
    assert len(measured) == len(set(measured)) == 10
    assert feasible[measured].all()


def test_the_command_writes_numbers_pictures_and_json(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    table = tmp_path / "t.csv.gz"
    write_table(table, synthetic_table(6, further=False))

    def run(*line):
        return CliRunner().invoke(app, ["reproduce", *map(str, line)], catch_exceptions=False)

    done = run("fig1a", table, "--csv", tmp_path / "1a.csv", "--plot", tmp_path / "1a.png")
    assert "SYNTHETIC" in done.stdout
    assert "paper   at equal memory" in done.stdout
    with open(tmp_path / "1a.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 99
    assert {Configuration.parse(row["configuration"]) for row in rows}
    assert (tmp_path / "1a.png").stat().st_size > 1000
    answer = json.loads(run("14", table, "--json").stdout)
    assert answer["name"] == "14"
    assert answer["synthetic"]
    with pytest.raises(PepppError, match="--page is for all"):
        run("14", table, "--page", tmp_path / "page.md")
    with pytest.raises(PepppError, match="lacks rows that differ in epochs"):
        run("19", table)
    with pytest.raises(PepppError, match="no folder"):
        run("14", table, "--csv", tmp_path / "none" / "14.csv")
