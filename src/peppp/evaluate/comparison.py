"""Compare methods at the same number of measurements: ratios and differences, with intervals."""

from collections.abc import Sequence
from typing import Any

from peppp.errors import TableError
from peppp.evaluate.bootstrap import family_mean, family_ratio
from peppp.evaluate.evaluation import Evaluation

METRICS = ("hyperdiff", "hyperdiff_true", "convergence", "regret")


def compare(found: Evaluation, against: str, metrics: Sequence[str] = METRICS) -> list[dict[str, Any]]:
    """One record for each setting, other method, number of measurements and metric.

    ``ratio`` is the ratio of the means over families, and ``difference`` the mean of the differences. Both
    have a 95 % bootstrap interval over families, resampled for both methods together. A ratio below 1, or a
    difference below 0, means that the method is better than ``against``. Raises TableError if ``against``
    was not evaluated.

    >>> from peppp.evaluate.evaluation import evaluate
    >>> from peppp.paper.synthetic import synthetic_table
    >>> from peppp.table.measured import error_matrix
    >>> known = error_matrix(synthetic_table(8, further=False))  # invented errors
    >>> record, = compare(evaluate(known, methods=("ed-mf", "zero"), counts=(5,)), "ed-mf", ["convergence"])
    >>> record["method"], record["ratio"] > 1
    ('zero', True)
    """
    if against not in found.methods:
        raise TableError(f"{against!r} was not evaluated; compare with one of {', '.join(found.methods)}")
    records = []
    for setting in found.settings:
        for method in found.methods:
            if method == against:
                continue
            for count in found.counts:
                for metric in metrics:
                    values = found.of(metric, setting, method, count)
                    reference = found.of(metric, setting, against, count)
                    ratio = family_ratio(values, reference, found.families)
                    difference = family_mean(values - reference, found.families)
                    records.append(
                        {
                            "setting": setting, "method": method, "measurements": count, "metric": metric,
                            "value": family_mean(values, found.families).mean,
                            "ratio": ratio.mean, "ratio_low": ratio.low, "ratio_high": ratio.high,
                            "difference": difference.mean,
                            "difference_low": difference.low, "difference_high": difference.high,
                        }
                    )  # fmt: skip
    return records
