"""An Optuna sampler that proposes precisions from a table's knowledge (extra ``optuna``).

>>> import numpy as np, optuna
>>> from peppp import Advisor, ErrorMatrix, Footprint, paper_grid
>>> from peppp.table.matrix import Row
>>> optuna.logging.set_verbosity(optuna.logging.ERROR)
>>> grid = paper_grid()[:3]
>>> rows = [Row("easy", "", ""), Row("hard", "", "")]
>>> table = ErrorMatrix.from_values(np.outer([0.5, 1.0], [0.8, 0.4, 0.2]), rows, grid)
>>> footprints = {c: Footprint(10, 0, 0, {"momentum": i}) for i, c in enumerate(grid)}
>>> advisor = Advisor(table, footprints, budget=11, measurements=1, method="ed-mf")
>>> sampler = PrecisionSampler(advisor)
>>> study = optuna.create_study(sampler=sampler)
>>> def objective(trial):
...     precision = trial.suggest_categorical("precision", sampler.choices)
...     return {"1-3-1/1-6-7": 0.6, "1-3-1/1-6-9": 0.3}[precision]  # trained at it, and tested
>>> study.optimize(objective, n_trials=2)
>>> [trial.params["precision"] for trial in study.trials]  # measured, then picked
['1-3-1/1-6-7', '1-3-1/1-6-9']
"""

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from peppp.advise.advisor import Advisor
from peppp.errors import PepppError, TableError
from peppp.table.labels import Label

try:
    import optuna
except ModuleNotFoundError:
    raise PepppError("this needs Optuna; install it: pip install 'peppp[optuna]'") from None

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState


class PrecisionSampler(optuna.samplers.BaseSampler):  # type: ignore[misc, unused-ignore]
    """Proposes what an :class:`peppp.advise.advisor.Advisor` asks for, and tells it the results.

    The objective suggests the categorical ``parameter`` among :attr:`choices`, the configurations whose
    memory is within the cap, and returns the test error, a fraction to minimise. The sampler first proposes
    the advisor's measurements, also in parallel; once the advisor wants no more, it proposes the pick.
    ``others`` samples the other parameters (default: random). A trial that fails, is pruned or returns NaN is
    not given to the advisor, and its measurement is not proposed again. The advisor may be asked for its pick
    at any time.
    """

    def __init__(
        self,
        advisor: Advisor,
        parameter: str = "precision",
        others: "optuna.samplers.BaseSampler | None" = None,
    ) -> None:
        self.advisor, self.parameter = advisor, parameter
        self._others = others or optuna.samplers.RandomSampler()
        self._proposed: dict[int, Label] = {}  # by trial number, while the error is unknown
        self._lock = Lock()

    @property
    def choices(self) -> list[str]:
        """The texts of the configurations that may be measured."""
        return [str(configuration) for configuration in self.advisor.measurable]

    def infer_relative_search_space(
        self, study: "Study", trial: "FrozenTrial"
    ) -> "dict[str, BaseDistribution]":
        """Empty: each parameter is sampled independently."""
        return {}

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: "dict[str, BaseDistribution]"
    ) -> dict[str, Any]:
        """Empty: each parameter is sampled independently."""
        return {}

    def sample_independent(
        self, study: "Study", trial: "FrozenTrial", param_name: str, param_distribution: "BaseDistribution"
    ) -> Any:
        """The next configuration to measure, or the pick. Raises TableError if the parameter lacks it."""
        if param_name != self.parameter:
            return self._others.sample_independent(study, trial, param_name, param_distribution)
        with self._lock:
            taken = set(self._proposed.values())
            wanted = self.advisor.batch(len(taken) + 1)
            free = [configuration for configuration in wanted if configuration not in taken]
            chosen = free[0] if free else self.advisor.recommend().configuration
            if str(chosen) not in getattr(param_distribution, "choices", ()):
                raise TableError(
                    f"the parameter {param_name!r} lacks {chosen}; suggest it among sampler.choices"
                )
            self._proposed[trial.number] = chosen
        return str(chosen)

    def after_trial(
        self,
        study: "Study",
        trial: "FrozenTrial",
        state: "TrialState",
        values: Sequence[float] | None,
    ) -> None:
        """Tell the advisor the error of a finished trial. Raises TableError for an error outside [0, 1]."""
        with self._lock:
            chosen = self._proposed.get(trial.number)
            if chosen is None or state != optuna.trial.TrialState.COMPLETE or not values:
                return
            del self._proposed[trial.number]
            if chosen not in self.advisor.observed:  # the pick may be trained again, with another seed
                self.advisor.tell(chosen, values[0])

    def reseed_rng(self) -> None:
        """Reseed the sampler of the other parameters."""
        self._others.reseed_rng()
