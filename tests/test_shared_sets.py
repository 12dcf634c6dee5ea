"""All the real image sets at hand train for an epoch through the command line."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_set_trains_for_an_epoch(shared, tmp_path):
    paths = sorted((shared / "data").glob("*.npz"))
    assert len(paths) == 49
    data = ",".join(f"{path}?train=160&test=160" for path in paths)
    options = ["--epochs", "1", "--configurations", "1-5-2/1-6-7", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "peppp", "measure", tmp_path / "runs.db", "--data", data, *options, "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads(done.stdout)
    assert (facts["done"], facts["failed"], facts["left"]) == (49, 0, 0)
