"""A model without factorisation: a task deviates from the mean by a constant and one term for each format.

    e_j = mean_j + r + a(Format A of j) + b(Format B of j) + noise

All terms are normal, with variances estimated from the table. A factorisation has to beat this model.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.learn.bayesopt import GaussianProcess


@dataclass(frozen=True, slots=True)
class AdditiveModel:
    """The model as a Gaussian ``process``; ``shares`` holds each term's share of the variance by name."""

    process: GaussianProcess
    shares: dict[str, float]


def additive_model(
    estimate: NDArray[np.float64], formats_a: Sequence[Hashable], formats_b: Sequence[Hashable]
) -> AdditiveModel:
    """Fit the additive model to the error matrix ``estimate`` [n, d].

    ``formats_a`` and ``formats_b`` [d] are the formats of the columns. The terms are fitted one after the
    other (a sequential analysis of variance): the variance of a term is the mean square of the residual that
    the terms before it leave, averaged over the columns that share the term.

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
    # The floor keeps the equations regular if the table has no noise.
    return AdditiveModel(GaussianProcess(covariance, mean, max(variances["rest"], 1e-9)), shares)


def _codes(labels: Sequence[Hashable]) -> NDArray[np.intp]:
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([order[label] for label in labels], dtype=np.intp)
