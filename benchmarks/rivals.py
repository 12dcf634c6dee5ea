"""What a reader would pick with instead of peppp: small rivals that a benchmark replays beside it.

Each has the verbs of a strategy that a replay needs: ``next`` and ``pick``. Each sees what peppp sees: the
errors of other tasks (a completed table, as multiples of chance), which columns fit the memory, and one noisy
error for each training. Those that need coordinates get ``places`` [d, k]: the bits of the formats, or a
stranger's hyperparameters. A rival picks the least error that it measured, as its library or paper does;
before any training it picks what it would train first. Those ``by its model`` pick by estimates instead.
"""

import warnings
from functools import lru_cache, partial

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

SAMPLES = 256  # of each model's ranking in RGPE
BANDWIDTH = 0.9  # of TST-R: tasks that disagree on this share of the pairs count nothing
START = 2  # random trials of a cold Optuna study; its default, 10, would leave six trainings all random
MIXED = 2  # processes of the multi-task process
ENQUEUED = 3  # trials of a warm Optuna study that the table chooses


class Rival:
    """A rule that trains one column after the other and keeps the least error that it measured.

    ``learned`` is the completed table of the training tasks, ``task`` the new one, ``places`` [d, k] the
    coordinates of the columns.
    """

    sequential = True

    def __init__(self, learned, task, measurements, places, seed=0):
        self.learned, self.task, self.places, self.seed = learned, task, places, seed
        self._measurements = measurements

    def next(self, told, count=1):
        """The column to train at next, in a list; an empty one once enough were trained."""
        untried = self._untried(told)
        if len(told) >= self._measurements or not untried.any():
            return []
        return [int(self._choose(told, untried))]

    def pick(self, told):
        """The least error measured; before any training, what comes first."""
        return min(told, key=told.get) if told else int(self._choose(told, self._untried(told)))

    def _untried(self, told):
        untried = self.task.feasible.copy()
        untried[list(told)] = False
        return untried

    def _choose(self, told, untried):
        raise NotImplementedError


class Random(Rival):
    """Columns at random."""

    def _choose(self, told, untried):
        order = np.random.default_rng(self.seed).permutation(len(untried))
        return next(j for j in order if untried[j])


class InTurn(Rival):
    """The table's columns of least mean error, one after the other."""

    def _choose(self, told, untried):
        return np.where(untried, self.learned.estimate.mean(axis=0), np.inf).argmin()


class Portfolio(Rival):
    """A zero-shot portfolio: each column lowers the training tasks' mean of the least error in it most.

    Greedy, as in Wistuba, Schilling and Schmidt-Thieme (2015). Ties go to the column of lower mean.
    """

    def _choose(self, told, untried):
        return next(j for j in portfolio(self.learned.estimate, self.task.feasible) if untried[j])


def portfolio(errors, fits, length=7):
    """Columns of ``errors`` [n, d] that fit, in the order in which a greedy portfolio takes them."""
    chosen, least = [], np.full(len(errors), np.inf)
    mean = errors.mean(axis=0)
    for _ in range(min(length, int(fits.sum()))):
        score = np.minimum(errors, least[:, None]).mean(axis=0).round(12)
        score[~fits], score[chosen] = np.inf, np.inf
        best = int(np.lexsort((mean, score))[0])
        chosen.append(best)
        least = np.minimum(least, errors[:, best])
    return chosen


class Transfer(Rival):
    """A Gaussian process for each training task and one for the new task, together by weights; then EI.

    Errors are standardised in each task. The new task's process has the median hyperparameters of the
    training tasks'. Improvement is over the least estimate at a column that was trained.
    """

    def _choose(self, told, untried):
        mean, deviation = self._ensemble(told)
        if not told:
            return np.where(untried, mean, np.inf).argmin()
        better = mean[list(told)].min() - mean
        z = better / np.maximum(deviation, 1e-9)
        return np.where(untried, better * norm.cdf(z) + deviation * norm.pdf(z), -np.inf).argmax()

    def _ensemble(self, told):
        """Mean and deviation of the ensemble at each column, in standard deviations: [d], [d]."""
        j, errors = list(told), np.array(list(told.values()))
        spread = errors.std() if len(j) > 1 and errors.std() > 0 else 1.0
        y = (errors - errors.mean()) / spread if j else errors
        means, covariances, hyper = self._bases()
        target = partial(given, np.median(hyper, axis=0), scaled(self.places))
        return self._join(j, y, means, covariances, target)

    def _bases(self):
        places = tuple(map(tuple, scaled(self.places)))
        fits = [
            fitted(places, tuple(np.flatnonzero(known)), tuple(row[known]))
            for row, known in zip(self.learned.estimate, self.learned.observed, strict=True)
            if known.sum() > 2
        ]
        return (np.array(part) for part in zip(*fits, strict=True))

    def _join(self, j, y, means, covariances, target):
        raise NotImplementedError


