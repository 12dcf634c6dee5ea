"""What is published: wheel and sdist build, and the wheel works far from this checkout."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("build", reason="needs pip install 'peppp[dev]'")
    pytest.importorskip("hatchling", reason="needs pip install 'peppp[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_what_it_needs_and_little_else(built):
    wheel, _ = built
    assert wheel.stat().st_size < 5_000_000
    names = set(zipfile.ZipFile(wheel).namelist())
    source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "peppp").rglob("*.*")}
    source = {name for name in source if "__pycache__" not in name}
    assert {"peppp/py.typed", "peppp/page/report.css", "peppp/page/overview.js"} <= source
    assert {name for name in names if ".dist-info/" not in name} == source
    metadata = zipfile.ZipFile(wheel).read(f"peppp-{PROJECT['version']}.dist-info/METADATA").decode()
    assert "Description-Content-Type: text/markdown" in metadata
    assert "License-Expression: MIT" in metadata
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Classifier: Programming Language :: Python :: {version}" in metadata


def test_the_sdist_can_be_tested_and_holds_no_results_of_running(built):
    _, sdist = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "tests/test_package.py",
        "docs/tutorial.md",
        "mkdocs.yml",
        "CITATION.cff",
        "CHANGELOG.md",
        "scripts/venv",
        ".ci/resolve",
    }
    assert needed <= names
    assert not [name for name in names if re.search(r"__pycache__|\.venv|\.db$(?<!v1\.db)|^site/", name)]


def test_the_installed_wheel_works_outside_the_checkout(built, tmp_path):
    wheel, _ = built
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    # Its dependencies are this environment's, but this environment's peppp must not be found first.
    here = next(path for path in sys.path if path.endswith("site-packages"))
    Path(site, "dependencies.pth").write_text(f"import sys; sys.path.append({here!r})\n")
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*arguments):
        done = subprocess.run([python, *arguments], capture_output=True, text=True, cwd=tmp_path, env=clean)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import peppp; print(peppp.__file__)").startswith(str(tmp_path))
    assert run("-m", "peppp", "--version") == f"peppp {PROJECT['version']}\n"
    assert "95.3" in run("-m", "peppp", "memory", "resnet18", "--configurations", "1-4-1/1-6-7")
    line = ["measure", "runs.db", "--data", "digits:01?train=64&test=64", "--network", "resnet8-w4"]
    few = ["--epochs", "1", "--workers", "0", "--configurations", "1-4-1,1-5-2 x 1-6-7"]
    assert "2 measured" in run("-m", "peppp", *line, *few)
    run("-m", "peppp", "report", "runs.db")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
