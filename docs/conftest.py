"""What is written on these pages is run in an empty folder."""

import pytest


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Pages may write files; none of them stays."""
    monkeypatch.chdir(tmp_path)