class Rgpe(Transfer):
    """The ranking-weighted ensemble of Feurer, Letham and Bakshy (2018)."""

    def _join(self, j, y, means, covariances, target):
        mean, covariance = target(j, y)
        weights = np.append(np.full(len(means), 1 / len(means)), 0.0)
        if len(j) > 2:  # fewer say too little about who ranks well
            rng = np.random.default_rng([self.seed, len(j)])
            draws = [
                rng.multivariate_normal(m[j], C[np.ix_(j, j)], SAMPLES, method="cholesky")
                for m, C in zip(means, covariances + 1e-8 * np.eye(len(mean)), strict=True)
            ]
            losses = [misranked(draw, y) for draw in draws]
            losses.append(misranked(left_out(target, j, y, rng), y, of_itself=False))
            weights = ranking_weights(np.array(losses), rng)
        variances = np.array([*(np.diag(C) for C in covariances), np.diag(covariance)])
        return weights @ np.vstack([means, mean]), np.sqrt(weights**2 @ variances)


class TstR(Transfer):
    """The two-stage surrogate with ranking distances of Wistuba, Schilling and Schmidt-Thieme (2016)."""

    def _join(self, j, y, means, covariances, target):
        mean, covariance = target(j, y)
        weights = two_stage_weights(means[:, j], y)
        mean = weights @ np.vstack([means, mean]) / weights.sum()
        return mean, np.sqrt(np.diag(covariance))


class _ByModel:
    """Picks the least estimate that fits, whether or not it was trained there."""

    def pick(self, told):
        return int(np.where(self.task.feasible, self._ensemble(told)[0], np.inf).argmin())


class RgpeByModel(_ByModel, Rgpe):
    """RGPE that picks by its estimates."""


class TstRByModel(_ByModel, TstR):
    """TST-R that picks by its estimates."""


def misranked(draws, y, of_itself=True):
    """How many ordered pairs each draw [s, n] ranks in another order than ``y`` [n]: [s].

    ``of_itself``: both values of a pair come from the draw. Otherwise the second one is that of ``y``, as for
    predictions of points that were left out.
    """
    second = draws if of_itself else np.broadcast_to(y, draws.shape)
    wrong = (draws[:, :, None] < second[:, None, :]) != (y[:, None] < y)
    return (wrong & ~np.eye(len(y), dtype=bool)).sum(axis=(1, 2))


def ranking_weights(losses, rng):
    """RGPE's weights [m + 1] from losses [m + 1, s]: in how many samples a model is the one of least loss.

    The last model is that of the new task; it wins ties, others share them by lot. Models whose median loss
    is above the 95th percentile of the last one's are left out.
    """
    useful = np.median(losses, axis=1) <= np.quantile(losses[-1], 0.95)
    useful[-1] = True
    counted = np.where(useful[:, None], losses, np.inf)
    best = counted == counted.min(axis=0)
    best[:-1, best[-1]] = False
    lots = np.where(best, rng.random(losses.shape), -1.0)
    return np.bincount(lots.argmax(axis=0), minlength=len(losses)) / losses.shape[1]


def two_stage_weights(means, y):
    """TST-R's weights [m + 1]: Epanechnikov's kernel of the share of pairs that each task ranks otherwise.

    ``means`` [m, n] are the training tasks' estimates where the new task's errors ``y`` [n] are known; the
    last weight is the new task's own.
    """
    n = len(y)
    apart = misranked(means, y) / max(n * (n - 1), 1)
    weights = 0.75 * np.maximum(1 - (apart / BANDWIDTH) ** 2, 0.0)
    return np.append(weights, 0.75)


def left_out(target, j, y, rng):
    """Samples [s, n] of the new task's own process at each of its points, without that point."""
    samples = np.empty((SAMPLES, len(j)))
    for k in range(len(j)):
        rest = [i for i in range(len(j)) if i != k]
        mean, covariance = target([j[i] for i in rest], y[rest])
        samples[:, k] = mean[j[k]] + np.sqrt(covariance[j[k], j[k]]) * rng.standard_normal(SAMPLES)
    return samples


def scaled(places):
    """Coordinates [d, k] of mean 0 and deviation 1, without those in which no columns differ."""
    spread = places.std(axis=0)
    return ((places - places.mean(axis=0)) / np.where(spread > 0, spread, 1.0))[:, spread > 0]


@lru_cache(maxsize=4096)
def fitted(places, known, errors):
    """A Gaussian process on one task's standardised errors at the ``known`` columns.

    Its mean [d], its covariance [d, d], and the logarithms of its hyperparameters.
    """
    X, y = np.array(places), np.array(errors)
    k = X.shape[1]
    kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(np.ones(k), [(0.1, 20)] * k, nu=2.5)
    process = GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-3, 1.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hyperparameter at its bound
        process.fit(X[list(known)], (y - y.mean()) / (y.std() or 1.0))
    theta = process.kernel_.theta
    return *_without_noise(process, X), theta


