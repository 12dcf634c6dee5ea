"""The walls: imports point up the list of rooms only, and the front door opens without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "peppp"
ROOMS = """
    errors units floats formats labels records arithmetic flat textfiles textable tables matrices merging
    lowprec footprint tasks training campaign pareto costs metalearn picks advisor replay transfer
    known choice reproduce page integrations cli
""".split()  # noqa: SIM905
LAZY = {("picks", "page")}  # Pick.report draws a page, which nothing else of a pick needs


def imports():
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("peppp."):
                    yield path, room, name.split(".")[1]


def test_imports_point_up_the_list_of_rooms():
    found = [(room, other) for _, room, other in imports() if not room.startswith("__")]
    assert found
    wrong = {(a, b) for a, b in found if ROOMS.index(b) > ROOMS.index(a)} - LAZY
    assert not wrong


@pytest.mark.parametrize(
    ("code", "kept_out"),
    [
        ("import peppp", ("torch", "sqlalchemy", "ray", "numba", "scipy")),
        ("import peppp.cli", ("torch", "sqlalchemy", "ray", "numba", "scipy", "sklearn")),
        ("import peppp.table.matrix, peppp.table.csv, peppp.pareto", ("torch", "sqlalchemy", "numba")),
        ("import peppp.advise.advisor", ("torch", "sqlalchemy", "numba")),
    ],
)
def test_light_doors_open_without_heavy_libraries(code, kept_out):
    check = f"{code}; import sys; print([name for name in {kept_out!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['peppp', '--help']\n"
        "from peppp.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_public_names_can_be_had():
    import peppp

    for name in peppp.__all__:
        assert getattr(peppp, name) is not None


def test_pinned_versions_lie_in_the_ranges_that_users_may_have():
    import re
    import tomllib
    from itertools import chain

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    root = SOURCE.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = re.findall(r"^([\w.-]+)==(\S+)", (root / "constraints.txt").read_text(), re.M)
    ranges = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in map(Requirement, chain.from_iterable(ranges)):
        versions = [version for name, version in pins if name == canonicalize_name(requirement.name)]
        assert versions, requirement
        assert all(map(requirement.specifier.contains, versions)), requirement
    assert [version for name, version in pins if name == "torch"] == ["2.13.0"]
