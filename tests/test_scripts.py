"""The scripts around the project: which Python the environment is made of, and whether the pins hold."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="they are shell scripts")

# A Python of another version: it answers `-c` as that one would, makes environments of itself, and notes what
# pip is to do. What it lacks cannot be imported.
FAKE = """
import os, sys, types
from pathlib import Path

path, version, lacks, arguments = sys.argv[1], sys.argv[2], sys.argv[3].split(), sys.argv[4:]
sys.version_info = (*map(int, version.split(".")), 0, "final", 0)
for name in ("pip", "ensurepip", "venv"):
    sys.modules[name] = None if name in lacks else types.ModuleType(name)
if arguments[0] == "-c":
    exec(arguments[1])
elif arguments[:2] == ["-m", "venv"]:
    if "ensurepip" in lacks:
        sys.exit("The virtual environment was not created successfully")
    folder = Path(arguments[2])
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"made by {Path(path).name}")
    (folder / "bin" / "python").symlink_to(path)
elif arguments[:2] == ["-m", "pip"]:
    with open(Path(path).with_name("pip.log"), "a") as log:
        print(*arguments[2:], file=log)
"""


def program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


class Machine:
    """A folder that stands for all that is on PATH."""

    def __init__(self, folder):
        self.programs, self.venv = folder / "programs", folder / "venv"
        self.programs.mkdir()
        (self.programs / "fake.py").write_text(FAKE)
        for tool in ("rm", "sh", "touch"):
            (self.programs / tool).symlink_to(shutil.which(tool))

    def python(self, name, version, lacks=""):
        fake = [sys.executable, "-IS", self.programs / "fake.py", self.programs / name, version, lacks]
        program(self.programs / name, f'exec {shlex.join(map(str, fake))} "$@"\n')

    def shim(self, name):
        program(self.programs / name, f"echo 'pyenv: {name}: command not found' >&2; exit 127\n")

    def uv(self):
        program(self.programs / "uv", f'[ "$1" = --version ] || echo "$@" >{self.programs}/uv.log\n')

    def run(self, *command):
        return subprocess.run(command, env={"PATH": str(self.programs)}, capture_output=True, text=True)

    def make_venv(self, *python, check=False):
        return self.run("/bin/sh", ROOT / "scripts" / "venv", *["--check"][: int(check)], self.venv, *python)

    def made_by(self):
        return (self.venv / "pyvenv.cfg").read_text().removeprefix("made by ")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3": "3.11", "python3.14": "3.14"}, "python3"),
        ({"python3": "3.14", "python3.12": "3.12"}, "python3"),
        ({"python3": "3.9", "python3.11": "3.11", "python3.12": "3.12"}, "python3.12"),
        ({"python3": "3.15", "python3.13": "3.13"}, "python3.13"),  # torch has no wheel for it at our version
        ({"python3": None, "python3.14": None, "python3.13": None, "python3.11": "3.11"}, "python3.11"),
        ({"python3.14": "3.14", "python3.13": "3.13"}, "python3.14"),
    ],
)
def test_python3_comes_first_then_the_newest_that_starts(machine, pythons, chosen):
    for name, version in pythons.items():
        machine.shim(name) if version is None else machine.python(name, version)
    done = machine.make_venv()
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.made_by() == chosen
    assert machine.make_venv(check=True).returncode == 0


def test_a_python_without_venv_gives_way_to_one_that_has_it(machine):
    machine.python("python3", "3.13", lacks="ensurepip")
    machine.python("python3.12", "3.12")
    assert machine.make_venv().returncode == 0
    assert machine.made_by() == "python3.12"


def test_the_python_that_is_named_is_taken(machine):
    machine.python("python3", "3.13")
    machine.python("mine", "3.12")
    assert machine.make_venv("mine").returncode == 0
    assert machine.made_by() == "mine"


@pytest.mark.parametrize("pythons", [{}, {"python3": "3.9"}, {"python3": "3.13 without venv"}])
def test_uv_helps_where_no_python_will_do(machine, pythons):
    for name, version in pythons.items():
        machine.python(name, version.split()[0], lacks="ensurepip" if "without" in version else "")
    machine.uv()
    assert machine.make_venv().returncode == 0
    words = (machine.programs / "uv.log").read_text().split()
    assert (words[0], words[-1]) == ("venv", str(machine.venv))
    assert "--seed" in words  # pip is needed


def test_uv_that_finds_no_python_is_quoted_in_the_one_line(machine):
    program(
        machine.programs / "uv", '[ "$1" = --version ] || { echo "no net" >&2; echo "more" >&2; exit 2; }'
    )
    done = machine.make_venv()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "uv found none (no net); install one" in done.stderr


def test_uv_is_not_asked_where_a_python_will_do(machine):
    machine.python("python3.11", "3.11")
    machine.uv()
    assert machine.make_venv().returncode == 0
    assert machine.made_by() == "python3.11"


@pytest.mark.parametrize(
    ("pythons", "named", "said"),
    [
        ({}, None, ["no Python from 3.11 to 3.14", "no uv", "install one", "python3-venv", "make PYTHON="]),
        ({"python3": ("3.9", ""), "python3.11": None}, None, ["no Python from 3.11", "make PYTHON="]),
        (
            {"python3": ("3.13", "ensurepip")},
            None,
            ["python3 has no module venv", "apt install python3-venv"],
        ),
        ({"python3.12": ("3.12", "venv")}, None, ["python3.12 has no module venv", "python3.12-venv"]),
        ({"mine": ("3.13", "ensurepip")}, "mine", ["mine has no module venv", "install"]),
        ({"python3": ("3.13", "")}, "python9", ["python9 does not start", "3.11 to 3.14"]),
        ({"python3": ("3.13", ""), "old": ("3.10", "")}, "old", ["old is Python 3.10", "3.11 to 3.14"]),
        ({"python3": ("3.13", ""), "new": ("3.15", "")}, "new", ["new is Python 3.15", "3.11 to 3.14"]),
    ],
)
def test_what_is_missing_is_said_in_one_line(machine, pythons, named, said):
    for name, about in pythons.items():
        machine.shim(name) if about is None else machine.python(name, *about)
    done = machine.make_venv(*[named][: named is not None])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert all(part in done.stderr for part in said), done.stderr
    assert not machine.venv.exists()


def nothing_but_folders(machine):
    (machine.venv / "bin").mkdir(parents=True)


def interrupted_before_pip(machine):
    machine.python("nopip", "3.13", lacks="pip")
    assert machine.run("nopip", "-m", "venv", machine.venv).returncode == 0


def of_a_python_that_is_gone(machine):
    machine.python("gone", "3.13")
    assert machine.make_venv("gone").returncode == 0
    (machine.programs / "gone").unlink()


def of_an_old_python(machine):
    machine.python("old", "3.10")
    assert machine.run("old", "-m", "venv", machine.venv).returncode == 0


@pytest.mark.parametrize(
    "leave", [nothing_but_folders, interrupted_before_pip, of_a_python_that_is_gone, of_an_old_python]
)
def test_an_environment_that_does_not_work_is_made_again(machine, leave):
    machine.python("python3", "3.13")
    leave(machine)
    (machine.venv / "installed").touch()
    assert machine.make_venv(check=True).returncode == 1
    assert (machine.venv / "installed").exists()
    assert machine.make_venv().returncode == 0
    assert machine.made_by() == "python3"
    assert not (machine.venv / "installed").exists()


def test_an_environment_that_works_stays_until_another_python_is_named(machine):
    machine.python("python3", "3.13")
    machine.python("python3.12", "3.12")
    machine.make_venv()
    (machine.venv / "installed").touch()
    for name in ([], ["python3"]):
        assert machine.make_venv(*name).returncode == 0
        assert (machine.venv / "installed").exists()
    assert machine.make_venv("python3.12", check=True).returncode == 1
    assert machine.make_venv("python3.12").returncode == 0
    assert machine.made_by() == "python3.12"


@pytest.mark.parametrize("name", ["notes.txt", ".profile"])
def test_a_folder_of_somebody_elses_is_left_alone(machine, name):
    machine.python("python3", "3.13")
    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv / name).write_text("dear to somebody")
    done = machine.make_venv()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "not a virtual environment" in done.stderr
    assert (machine.venv / name).read_text() == "dear to somebody"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_installs_once_and_again_where_the_environment_broke(machine):
    machine.python("python3", "3.13")
    machine.python("python3.12", "3.12")
    log = machine.programs / "pip.log"

    def install(*words):
        log.write_text("")
        done = machine.run(shutil.which("make"), "-s", "-C", ROOT, f"VENV={machine.venv}", *words, "install")
        return done, log.read_text()

    done, asked = install()
    assert done.returncode == 0, done.stderr
    assert asked == "--disable-pip-version-check install -q -e .\n"
    assert install()[1] == ""
    done, asked = install("PYTHON=python3.12")
    assert machine.made_by() == "python3.12"
    assert asked
    (machine.venv / "bin" / "python").unlink()
    done, asked = install()
    assert machine.made_by() == "python3"
    assert asked
    (machine.programs / "python3").unlink()
    (machine.programs / "python3.12").unlink()
    done, asked = install()
    assert done.returncode == 2
    assert asked == ""
    said, by_make = done.stderr.splitlines()
    assert said.startswith("no Python from 3.11 to 3.14 starts here")
    assert by_make.startswith("make: ***")


PINS = 'sed -e "/^#/d" -e "s/ *;.*//" constraints.txt\n'
COMBINATIONS = {
    f"{platform}/{python}"
    for platform in ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin",
                     "x86_64-pc-windows-msvc")
    for python in ("3.11", "3.12", "3.13", "3.14")
}  # fmt: skip


@pytest.mark.parametrize(
    ("uv", "wrong", "why"),
    [
        (PINS, set(), ""),
        (f'case "$*" in *windows*3.14*) echo no wheel >&2; exit 1 ;; *) {PINS} ;; esac\n',
         {"x86_64-pc-windows-msvc/3.14"}, "no wheel"),
        (f'case "$*" in *darwin*) echo forgotten==1.0 ;; esac\n{PINS}',
         {name for name in COMBINATIONS if "darwin" in name}, "forgotten==1.0"),
        ("exit 3\n", COMBINATIONS, "does not resolve"),
    ],
)  # fmt: skip
def test_each_platform_and_python_is_resolved_and_named_where_that_fails(tmp_path, uv, wrong, why):
    program(tmp_path / "uv", uv)
    done = subprocess.run(
        [ROOT / ".ci" / "resolve"], env=os.environ | {"UV": str(tmp_path / "uv")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == (1 if wrong else 0), done.stderr
    named = done.stderr.partition(";")[0].split()
    assert {word for word in named if "/" in word} == wrong
    assert why in done.stdout
    lines = [line for line in done.stdout.splitlines() if " Python " in line]
    assert len(lines) == 16
    assert {"/".join(line.split()[::2][:2]) for line in lines} == COMBINATIONS
    assert sum(line.endswith("packages") for line in lines) == 16 - len(wrong)


@pytest.fixture
def second(tmp_path, machine):
    """A checkout whose environment is of Python 3.11, where CI looks for another Python; `make` fails."""
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "another-python", checkout / ".ci")
    machine.python("python3.11", "3.11")
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(machine.programs / "python3.11")
    for tool in ("dirname", "mktemp"):
        (machine.programs / tool).symlink_to(shutil.which(tool))
    program(machine.programs / "timeout", 'shift; exec "$@"\n')
    program(machine.programs / "make", f'echo "$@" >{machine.programs}/make.log; exit 2\n')
    return lambda: machine.run(
        "/bin/sh", "-c", f"HOME={tmp_path} exec {shlex.quote(str(checkout / '.ci' / 'another-python'))}"
    )


def test_ci_goes_on_where_there_is_no_other_python(machine, second):
    machine.shim("python3.14")
    machine.python("python3.13", "3.13", lacks="ensurepip")
    done = second()
    assert done.returncode == 0, done.stderr
    assert "no other Python than 3.11" in done.stdout
    assert not (machine.programs / "make.log").exists()


def test_ci_installs_with_the_newest_other_python_and_fails_where_that_fails(machine, second):
    machine.python("python3.12", "3.12")
    machine.python("python3.13", "3.13")
    assert second().returncode == 2
    words = (machine.programs / "make.log").read_text().split()
    assert words[:2] == ["install", "PYTHON=python3.13"]
    assert not Path(words[2].removeprefix("VENV=")).parent.exists()  # gigabytes


def test_ci_finds_another_python_that_pyenv_keeps_off_the_path(machine, second, tmp_path):
    machine.shim("python3.13")
    kept = tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin"
    kept.mkdir(parents=True)
    machine.python("kept", "3.13")
    (machine.programs / "kept").rename(kept / "python")
    assert second().returncode == 2
    assert f"PYTHON={kept / 'python'}" in (machine.programs / "make.log").read_text()
