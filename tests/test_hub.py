"""The hub's data sets, through the real library on parquet files made here; no network is asked."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from peppp.errors import DataError
from peppp.tasks.readers import load

datasets = pytest.importorskip("datasets", reason="pip install 'peppp[hf]'")
RNG = np.random.default_rng(0)


def png(side=12):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (side, side + 4, 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def parquet(path, count, labels=("ant", "bee"), images=None, picks=None):
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(labels))}
    )
    images = images or [{"bytes": png(), "path": None} for _ in range(count)]
    picks = picks or [i % len(labels) for i in range(count)]
    datasets.Dataset.from_dict({"picture": images, "kind": picks}, features=features).to_parquet(str(path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of parquet files: the library reads them as it would read downloaded ones."""
    real, asked = datasets.load_dataset, []

    def from_files(name, config=None, *, revision=None):
        asked.append((name, config, revision))
        files = {path.stem: str(path) for path in sorted(tmp_path.glob("*.parquet"))}
        return real("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", from_files)
    return tmp_path, asked


def test_parts_columns_and_revision(hub):
    folder, asked = hub
    parquet(folder / "train.parquet", 8)
    parquet(folder / "test.parquet", 4)
    data = load("hf:me/insects:small@v1.0?resolution=16")
    assert asked == [("me/insects", "small", "v1.0")]
    assert (data.name, data.classes, data.resolution) == ("me/insects", ("ant", "bee"), 16)
    assert (data.train_targets.tolist(), len(data.test_targets)) == ([0, 1] * 4, 4)
    assert load("hf:me/insects").resolution == 32  # 12 x 16 is no square
    assert load("hf:me/insects").fingerprint == data.fingerprint


def test_without_a_test_part_the_training_part_is_split(hub):
    folder, _ = hub
    parquet(folder / "train.parquet", 10)
    data = load("hf:me/insects")
    assert (len(data.train_targets), len(data.test_targets)) == (8, 2)


def test_wrong_parts(hub):
    folder, _ = hub
    parquet(folder / "test.parquet", 4)
    with pytest.raises(DataError, match="has no split named train; it has test"):
        load("hf:me/insects")
    parquet(folder / "train.parquet", 4, images=[{"bytes": png()[:40], "path": None}] * 4)
    with pytest.raises(DataError, match=r"hf:me/insects \(train\) is not an image that can be decoded"):
        load("hf:me/insects")
    parquet(folder / "train.parquet", 4, picks=[0, 1, 0, -1])
    with pytest.raises(DataError, match="images without a label"):
        load("hf:me/insects")
    (folder / "test.parquet").unlink()
    datasets.Dataset.from_dict({"text": ["a"], "n": [1]}).to_parquet(str(folder / "train.parquet"))
    with pytest.raises(DataError, match=r"a ClassLabel column, but has text \(Value\), n"):
        load("hf:me/insects")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/b/c", "me/in sects", "me", "me/x@a b"])
def test_what_is_no_name_is_not_looked_up(name, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(DataError, match="not a name on the hub"):
        load(f"hf:{name}")


def test_a_folder_is_not_taken_for_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", None)
    (tmp_path / "me" / "insects").mkdir(parents=True)
    with pytest.raises(DataError, match="there is a folder me/insects here"):
        load("hf:me/insects")
    with pytest.raises(DataError, match="no such folder: you/insects"):  # and a path is no name on the hub
        load("you/insects")


def test_no_network_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "peppp", "measure", "runs.db", "--data", "hf:peppp-nobody/nothing"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("peppp: cannot get hf:peppp-nobody/nothing: ")
    assert not (tmp_path / "runs.db").exists()


def test_without_the_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'peppp\[hf\]'"):
        load("hf:me/insects")
