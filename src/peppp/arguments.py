"""The border of public functions: their arguments are of the kinds that they are annotated with.

``@checked`` above a function or a dataclass refuses everything else with an ArgumentError. What only a
function itself can know of its arguments (shapes, limits), it checks itself. Libraries that check annotations
(beartype, typeguard) refuse arguments, too, but do not make arrays of what they are given.
"""

import functools
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.errors import ArgumentError

Target = TypeVar("Target", bound=Callable[..., Any])
_T = TypeVar("_T")
Reader = Callable[[Any], Any]  # gives a value back, or an array made of it; raises _Refused

_LARGEST = 1e100  # whose square is a number, too
_WHOLE = 1 << 65  # seeds have 64 bits
_PLAIN = (str, bytes, int, float, complex, type(None))


def _unaliased(hint: Any) -> Any:
    """What an annotation names: from Python 3.12 on, numpy's are aliases of their own type."""
    origin = get_origin(hint)
    if hasattr(origin, "__value__"):
        return _unaliased(origin.__value__[get_args(hint)])
    if origin is None and hasattr(hint, "__value__"):
        return _unaliased(hint.__value__)
    return hint


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The parts of a union, and of the unions in it; an annotation that is no union alone."""
    hint = _unaliased(hint)
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(dict.fromkeys(inner for part in get_args(hint) for inner in _alternatives(part)))


_ARRAY_LIKE = frozenset(_alternatives(ArrayLike))  # the many parts of numpy's annotation


class _Refused(Exception):  # noqa: N818  it never leaves this file
    """A value is not what a reader reads."""


def checked(target: Target) -> Target:
    """Have a function, or the construction of a dataclass, refuse arguments of another kind than annotated.

    An int serves as a float, and whatever numpy makes an array of real numbers of as an array, which is what
    the function then gets. The elements of sequences and mappings are looked at, those of iterators are not.

    >>> @checked
    ... def halved(count: int | str = 2) -> float:
    ...     return int(count) / 2
    >>> halved("3")
    1.5
    >>> halved(None)
    Traceback (most recent call last):
    peppp.errors.ArgumentError: halved takes count as int or str, not None
    """
    if isinstance(target, type):
        made: Any = target
        made.__init__ = _checked(made.__init__, target.__name__)
        return target
    function: Target = _checked(target, target.__name__)
    return function


def trusted(target: type[_T], **fields: Any) -> _T:
    """Construct a checked dataclass from fields that were checked already, which takes less time."""
    made = object.__new__(target)
    construct: Any = target.__init__
    construct.__wrapped__(made, **fields)
    return made


def _checked(function: Any, name: str) -> Any:
    parameters = signature(function).parameters.values()
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
    named_freely = {p.name for p in parameters if p.kind is p.VAR_KEYWORD} | {"return"}

    @functools.cache  # annotations may name what is defined later
    def readers() -> dict[str, Reader]:
        return {p: _reader(h) for p, h in get_type_hints(function).items() if p not in named_freely}

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        known = readers()

        def read(place: str, value: Any) -> Any:
            try:
                return known[place](value) if place in known else value
            except _Refused:
                wanted = in_words(get_type_hints(function)[place])
                what = name if name != "__init__" else type(args[0]).__name__
                raise ArgumentError(f"{what} takes {place} as {wanted}, not {shown(value)}") from None

        named = {place: read(place, value) for place, value in kwargs.items()}
        read_args = [read(place, value) for place, value in zip(places, args, strict=False)]
        read_args += [read(more, value) for value in args[len(places) :]]
        return function(*read_args, **named)

    return wrapper


def matrix_of(given: ArrayLike, name: str) -> NDArray[np.float64]:
    """A matrix that is not empty and holds finite numbers; ArgumentError where it is another array."""
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ArgumentError(f"{name} are a matrix [rows, columns] that is not empty, not {array.shape}")
    if not (np.abs(array) < _LARGEST).all():
        raise ArgumentError(f"{name} hold NaN, infinity or numbers beyond 1e100; give finite ones")
    return array


def indices(given: ArrayLike, count: int, name: str) -> NDArray[np.intp]:
    """Indices [l] of ``count`` things, or a mask [count] of them, as indices; ArgumentError where neither.

    >>> indices([True, False, True], 3, "rows"), indices([1, -1], 3, "rows")
    (array([0, 2]), array([1, 2]))
    """
    array = np.asarray(given)
    if array.dtype.kind == "b" and array.shape == (count,):
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ArgumentError(f"{name} are indices [l] or a mask [{count}], not {array.dtype} {array.shape}")
    if not ((array >= -count) & (array < count)).all():
        raise ArgumentError(f"{name} are indices below {count}, of so many that there are")
    return array.astype(np.intp) % max(count, 1)


def check_seed(seed: int) -> None:
    """Numpy's generators take no other seeds."""
    if seed < 0:
        raise ArgumentError(f"a seed is a whole number from 0, not {seed}")


