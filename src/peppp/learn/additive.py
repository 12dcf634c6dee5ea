"""A model without factorisation: a task deviates from the mean by a constant and a term for each format.

    e_j = mean_j + r + a(Format A of j) + b(Format B of j) + noise

with all terms normal, their variances taken from the table. It is what a factorisation has to beat.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.learn.bayesopt import GaussianProcess


@dataclass(frozen=True, slots=True)
class AdditiveModel:
    """The variances of the terms, ``shares`` of their sum by name, and the process that they make."""

    process: GaussianProcess
    shares: dict[str, float]


def additive_model(
    estimate: NDArray[np.float64], formats_a: Sequence[Hashable], formats_b: Sequence[Hashable]
) -> AdditiveModel:
    """The additive model of an error matrix [n, d] whose columns have these Formats A and B.

    Each term's variance over tasks is that of its mean over the columns that share it, once the terms
    before it are taken away (a sequential analysis of variance).

    >>> E = np.array([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]])  # rows differ by a constant
    >>> shares = additive_model(E, ["a1", "a1", "a2"], ["b1", "b2", "b1"]).shares
    >>> {name: round(share, 3) for name, share in shares.items()}
    {'task': 1.0, 'A': 0.0, 'B': 0.0, 'rest': 0.0}
    """
    mean = estimate.mean(axis=0)
    residual = estimate - mean
    everywhere = np.zeros(estimate.shape[1], dtype=np.intp)
    covariance = np.zeros((estimate.shape[1],) * 2)
    variances = {}
    for name, labels in (("task", everywhere), ("A", _codes(formats_a)), ("B", _codes(formats_b))):
        members = labels == np.arange(labels.max() + 1)[:, None]  # [groups, d]
        means = residual @ members.T / members.sum(axis=1)  # [n, groups]
        variances[name] = float((means**2).mean())
        covariance += variances[name] * (labels[:, None] == labels)
        residual = residual - means[:, labels]
    variances["rest"] = float((residual**2).mean())
    total = sum(variances.values()) or 1.0
    shares = {name: variance / total for name, variance in variances.items()}
    # The floor keeps the equations regular for a table without any noise.
    return AdditiveModel(GaussianProcess(covariance, mean, max(variances["rest"], 1e-9)), shares)


def _codes(labels: Sequence[Hashable]) -> NDArray[np.intp]:
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([order[label] for label in labels], dtype=np.intp)
