"""What the documentation says can be done: commands, links, files, examples."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import peppp.table.select
from helpers import peppp as run_line
from peppp.cli import app
from peppp.formats import paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.table.csv import write_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def _website(name):
    specification = importlib.util.spec_from_file_location(name, ROOT / "website" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


COMMANDS = dict(_website("hooks").commands())


def shell_lines(page):
    for language, code in CODE.findall(page.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash", "console"):
            for line in code.replace("\\\n", " ").splitlines():
                yield line.removeprefix("$ ").partition("  #")[0].strip()


LINES = sorted({(page.relative_to(ROOT), line) for page in PAGES for line in shell_lines(page) if line})


def check_line(arguments):
    """Parse a line as the command line would, and run nothing."""
    command, context, name = typer.main.get_command(app), None, "peppp"
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        if not hasattr(command, "commands"):
            return
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, arguments = command.resolve_command(context, rest)


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line[:50]}" for page, line in LINES])
def test_every_shell_line_is_one_that_can_be_typed(page, line):
    words = shlex.split(line, comments=True)
    if words and words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words and words[0] == "peppp" and words[1:] not in (["--version"], ["--install-completion"]):
        check_line(words[1:])


def test_lines_with_a_wrong_option_would_be_found():
    for line in (
        "pick x --budget 1MB --fast",
        "memory",
        "conjure",
        "table exort a b",
        "memory a --batch many",
    ):
        with pytest.raises(Exception, match=r".+") as caught:
            check_line(shlex.split(line))
        assert "Usage" in type(caught.value).__name__ or hasattr(caught.value, "format_message")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_can_be_typed_and_is_in_the_docs(name):
    command = COMMANDS[name]
    _, found, example = " ".join(command.help.split()).partition("Example: ")
    assert found, f"{name} --help has no example"
    assert example.startswith(name), example
    check_line(shlex.split(example)[1:])
    shown = run_line(*name.split()[1:], "--help")
    assert shown.returncode == 0
    assert any(name in page.read_text(encoding="utf-8") for page in PAGES), f"{name} is in no page"
    undocumented = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not undocumented


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        text = CODE.sub("", page.read_text(encoding="utf-8"))
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not link.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_no_code_block_is_left_untried():
    """Each block is a shell block (checked above), a doctest, or output of one."""
    for page in PAGES:
        for language, code in CODE.findall(page.read_text(encoding="utf-8")):
            assert language in ("", "sh", "bash", "console") or ">>>" in code, f"{page.name}: {code[:60]}"


def synthetic_table(path):
    write_table(
        path,
        [
            Measurement(
                f"other-{task}", f"o{task}", f"o{task}", configuration, Recipe(), 0, 0.9,
                min(0.9, (0.5 + 0.1 * task) * 5 / configuration.format_a.bits), 0.1, (),
                Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0,
            )
            for task in range(4)
            for configuration in paper_grid()
        ],
    )  # fmt: skip


@pytest.mark.slow
def test_the_tutorials_lines_run_one_after_another(tmp_path, monkeypatch):
    if not peppp.table.select.SHIPPED_TABLE.exists():
        synthetic_table(tmp_path / "table.csv.gz")
        monkeypatch.setattr(peppp.table.select, "SHIPPED_TABLE", tmp_path / "table.csv.gz")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("zero", "one", "two", "three")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            pixels = np.clip(rng.normal(40 + 60 * label, 30, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    lines = list(shell_lines(ROOT / "docs" / "tutorial.md"))
    assert len(lines) >= 4
    for line in lines:
        done = run_line(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    assert {"report.html", "everything.html", "picks.db"} <= {path.name for path in tmp_path.iterdir()}


def test_colours_are_off_where_asked():
    def help_has_colours(**environment):
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        done = subprocess.run(
            [sys.executable, "-m", "peppp", "--help"],
            env=clean | {"TERM": "xterm-256color"} | environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return re.search(r"\x1b\[[0-9;]*[349][0-7]m", done.stdout) is not None

    assert help_has_colours(FORCE_COLOR="1")
    assert not help_has_colours(FORCE_COLOR="1", NO_COLOR="1")
    assert not help_has_colours()  # not a terminal


def test_the_citation_names_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {version}" in citation
    assert peppp.__version__ == version
    assert (
        f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
        or version in (ROOT / "CHANGELOG.md").read_text()
    )


def test_examples_in_docstrings_become_code_blocks_of_the_site():
    pytest.importorskip("griffe", reason="needs pip install 'peppp[docs]'")
    text = _website("docstrings").readable("Adds, as :func:`peppp.units.add`.\n\n>>> 1 + 1\n2\n\nMore.")
    assert text == "Adds, as `units.add`.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_showed(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs pip install 'peppp[docs]'")
    nbclient = pytest.importorskip("nbclient", reason="needs pip install 'peppp[docs]'")
    pytest.importorskip("ipykernel", reason="needs pip install 'peppp[docs]'")
    notebook = nbformat.read(ROOT / "examples" / "pick.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kept = [[output.output_type for output in cell.outputs] for cell in code]
    assert all(cell.execution_count for cell in code)
    assert any(
        "text/html" in o.get("data", {}) and "<iframe" in o["data"]["text/html"] for o in code[-1].outputs
    )
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [[output.output_type for output in cell.outputs] for cell in code] == kept


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs pip install 'peppp[docs]'")
    pytest.importorskip("mkdocstrings", reason="needs pip install 'peppp[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page in ("index", "tutorial", "reference", "commands", "howto/loop", "comparison"):
        assert (tmp_path / "site" / f"{page}.html").stat().st_size > 1000
    text = (tmp_path / "site" / "commands.html").read_text()
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pick", "Missing argument 'data'; see peppp pick --help"),
        ("pick x --budget 1MB --rank 0", "'--rank'"),
        ("pick x --budget 1MB --fast", "No such option: --fast"),
        ("memory resnet8 --batch many", "'--batch'"),
        ("measure runs.db --data", "requires an argument"),
        ("report", "Missing argument 'STORE|TABLE'; see peppp report --help"),
        ("table exort a b", "No such command 'exort'"),
        ("conjure", "No such command 'conjure'; see peppp --help"),
    ],
)
def test_a_line_typed_wrong_is_answered_in_one_line(line, said):
    done = run_line(*line.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("peppp: ")
    assert said in done.stderr


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(peppp.table.select, "read_measurements", interrupted)
    done = run_line("report", "runs.db")
    assert done.returncode == 130
    assert done.stderr.strip() == "peppp: stopped; run the same line again to go on"


def test_the_shell_completes_commands_and_options():
    def completed(words):
        shell = {
            "_PEPPP_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv = ['peppp']; from peppp.cli import main; main()"],
            env=os.environ | shell, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.split()

    assert completed("peppp pi") == ["pick"]
    assert completed("peppp report --bud") == ["--budget"]


def test_the_table_of_fine_tuning_is_that_of_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import finetuning

    kept = json.loads((ROOT / "benchmarks" / "results" / "finetuning.json").read_text())
    assert finetuning.markdown(kept) in (ROOT / "docs" / "howto" / "finetuning.md").read_text()


def test_the_table_of_what_picks_are_worth_is_that_of_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import picks

    kept = json.loads((ROOT / "benchmarks" / "results" / "picks.json").read_text())
    assert picks.markdown(kept) in (ROOT / "docs" / "picking.md").read_text()


GENERATED = {"results.md", "commands.md", "reference.md", "precisions.md"}
# Words of a dialect that the project once had; each has a plainer one.
DIALECT = re.compile(r"\btold\b|\bstands?\b(?![- ]ins?\b)|\bone's own\b|\bof which\b", re.I)


def test_a_page_has_at_most_150_lines():
    for page in PAGES:
        if page.name not in GENERATED:
            lines = len(page.read_text(encoding="utf-8").splitlines())
            assert lines <= 150, f"{page.relative_to(ROOT)} has {lines} lines"


def test_pages_docstrings_and_messages_are_in_plain_words():
    sources = [*(ROOT / "src").rglob("*.py"), ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
    for page in [*PAGES, *sources]:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert not DIALECT.search(line), f"{page.relative_to(ROOT)}:{number}: {line.strip()}"
    assert DIALECT.search("was told")
    assert not DIALECT.search("a stand-in for it, and Stand in for")
