"""The common part of strategies that predict errors without intervals, such as the paper's methods."""

from peppp.learn.belief import Belief
from peppp.learn.methods import Method
from peppp.learn.task import Measured, Task


class PointStrategy:
    """Defaults of a :class:`peppp.learn.strategy.Strategy` that has no intervals."""

    tolerance = 0.0
    method: Method
    task: Task

    def believe(self, measured: Measured, tolerance: float = 0.01) -> Belief:
        """Unknown: the method has no intervals."""
        return Belief.unknown(len(self.task.memory))

    def saving(self, measured: Measured) -> float | None:
        """None: the method does not know what another training is worth."""
        return None

    def elsewhere(self, measured: Measured, column: int) -> tuple[float, float, float] | None:
        """None: the method predicts nothing beyond the task's columns."""
        return None

    def enough(self, measured: Measured) -> str:
        """Empty: the method makes all measurements that it may."""
        return ""
