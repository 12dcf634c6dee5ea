"""Cheap looks: what the error after a few epochs tells of the error after the last.

On its way to a final error y a run passes the error x_e after e epochs. Over the table's own curves

    x_e = (a_e + u_e) + (b_e + v_e) (y - centre) + noise_e

with an offset u and a slope v of each task (some learn late), shared by all of its runs, and a noise of each
run that its looks have in part in common. As y is the same run's, what its noise does to both is in b. So
looks are further columns of the Gaussian over final errors (:mod:`peppp.metalearn.posterior`), and everything
that conditions it or chooses by it takes them as it is. Not in the paper.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.metalearn.posterior import Posterior, Transform, transformed
from peppp.metalearn.sequential import Design, propose
from peppp.records import Measurement

_FEWEST_RUNS, _FEWEST_TASKS = 4, 3


@dataclass(frozen=True, slots=True)
class LookModel:
    """How errors after each of q ``epochs`` hang on the final one, on the scale of ``transform``.

    ``coefficients`` [2 q] are a and b of each of the epochs; ``of_tasks`` [2 q, 2 q] the covariance of what
    tasks add to them; ``of_runs`` [q, q] that of the noise of one run; ``centre`` is a final error.
    """

    epochs: tuple[int, ...]
    coefficients: NDArray[np.float64]
    of_tasks: NDArray[np.float64]
    of_runs: NDArray[np.float64]
    centre: float
    transform: Transform = "identity"

    def extend(self, prior: Posterior, looks: Sequence[tuple[int, int]]) -> Posterior:
        """The Gaussian over d final errors, extended by columns for ``looks``: (configuration, epochs) each.

        >>> model = LookModel((3,), np.array([0.8, 0.5]), np.zeros((2, 2)), np.array([[0.01]]), 0.5)
        >>> prior = Posterior(np.array([0.5, 0.5]), np.array([[0.04, 0.03], [0.03, 0.04]]))
        >>> told = model.extend(prior, [(0, 3)]).given([2], [0.9]).take([0, 1])
        >>> told.errors.round(3), told.deviation.round(2)  # 0.1 higher than expected
        (array([0.6  , 0.575]), array([0.14, 0.17]))
        """
        d = len(prior.mean)
        configuration = np.array([j for j, _ in looks], dtype=np.intp)
        of = np.array([self.epochs.index(epochs) for _, epochs in looks], dtype=np.intp)
        a, b = self.coefficients[2 * of], self.coefficients[2 * of + 1]
        above = prior.mean[configuration] - self.centre
        design = np.zeros(
            (len(of), len(self.coefficients))
        )  # what a task's offsets and slopes do to each look
        design[np.arange(len(of)), 2 * of] = 1.0
        design[np.arange(len(of)), 2 * of + 1] = above
        same = configuration[:, None] == configuration
        across = prior.covariance[:, configuration] * b  # [d, looks]
        own = b[:, None] * across[configuration] + design @ self.of_tasks @ design.T
        own += same * self.of_runs[np.ix_(of, of)]
        covariance = np.block([[prior.covariance, across], [across.T, own]])
        noise = None if prior.noise is None else np.concatenate([prior.noise, np.zeros(len(of))])
        assert covariance.shape == (d + len(of), d + len(of))
        return Posterior(np.concatenate([prior.mean, a + b * above]), covariance, prior.transform, noise)

    def given(
        self,
        prior: Posterior,
        looks: Mapping[tuple[int, int], float],
        measured: Sequence[int],
        errors: Sequence[float] | NDArray[np.float64],
    ) -> Posterior:
        """The belief about d final errors after ``looks``, and final ``errors`` of the ``measured``."""
        d = len(prior.mean)
        if not looks:
            return prior.given(measured, errors)
        extended = self.extend(prior, list(looks))
        told = [*measured, *range(d, d + len(looks))]
        return extended.given(told, [*np.asarray(errors).tolist(), *looks.values()]).take(range(d))


def next_training(
    model: LookModel,
    prior: Posterior,
    design: Design,
    told: Mapping[int, float],
    looks: Mapping[tuple[int, int], float],
    *,
    memory: NDArray[np.float64],
    measurable: NDArray[np.bool_],
    feasible: NDArray[np.bool_],
    epochs: int,
    left: float = np.inf,
) -> tuple[int, int] | None:
    """The configuration to train next and for how many epochs: what tells most per epoch.

    ``told`` are final errors, ``looks`` those after some epochs. A whole training takes ``epochs``; no
    more than ``left`` may be spent. None where nothing is left to train or to spend.
    """
    d = len(prior.mean)
    columns = [(j, e) for e in model.epochs for j in range(d)]
    known = dict(told) | {d + columns.index(look): error for look, error in looks.items()}
    length = np.array([epochs] * d + [e for _, e in columns], dtype=np.float64)
    of = np.array([*range(d), *(j for j, _ in columns)])
    seen = np.zeros(d)  # a look before the last one made, or at what is trained already, tells nothing
    for j, e in looks:
        seen[j] = max(seen[j], e)
    seen[list(told)] = np.inf
    chosen = propose(
        model.extend(prior, columns), known, design, 1,
        memory=memory[of],
        measurable=measurable[of] & (length > seen[of]) & (length <= left),
        feasible=np.concatenate([feasible, np.zeros(len(columns), dtype=bool)]),
        cost=length,
    )  # fmt: skip
    return (int(of[chosen[0]]), int(length[chosen[0]])) if chosen else None


def learn_looks(
    measurements: Iterable[Measurement],
    epochs: Sequence[int],
    *,
    transform: Transform = "identity",
    relative_to_chance: bool = True,
) -> LookModel:
    """What looks after ``epochs`` are worth, from the curves of a table's ``measurements``, all seeds.

    Each task (under its recipe) is fitted by least squares; the scatter of these fits, less what the noise
    of runs makes of it, is what tasks add. Raises TableError where fewer than three tasks have curves with
    all of these epochs, at four runs or more each.
    """
    wanted = tuple(sorted(set(epochs)))
    runs: defaultdict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for m in measurements:
        curve = dict(m.curve)
        if not m.configuration.is_fp32 and all(e in curve and e < m.curve[-1][0] for e in wanted):
            scale = m.chance_error if relative_to_chance else 1.0
            row = [m.test_error / scale, *(curve[e] / scale for e in wanted)]
            runs[m.fingerprint, m.recipe.digest].append(row)
    tasks = [transformed(np.array(rows), transform) for rows in runs.values() if len(rows) >= _FEWEST_RUNS]
    if len(tasks) < _FEWEST_TASKS:
        raise TableError(
            f"to learn what a look after {' and '.join(map(str, wanted))} epochs tells takes the curves of "
            f"{_FEWEST_TASKS} tasks; the table has {len(tasks)}"
        )
    q = len(wanted)
    centre = float(np.mean([task[:, 0].mean() for task in tasks]))
    fits, residuals, spreads = [], [], []
    for task in tasks:
        X = np.column_stack([np.ones(len(task)), task[:, 0] - centre])  # [runs, 2]
        inverse = np.linalg.pinv(X.T @ X)
        fit = inverse @ X.T @ task[:, 1:]  # [2, q]
        fits.append(fit.T.ravel())  # a and b of each epoch
        residuals.append((task[:, 1:] - X @ fit) * np.sqrt(len(task) / max(len(task) - 2, 1)))
        spreads.append(inverse)
    stacked = np.concatenate(residuals)
    of_runs = stacked.T @ stacked / len(stacked) + 1e-8 * np.eye(q)
    scatter = np.cov(np.array(fits), rowvar=False) * (1 + 1 / len(tasks))  # the mean itself is uncertain
    noise = np.kron(of_runs, np.mean(spreads, axis=0))
    values, vectors = np.linalg.eigh(scatter - noise)
    of_tasks = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return LookModel(wanted, np.mean(fits, axis=0), of_tasks, of_runs, centre, transform)
