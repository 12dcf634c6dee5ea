import numpy as np
import pytest

from peppp.evaluate.coverage import coverage
from peppp.evaluate.evaluation import evaluate
from peppp.paper import better_picks
from peppp.paper.study import Study
from peppp.paper.synthetic import synthetic_table
from peppp.table.measured import error_matrix


@pytest.fixture(scope="module")
def known():
    table = error_matrix(synthetic_table(25, further=False))
    return table.take(range(25), range(0, 99, 5))


def test_intervals_cover_as_often_as_they_say_and_the_score_charges_width_and_misses(known):
    found = coverage(known, settings=("I", "IV"), counts=(0, 3), share=0.4)
    for record in found.summary():
        assert 0.75 < record["covered"] <= 1
        # The score is the width, and 20 times what lies outside.
        assert (record["score"] > record["width"] + 1e-9) == (record["covered"] < 1)
        assert record["covered_low"] < record["covered_high"]
    wide, narrow = (found.interval("width", "I", count).mean for count in (0, 3))
    assert narrow < wide


def test_the_held_out_family_touches_neither_intervals_nor_picks(known):
    """What is changed in a row that was not asked for changes nothing that is predicted for it."""
    from dataclasses import replace

    spoiled = np.array(known.values)
    i = 7
    before = evaluate(known, methods=("gaussian",), counts=(0,)).of("pick_error", "I", "gaussian", 0)[i]
    spoiled[i] = 1.0 - spoiled[i]
    changed = replace(known, values=spoiled)
    after = evaluate(changed, methods=("gaussian",), counts=(0,)).of("pick_error", "I", "gaussian", 0)[i]
    assert after == pytest.approx(1.0 - before)  # the same configuration, at its new error
    widths = [coverage(t, settings=("I",), counts=(0,)).values[0, 0, i, 2] for t in (known, changed)]
    assert widths[0] == pytest.approx(widths[1])


@pytest.mark.slow
def test_the_comparison_names_its_losers_and_its_coverage(known, monkeypatch):
    monkeypatch.setattr(better_picks, "METHODS", ("ed-mf", "gaussian", "zero"))
    monkeypatch.setattr(better_picks, "SETTINGS", ("I",))
    monkeypatch.setattr(better_picks, "COUNTS", (1, 3))
    monkeypatch.setattr(better_picks, "NAMED", [("hyperdiff", "I", 1), ("regret", "I", 3)])
    figure = better_picks.better_picks(Study(matrices=known))
    rows = [r for r in figure.records if r["part"] == "comparison"]
    assert {r["method"] for r in rows} == {"ed-mf", "gaussian", "zero"}
    for r in rows:
        assert r["low"] <= r["ratio"] <= r["high"] or np.isnan(r["ratio"])
        if r["method"] == "ed-mf" and r["value"] > 0:
            assert (r["ratio"], r["difference"]) == (1.0, 0.0)
        if np.isfinite(r["ratio"]) and abs(r["difference"]) > 1e-9:
            assert (r["ratio"] > 1) == (r["difference"] > 0)
    assert [r for r in figure.records if r["part"] == "coverage"]
    assert "comparisons chosen beforehand, with 5 families" in figure.finding
