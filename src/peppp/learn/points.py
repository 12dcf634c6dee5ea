"""What strategies share that predict errors but do not know how sure they are, as the paper's methods."""

from peppp.learn.belief import Belief
from peppp.learn.methods import Method, Task, Told


class PointStrategy:
    """The part of a :class:`peppp.learn.strategy.Strategy` that takes intervals, for one without."""

    tolerance = 0.0
    method: Method
    task: Task

    def believe(self, told: Told, tolerance: float = 0.01) -> Belief:
        """Nothing: the method has no intervals."""
        return Belief.unknown(len(self.task.memory))

    def saving(self, told: Told) -> float | None:
        """None: the method does not know what another training is worth."""
        return None

    def elsewhere(self, told: Told, column: int) -> tuple[float, float, float] | None:
        """None: the method predicts nothing beyond the task's columns."""
        return None

    def enough(self, told: Told) -> str:
        """Empty: the method measures as often as it may."""
        return ""
