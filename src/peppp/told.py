"""What an advisor was told: errors of whole trainings, and looks at unfinished ones."""

from collections.abc import Collection, Sequence

from peppp.errors import TableError
from peppp.formats import Configuration


class Told:
    """Errors of some of the ``configurations``, and looks after any of ``look_epochs``; never changed.

    >>> told = Told([Configuration.parse("1-4-1/1-6-7")], look_epochs=[3])
    >>> told.tell("1-4-1/1-6-7", 0.5, epochs=3)
    >>> told.looks_by_column(scale=0.5), told.spent(10)
    ({(0, 3): 1.0}, 3)
    """

    def __init__(self, configurations: Sequence[Configuration], look_epochs: Collection[int] = ()) -> None:
        self._columns = {configuration: j for j, configuration in enumerate(configurations)}
        self._look_epochs = look_epochs
        self.errors: dict[Configuration, float] = {}
        self.looks: dict[tuple[Configuration, int], float] = {}

    def tell(self, configuration: Configuration | str, error: float, epochs: int | None = None) -> None:
        """Take note of an error; TableError where it cannot be one, or contradicts what was told before."""
        configuration, error = Configuration.parse(configuration), float(error)
        if configuration not in self._columns:
            raise TableError(
                f"{configuration} is not among the {len(self._columns)} configurations that have a "
                "column in the table and a footprint; tell the error of one of those"
            )
        if not 0 <= error <= 1:  # refuses NaN as well
            raise TableError(
                f"the error of {configuration} is {error}; give a fraction between 0 and 1, and the error "
                "of guessing where training diverged"
            )
        if epochs is None:
            known = self.errors.setdefault(configuration, error)
        elif epochs in self._look_epochs:
            known = self.looks.setdefault((configuration, epochs), error)
        else:
            allowed = " or ".join(map(str, self._look_epochs)) or "none: it was given no model of looks"
            raise TableError(f"nothing is known of looks after {epochs} epochs; this advisor takes {allowed}")
        if known != error:
            raise TableError(
                f"the error of {configuration} was told to be {known}, now {error}; tell it once"
            )

    def by_column(self, scale: float = 1.0) -> dict[int, float]:
        """The errors as multiples of ``scale``, by the configuration's index."""
        return {self._columns[c]: error / scale for c, error in self.errors.items()}

    def looks_by_column(self, scale: float = 1.0) -> dict[tuple[int, int], float]:
        """The looks likewise, by index and epochs."""
        return {(self._columns[c], epochs): error / scale for (c, epochs), error in self.looks.items()}

    def spent(self, epochs: int) -> int:
        """The epochs trained, if a whole training takes ``epochs``; one with looks counts once."""
        furthest: dict[Configuration, int] = {}
        for c, after in self.looks:
            furthest[c] = max(after, furthest.get(c, 0))
        furthest |= dict.fromkeys(self.errors, epochs)
        return sum(furthest.values())
