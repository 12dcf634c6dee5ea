"""The walls: imports go down the floors of ARCHITECTURE.md, in no circle; the front door needs no torch."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "peppp"
FILES = {
    ".".join(("peppp", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def floors():
    """The floor of each room, as ARCHITECTURE.md has it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = text[text.index("## Rooms") :].split("```")[1]
    found = re.findall(r"^ +(\d+)  (\w+)(?:\.py|/) ", block, re.M)
    return {room: int(floor) for floor, room in found}


def room_of(name):
    return name.split(".")[1] if "." in name else "__init__"


def imported(name):
    """The files of ours that a file imports, wherever in it: names of modules."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "peppp":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module


GRAPH = {name: set(imported(name)) - {name} for name in FILES}


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    assert set(floors()) == {room_of(name) for name in FILES}


def test_imports_go_down_the_floors():
    floor = floors()
    arrows = {(room_of(a), room_of(b)) for a, others in GRAPH.items() for b in others}
    arrows = {(a, b) for a, b in arrows if a != b}
    assert len(arrows) > 50
    assert {(a, b) for a, b in arrows if floor[a] <= floor[b]} == set()
    lines = sum(len(path.read_text().splitlines()) for path in FILES.values())
    print(
        f"\n{len(floor)} rooms on {max(floor.values())} floors, {len(arrows)} arrows, {len(FILES)} files, "
        f"{lines} lines"
    )


def test_no_files_import_each_other_in_a_circle():
    try:
        tuple(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_no_two_files_have_one_name():
    names = [p.stem for p in FILES.values() if p.stem != "__init__" and p.parent.name != "cli"]
    assert sorted(set(names)) == sorted(names)


# Files of more than 300 lines that have a single idea, and why they are long.
LONG = {
    "arguments": "a reader for each kind of annotation, which all call each other",
    "cli.evaluate": "options, a few lines each, with their help",
    "cli.measure": "options, a few lines each, with their help",
    "cli.pick": "options, a few lines each, with their help",
    "lowprec.gpu.device": "one function for each kernel, with its fallback in plain torch",
    "lowprec.rounding.loops": "the same loop for each kind of format; numba compiles each by itself",
}


def test_a_file_of_more_than_300_lines_has_a_reason():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name.removeprefix("peppp.") for name, count in lines.items() if count > 300} == set(LONG)


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

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    ranges = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in map(Requirement, chain.from_iterable(ranges)):
        versions = [version for name, version in pins if name == canonicalize_name(requirement.name)]
        assert versions, requirement
        assert all(map(requirement.specifier.contains, versions)), requirement
    assert [version for name, version in pins if name == "torch"] == ["2.13.0"]
