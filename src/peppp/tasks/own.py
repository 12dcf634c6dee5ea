"""What a user names as ``package.module:attribute``: networks, losses and data sets of their own."""

import importlib
import sys
from pathlib import Path
from typing import Any

from peppp.errors import PepppError


def imported(name: str, error: type[PepppError], what: str) -> Any:
    """The attribute of a module, which may lie in the working folder; ``error`` says why it cannot be had."""
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as problem:  # whatever the module does when it is imported
        raise error(f"cannot load the {what} {name}: {problem}") from None
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
