"""What tests share: where reference data lies, if it is there."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("peppp", deadline=None)  # a deadline is a timed assertion
settings.load_profile("peppp")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference vectors and real image sets, which is no part of the project."""
    folder = Path(os.environ.get("PEPPP_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (PEPPP_SHARED names another place)")
    return folder
