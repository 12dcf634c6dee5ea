"""The border of public functions, also where annotations are aliases, as numpy's are from Python 3.12 on."""

import typing
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from peppp.arguments import checked, in_words
from peppp.errors import ArgumentError

T = typing.TypeVar("T", bound=np.generic)


def alias(name, value, parameters=()):
    made = getattr(typing, "TypeAliasType", None)
    if made is None:
        pytest.skip("type aliases of their own type came with Python 3.12")
    return made(name, value, type_params=parameters)


def test_arrays_are_read_and_everything_else_is_refused():
    @checked
    def kinds(a: ArrayLike, b: ArrayLike | None = None, c: NDArray[np.float64] | None = None):
        return a, b, c

    found = kinds([1, 2], None, np.ones(2))
    assert isinstance(found[0], np.ndarray)
    assert found[1] is None
    assert found[2].dtype == np.float64
    for wrong in ("x", object(), [[1], [1, 2]]):
        with pytest.raises(ArgumentError, match="kinds takes a as array, not"):
            kinds(wrong)
    with pytest.raises(ArgumentError, match="kinds takes b as array or None, not 'x'"):
        kinds([1], "x")


def test_an_alias_means_what_it_names():
    number = alias("Number", int | float)
    array = alias("Array", np.ndarray[tuple[typing.Any, ...], np.dtype[T]], (T,))

    def half(count: number, values: array[np.float64] | None = None) -> object:
        return count

    half.__annotations__ = {"count": number, "values": array[np.float64] | None}
    half = checked(half)
    assert half(3, [1.0]) == 3
    with pytest.raises(ArgumentError, match="half takes count as int or float, not 'x'"):
        half("x")
    with pytest.raises(ArgumentError, match="half takes values as array or None, not 'x'"):
        half(1, "x")
    assert in_words(number) == "int or float"


def test_elements_of_sequences_and_mappings_are_looked_at():
    @checked
    def total(values: Sequence[float], named: Mapping[str, int] | None = None):
        return sum(values)

    assert total((1, 2.5)) == 3.5
    for wrong in (["a"], "ab", 3, [None]):
        with pytest.raises(ArgumentError, match="sequence of float"):
            total(wrong)
    with pytest.raises(ArgumentError, match="mapping of str and int or None"):
        total([1], {"a": "b"})
