"""Kinds of inputs that went wrong once: each has a test that carries its letter."""

import ast
from pathlib import Path

import pytest

# 0, A to Q, X to Z: what is rounded, ways to train, formats (docs/numbers.md, docs/howto/loop.md). R, S, AB:
# memory (docs/memory.md). T, U, V, AC: pictures as people see them (docs/data.md).
DUE = [*"0ABCDEFGHIJKLMNOPQRSTUVXYZ", "AB", "AC", "AD", "AF", "AH", "AI", "AK", "AL", "AM", "AN", "AO"]


def letters():
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
                found.add(ast.literal_eval(node.args[0]))
    return found


@pytest.mark.parametrize("letter", DUE)
def test_each_letter_that_is_due_has_a_test(letter):
    assert letter in letters()


def test_no_letter_is_misspelt():
    assert letters() <= set(DUE)