def shown(value: object) -> str:
    """What was given, in a few words of one line.

    >>> shown(3), shown("a word"), shown([1, 2])
    ('3', "'a word'", 'a list')
    """
    if type(value) in _PLAIN and not (isinstance(value, int) and abs(value) > 1 << 64):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def in_words(hint: Any) -> str:
    """An annotation in words.

    >>> in_words(int | None), in_words(Sequence[float]), in_words(Literal["true", "estimated"])
    ('int or None', 'sequence of float', "'true' or 'estimated'")
    """
    hint = _unaliased(hint)
    origin, parts = get_origin(hint), get_args(hint)
    if origin is np.ndarray:
        return "array"
    if origin in (Union, types.UnionType):
        parts = _alternatives(hint)
        several = _ARRAY_LIKE if set(parts) >= _ARRAY_LIKE else ()
        words = list(dict.fromkeys("array" if part in several else in_words(part) for part in parts))
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if hint is types.NoneType:
        return "None"
    if isinstance(hint, TypeVar):
        return in_words(hint.__bound__)
    if origin is None:
        return str(getattr(hint, "__name__", hint))
    if origin is Callable:
        return "function"
    name = "sequence" if origin is tuple else origin.__name__.lower()
    of = dict.fromkeys(in_words(part) for part in parts if part not in (..., Any))
    return f"{name} of {' and '.join(of)}" if of else str(name)


def _reader(hint: Any) -> Reader:
    """What reads the values of an annotation."""
    hint = _unaliased(hint)
    origin, parts = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return lambda value: value
    if isinstance(hint, TypeVar):
        return _reader(hint.__bound__)
    if origin in (Union, types.UnionType):
        return _of_union(_alternatives(hint))
    if origin is np.ndarray:
        return _of_array(get_args(parts[1])[0])
    if origin is Literal:
        return _where(lambda value: isinstance(value, str) and value in parts)
    if hint is float:
        return _real
    if hint is int:
        return _whole
    if hint is Callable or origin is Callable:
        return _where(callable)
    if origin is not None and issubclass(origin, Mapping):
        return _of_mapping(*parts)
    if origin is tuple and ... not in parts:
        return _of_tuple(parts)
    if origin is not None and issubclass(origin, Iterable):
        return _of_elements(Sequence if origin is tuple else origin, parts[0], made_tuple=origin is tuple)
    kind = origin or hint
    if getattr(kind, "_is_protocol", False):
        names = [name for name in vars(kind) if not name.startswith("_")]
        return _where(lambda value: all(hasattr(value, name) for name in names))
    return _where(lambda value: isinstance(value, kind))


def _where(allowed: Callable[[Any], bool]) -> Reader:
    def read(value: Any) -> Any:
        if not allowed(value):
            raise _Refused
        return value

    return read


def _whole(value: Any) -> Any:
    if type(value) is int and abs(value) < _WHOLE:
        return value
    if not isinstance(value, Integral) or abs(int(value)) >= _WHOLE:
        raise _Refused
    return int(value)


def _real(value: Any) -> Any:
    """Python's number of any library's; ints stay ints."""
    if type(value) is float or (type(value) is int and abs(value) < _WHOLE):
        return value
    if not isinstance(value, Real) and getattr(value, "ndim", None) != 0:  # a number in an array or a tensor
        raise _Refused
    try:
        return float(value)
    except Exception:  # whatever a library says of what is no number
        raise _Refused from None


def _of_union(parts: tuple[Any, ...]) -> Reader:
    if Path in parts:
        parts = tuple(part for part in parts if part not in (str, Path))
        of_paths = [_where(_is_path)]
    else:
        of_paths = []
    readers = [_reader(part) for part in parts if part not in _ARRAY_LIKE or not set(parts) >= _ARRAY_LIKE]
    readers += of_paths
    if set(parts) >= _ARRAY_LIKE:
        readers.append(_of_array(None))

    def read(value: Any) -> Any:
        for reader in readers:
            try:
                return reader(value)
            except _Refused:
                continue
        raise _Refused

    return read


def _is_path(value: Any) -> bool:
    """A name that files can have."""
    if not isinstance(value, (str, Path)):
        return False
    try:
        name = os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return b"\0" not in name and all(len(part) < 256 for part in name.split(b"/"))


def _of_array(kind: Any) -> Reader:
    """Arrays of real numbers, in the type that is annotated, or their own; of Any, whatever is in them."""

    def read(value: Any) -> Any:
        try:
            array = np.asarray(value)
        except Exception:  # ragged lists, and tensors that are nowhere
            raise _Refused from None
        if kind is Any or (kind is np.generic and array.dtype != object):
            return array
        whole = kind is not None and issubclass(kind, np.integer)
        if kind is np.generic or array.dtype.kind not in ("biu" if whole and array.size else "biuf"):
            raise _Refused
        return array if kind is None else array.astype(kind, copy=False)

    return read


def _of_mapping(key: Any = Any, value: Any = Any) -> Reader:
    # Texts are only handed on; what cannot be stored of a provenance is said where it is written.
    read_key, read_value = _reader(key), _reader(Any if value is str else value)

    def read(given: Any) -> Any:
        if not isinstance(given, Mapping):
            raise _Refused
        for k, v in given.items():
            read_key(k)
            read_value(v)
        return given

    return read


def _of_tuple(parts: tuple[Any, ...]) -> Reader:
    readers = tuple(map(_reader, parts))

    def read(value: Any) -> Any:
        if not isinstance(value, (tuple, list)) or len(value) != len(readers):
            raise _Refused
        for reader, element in zip(readers, value, strict=True):
            reader(element)
        return value

    return read


def _of_elements(kind: type, part: Any, *, made_tuple: bool) -> Reader:
    reader = _reader(part)

    def read(value: Any) -> Any:
        if isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0:
            raise _Refused
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, kind):
            raise _Refused
        if isinstance(value, Collection):
            for element in value:
                reader(element)
        return tuple(value) if made_tuple and isinstance(value, Sequence) else value

    return read
