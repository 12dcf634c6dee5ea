"""Not in the paper: compare the default's picks with ED-MF's, and check the coverage of its intervals."""

from typing import Any

from peppp.evaluate.bootstrap import family_mean, family_ratio
from peppp.evaluate.coverage import coverage
from peppp.evaluate.evaluation import evaluate
from peppp.paper.figure import Figure, Panel
from peppp.paper.study import Study

SETTINGS = ("I", "II", "III", "IV")
COUNTS = (1, 2, 3, 5, 8)
METHODS = ("ed-mf", "gaussian", "two-best", "zero")
METRICS = ("hyperdiff", "hyperdiff_true", "convergence", "regret")
NAMED = [(m, s, count) for m in ("hyperdiff", "regret") for s in ("I", "IV") for count in (1, 3, 5)]
NOT_INFERIOR = 1.15


def better_picks(study: Study) -> Figure:
    """Compare methods with ED-MF for each number of measurements, and measure the coverage of intervals."""
    known = study.known
    leave = study.held_out(known)
    study.say("better-picks: methods")
    found = evaluate(
        known, settings=SETTINGS, methods=METHODS, counts=COUNTS, seeds=range(study.seeds), cap=study.cap,
        leave=leave, judge=study.judge,
    )  # fmt: skip
    groups = known.families if leave == "family" else known.names
    records: list[dict[str, Any]] = []
    ratios = {}
    for setting in SETTINGS:
        for method in METHODS:
            for count in COUNTS:
                for metric in METRICS:
                    values = found.of(metric, setting, method, count)
                    reference = found.of(metric, setting, "ed-mf", count)
                    ratio = family_ratio(values, reference, groups)
                    difference = family_mean(values - reference, groups)
                    ratios[metric, setting, method, count] = ratio
                    records.append(
                        {
                            "part": "comparison", "metric": metric, "setting": setting, "method": method,
                            "measurements": count, "value": family_mean(values, groups).mean,
                            "ratio": ratio.mean, "low": ratio.low, "high": ratio.high,
                            "difference": difference.mean,
                            "difference_low": difference.low, "difference_high": difference.high,
                        }
                    )  # fmt: skip
    study.say("better-picks: intervals")
    covered = coverage(known, seeds=range(study.seeds), cap=study.cap, leave=leave, judge=study.judge)
    records += [{"part": "coverage", **record} for record in covered.summary()]
    shares = [r for r in records if r["part"] == "coverage"]
    honest = sum(r["covered_low"] <= 0.9 <= r["covered_high"] for r in shares)
    shown = ", ".join(
        f"{metric} {setting} l={count} {ratios[metric, setting, 'gaussian', count]}"
        for metric, setting, count in NAMED
    )
    inferior = sum(not ratios[m, s, "gaussian", count].high < NOT_INFERIOR for m, s, count in NAMED)
    return Figure(
        "better-picks",
        "The default, gaussian, relative to ED-MF, and its 90 % intervals, by leave-one-family-out",
        "(ours) gaussian is nowhere shown to be worse than ED-MF, and 90 % intervals cover 90 %",
        f"gaussian / ED-MF: {shown}; gaussian is shown not to be inferior (upper end below {NOT_INFERIOR}) "
        f"in {len(NAMED) - inferior} of {len(NAMED)} comparisons chosen beforehand, with "
        f"{len(set(groups))} families; the coverage's interval contains 0.90 in {honest} of "
        f"{len(shares)} cases",
        None if inferior else honest == len(shares),
        tuple(records),
        (
            Panel("line", "measurements", "ratio", "method", title="HyperDiff / ED-MF's, Setting I",
                  where=(("part", "comparison"), ("metric", "hyperdiff"), ("setting", "I"))),
            Panel("line", "measurements", "covered", "setting", "covered_low", "covered_high",
                  title="coverage of 90 % intervals", where=(("part", "coverage"),)),
        ),
        {"seeds": study.seeds, "leave": leave},
    )  # fmt: skip
