"""Errors whose message is one line: what was given, what is allowed, what to do."""


class PepppError(Exception):
    """Base of all errors that peppp raises on purpose; the command line prints it and exits with 2."""


class Stopped(PepppError):  # noqa: N818  not an error, so no such suffix
    """Raised on Ctrl-C when no result was kept; the command line exits with 130."""


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