def given(theta, X, j, y):
    """Mean [d] and covariance [d, d] of the process of ``theta`` after the values ``y`` at columns ``j``."""
    kernel = ConstantKernel(1.0) * Matern(np.ones(X.shape[1]), nu=2.5) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel.clone_with_theta(theta), optimizer=None)
    if not len(j):
        return np.zeros(len(X)), process.kernel.k1(X)
    return _without_noise(process.fit(X[j], y), X)


def _without_noise(process, X):
    mean, covariance = process.predict(X, return_cov=True)
    noise = np.exp(process.kernel_.theta[-1])
    return mean, covariance - noise * np.eye(len(X))


class MultiTask(Transfer):
    """One Gaussian process over all tasks: botorch's MultiTaskGP on the means of each Format A.

    The process of a task is a mixture of :data:`MIXED` shared ones (Bonilla, Chai and Williams, 2007). Its
    hyperparameters are fitted anew after each training.
    """

    def _ensemble(self, told):
        kinds, of = np.unique(self.places[:, :2], axis=0, return_inverse=True)
        means = np.array([np.bincount(of, row) / np.bincount(of) for row in self.learned.estimate])
        if not told:
            return means.mean(axis=0)[of], None
        runs = tuple((int(of[j]), error / self.task.scale) for j, error in told.items())
        mean, deviation = multi_task(tuple(map(tuple, kinds)), tuple(map(tuple, means)), runs)
        return mean[of], deviation[of]


class MultiTaskByModel(_ByModel, MultiTask):
    """The same, picking by its estimates."""


@lru_cache(maxsize=4096)
def multi_task(places, errors, runs):
    """Mean and deviation [k] of a new task at each of its places, from ``errors`` [n, k] and its own runs."""
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import MultiTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    n, (X, E) = len(errors), (scaled(np.array(places)), np.array(errors))
    at = [(*x, t) for t in range(n) for x in X] + [(*X[k], n) for k, _ in runs]
    y = np.array([*E.ravel(), *(error for _, error in runs)])
    torch.manual_seed(0)  # where the mixture's fit starts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit ends after so many steps
        model = MultiTaskGP(
            torch.tensor(at), torch.tensor((y - y.mean()) / y.std())[:, None], task_feature=-1, rank=MIXED
        )
        likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": 40}})
        with torch.no_grad():
            found = model.posterior(torch.tensor([(*x, n) for x in X]), output_indices=None)
    return found.mean[:, 0].numpy(), found.variance[:, 0].sqrt().numpy()


class Optuna(Rival):
    """An Optuna sampler over the columns' coordinates, each an ordinal parameter.

    What it proposes is moved to the nearest column that fits and was not trained. A ``warm`` study starts
    with the columns that are most often the best of a training task, as with ``enqueue_trial``.
    """

    def __init__(self, learned, task, measurements, places, seed=0, *, sampler, warm):
        super().__init__(learned, task, measurements, places, seed)
        levels = [np.unique(column, return_inverse=True)[1] for column in places.T]
        self._levels = np.array([level for level in levels if level.max() > 0]).T  # [d, k]
        self._sampler, self._warm = sampler, warm

    def _choose(self, told, untried):
        if self._warm and len(told) < ENQUEUED:
            return next(j for j in often_best(self.learned.estimate, self.task.feasible) if untried[j])
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        top = self._levels.max(axis=0)
        space = {f"x{k}": optuna.distributions.IntDistribution(0, int(most)) for k, most in enumerate(top)}
        start = {"n_startup_trials": START, "seed": self.seed + 1000 * len(told)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is experimental in Optuna
            sampler = getattr(optuna.samplers, self._sampler)(**start)
            study = optuna.create_study(sampler=sampler)
            for j, error in told.items():
                params = {f"x{k}": int(level) for k, level in enumerate(self._levels[j])}
                study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=space, value=float(error))
                )
            asked = study.ask(space).params
        distance = (abs(self._levels - [asked[name] for name in space]) / top).sum(axis=1)
        return np.where(untried, distance, np.inf).argmin()


def often_best(errors, fits):
    """All columns of ``errors`` [n, d] that fit: most often a task's best first, then by their mean."""
    best = np.where(fits, errors, np.inf).argmin(axis=1)
    wins = np.bincount(best, minlength=errors.shape[1])
    return [j for j in np.lexsort((errors.mean(axis=0), -wins)) if fits[j]]


RIVALS = {
    "columns in turn": InTurn,
    "portfolio": Portfolio,
    "RGPE": Rgpe,
    "RGPE, by its model": RgpeByModel,
    "TST-R": TstR,
    "TST-R, by its model": TstRByModel,
    "multi-task GP": MultiTask,
    "multi-task GP, by its model": MultiTaskByModel,
    "Optuna TPE, warm": partial(Optuna, sampler="TPESampler", warm=True),
    "Optuna GP, warm": partial(Optuna, sampler="GPSampler", warm=True),
    "Optuna TPE": partial(Optuna, sampler="TPESampler", warm=False),
    "Optuna GP": partial(Optuna, sampler="GPSampler", warm=False),
    "random": Random,
}
