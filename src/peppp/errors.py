"""Errors whose message is one line: what was given, what is allowed, what to do."""

_SCREEN = 2000  # characters


class PepppError(Exception):
    """Base of all errors that peppp raises on purpose; the command line prints it and exits with 2."""

    def __str__(self) -> str:
        """One line of no more than a screen, whatever names and texts are quoted in it."""
        text = " ".join(super().__str__().splitlines())
        return text if len(text) <= _SCREEN else f"{text[: _SCREEN // 2]} ... {text[-_SCREEN // 2 :]}"


class Stopped(PepppError):  # noqa: N818  not an error, so no such suffix
    """Raised on Ctrl-C when no result was kept; the command line exits with 130."""


class ArgumentError(PepppError, ValueError):
    """An argument of the wrong type or shape, or with numbers that the function cannot compute with."""


class FormatError(PepppError):
    """A text or number does not describe a format, a configuration or a rounding."""


class SizeError(PepppError):
    """A text does not describe a number of bytes."""


class DataError(PepppError):
    """A data set cannot be found, read or trained on."""


class NetworkError(PepppError):
    """A network is unknown, or a module cannot be trained at low precision."""


class StoreError(PepppError):
    """A file is not a store or a table, or it cannot be read or written."""


class TableError(PepppError):
    """The contents of a table or an error matrix contradict what they should hold."""


class BudgetError(PepppError):
    """A budget, cap or count leaves nothing to measure or to choose from.

    ``needed`` is the smallest budget in bytes that would be enough, or None where it is unknown.
    """

    needed: int | None = None
