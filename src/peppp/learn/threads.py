"""Linear algebra on small matrices, pinned to one thread: two were 5 to 250 times slower (OpenBLAS#731)."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import scipy.linalg  # noqa: F401  loads scipy's BLAS beside numpy's, before the controller looks for both
from threadpoolctl import ThreadpoolController


@contextmanager
def single_thread() -> Iterator[None]:
    """BLAS uses one thread in the whole process while this lasts; also a decorator, ``@single_thread()``.

    >>> with single_thread():
    ...     {library["num_threads"] for library in _controller().select(user_api="blas").info()}
    {1}
    """
    if _pinned.get():  # by a caller: an evaluation comes here a hundred thousand times
        yield
        return
    token = _pinned.set(True)
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _pinned.reset(token)


_pinned = ContextVar("_pinned", default=False)


@cache  # finding the libraries takes milliseconds, limiting them microseconds
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
