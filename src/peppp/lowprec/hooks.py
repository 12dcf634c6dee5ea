"""Hooks on parameters that keep nothing alive."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor


def when_complete(parameter: Tensor, method: Callable[[Tensor], None]) -> Any:
    """Call a method of an object with a parameter whenever its gradient is complete; return the handle.

    The hook does not keep the object alive. Python's garbage collector cannot look into these hooks, so an
    optimizer that one of them held, and the parameters that the optimizer holds, would never be freed.
    """
    reference = weakref.WeakMethod(method)

    def hook(parameter: Tensor) -> None:
        method = reference()
        if method is not None:
            method(parameter)

    return parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
