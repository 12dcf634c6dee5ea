"""Pin linear algebra on small matrices to one thread: two were 5 to 250 times slower (OpenBLAS#731)."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import scipy.linalg  # noqa: F401  loads scipy's BLAS before the controller looks for BLAS libraries
from threadpoolctl import ThreadpoolController


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit BLAS to one thread in the whole process; also a decorator, ``@single_thread()``.

    >>> with single_thread():
    ...     {library["num_threads"] for library in _controller().select(user_api="blas").info()}
    {1}
    """
    if _pinned.get():  # a caller did it already; an evaluation calls this a hundred thousand times
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
