"""Import networks, losses and data sets that users name as ``package.module:attribute``."""

import importlib
import sys
from pathlib import Path
from typing import Any

from peppp.errors import PepppError


def imported(name: str, error: type[PepppError], what: str) -> Any:
    """Import an attribute of a module, which may be in the working folder.

    Raises ``error``, saying ``what`` could not be loaded and why.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as problem:  # importing runs the module's code, which may raise anything
        raise error(f"cannot load the {what} {name}: {problem}") from None
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
