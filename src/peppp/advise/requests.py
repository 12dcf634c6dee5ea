"""What an advisor may be asked and given: one check for each kind of argument, and a note on the noise.

A check refuses in one line, which says what was given and what is allowed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from peppp.errors import BudgetError, TableError
from peppp.formats import FP32_CONFIGURATION
from peppp.learn.methods import DEFAULT_METHOD, Method
from peppp.records import Footprint
from peppp.table.labels import Label
from peppp.table.matrix import ErrorMatrix
from peppp.units import format_bytes


def check_request(method: str, until_sure: float | None, noise: float | None = None) -> Method:
    """The method named by a text, after checks that an Advisor would also make, before anything is read.

    Raises TableError for an unknown method, an unusable ``noise``, or an option that the method does not
    have. Raises BudgetError if ``until_sure`` is not a probability.
    """
    chosen = Method.parse(method)
    if noise is not None and not 0 < noise < 0.5:
        raise TableError(f"the noise of a training is {noise:g}; give a standard deviation between 0 and 0.5")
    if noise is not None and chosen.design != DEFAULT_METHOD:
        raise TableError(f"{chosen} takes a training's error as it is; leave the noise out, or use gaussian")
    if until_sure is not None and not 0 < until_sure < 1:
        raise BudgetError(f"until-sure is {until_sure}; give a probability between 0 and 1, such as 0.9")
    if until_sure is not None and chosen.design != DEFAULT_METHOD:
        raise TableError(f"{chosen} does not know how sure it is; leave until-sure out, or use gaussian")
    return chosen


def check_numbers(
    method: Method, fp32_error: float | None, chance_error: float | None, tolerance: float
) -> None:
    """Raise TableError for errors or a tolerance out of range, or an fp32 error that the method ignores."""
    if fp32_error is not None and method.design != DEFAULT_METHOD:
        raise TableError(f"{method} does not learn from the error of fp32; leave it out, or use gaussian")
    if fp32_error is not None and not 0 <= fp32_error <= 1:
        raise TableError(f"the error of fp32 is {fp32_error}; give a fraction between 0 and 1")
    if chance_error is not None and not 0 < chance_error <= 1:
        raise TableError(f"the chance error is {chance_error}; give a number in (0, 1], e.g. 1 - 1/classes")
    if not 0 <= tolerance < 1:
        raise TableError(f"the tolerance is {tolerance}; give a difference of errors such as 0.002")


def footprints_of(
    columns: Sequence[Label], footprints: Mapping[Any, Footprint | int]
) -> dict[Label, Footprint]:
    """The footprints of the columns that have a footprint or a total. Raises TableError if none has."""
    found = {label: footprints[label] for label in columns if label in footprints}
    if not found:
        raise TableError("no configuration of the table has a footprint; give footprints for its columns")
    return {
        label: size if isinstance(size, Footprint) else Footprint(0, 0, 0, {}, raw=int(size))
        for label, size in found.items()
    }


def peaks_of(configurations: Sequence[Label], peaks: Mapping[Any, int]) -> dict[Label, int]:
    """The peaks of the configurations, in their order. Raises TableError if one has none."""
    if not set(configurations) <= set(peaks):
        raise TableError("peaks are of all configurations that have a footprint, and some have none")
    return {configuration: peaks[configuration] for configuration in configurations}


def check_limit(limit: int, name: str, sizes: Mapping[Any, int], kind: str = "footprint") -> None:
    """Raise BudgetError if ``limit`` bytes, called ``name`` in the message, are below all ``sizes``."""
    cheapest = min(sizes, key=lambda configuration: sizes[configuration])
    smallest = sizes[cheapest]
    if smallest > limit:
        raise BudgetError(
            f"{name} of {format_bytes(limit)} is below every {kind}; the smallest that works is "
            f"{smallest}B ({format_bytes(smallest)}), for {cheapest}"
            + ("; a number without a unit counts bytes" if limit < 1000 else "")
        )


def check_count(measurements: int, measurable: int) -> None:
    """Raise BudgetError for more measurements than configurations that may be measured, or fewer than 0."""
    if not 0 <= measurements <= measurable:
        raise BudgetError(
            f"{measurements} measurements were asked for, but {measurable} configurations fit in "
            f"the memory; ask for 0 to {measurable} or allow more memory"
        )


def fp32_column(
    columns: Sequence[Label], footprints: Collection[Label], fp32_error: float | None
) -> int | None:
    """The place of fp32 among the columns; None if there is none, or it has a footprint.

    Raises TableError if the error of fp32 is given, and has no such column to belong to.
    """
    found = [j for j, label in enumerate(columns) if label == FP32_CONFIGURATION]
    if found and FP32_CONFIGURATION not in footprints:
        return found[0]
    if fp32_error is not None:
        raise TableError(
            "the error of fp32 needs a column fp32/fp32 in the table, without a footprint; leave it out, "
            "or tell it as a measured error"
        )
    return None


def check_error(
    configuration: Label, error: float, configurations: Collection[Label], observed: Mapping[Label, float]
) -> None:
    """Raise TableError for an unknown configuration, or a measured error that is not in [0, 1].

    A configuration has one error, so a second one that differs from the ``observed`` one is refused, too.
    """
    if configuration not in configurations:
        raise TableError(
            f"{configuration} is not among the {len(configurations)} configurations that have a "
            "column in the table and a footprint; tell the error of one of those"
        )
    if not 0 <= error <= 1:  # refuses NaN as well
        raise TableError(
            f"the error of {configuration} is {error}; give a fraction between 0 and 1; "
            "for a diverged training, give the error of guessing"
        )
    known = observed.get(configuration, error)
    if known != error:
        raise TableError(
            f"the error of {configuration} was {known} before and is {error} now; tell one error for it"
        )


def noise_notes(noise: float | None, table: ErrorMatrix) -> tuple[str, ...]:
    """A note on the noise that a pick assumes, where one is needed."""
    if noise is not None:
        return (f"the noise of a training, {noise:g}, was given, not learned from the table",)
    repeated = table.counts is not None and bool((table.counts > 1).any())
    if repeated or not any(isinstance(label, str) for label in table.columns):
        return ()
    return (
        "the table has one run for each entry, so the noise of a training is a guess; state it with --noise",
    )
