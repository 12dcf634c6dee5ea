"""Tasks that need no download: scikit-learn's small tables and digits, and a text made by a grammar."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from peppp.errors import DataError
from peppp.tasks.dataset import Dataset, digest, split
from peppp.tasks.images import image_dataset, squares
from peppp.tasks.trees import read_bytes

DEFAULT_LENGTH = 64
_TABLES = ("wine", "breast_cancer", "diabetes")
NAMES = ("digits", *_TABLES, "grammar")

_SENTENCES = 3000
_TEST_SHARE = 0.2


def read_builtin(name: str, resolution: int = 0) -> Dataset:
    """The task of one of :data:`NAMES`, or ``digits:024`` for some of the digits.

    ``digits`` are images; ``wine`` and ``breast_cancer`` tell classes from measured numbers, ``diabetes``
    predicts a number; ``grammar`` predicts the next character of generated sentences.
    """
    kind, _, rest = name.partition(":")
    if kind == "digits":
        return _digits(rest, resolution)
    if kind == "grammar":
        return text_dataset("grammar", "".join(_sentences(_SENTENCES)), resolution or DEFAULT_LENGTH)
    return _table(name)


def read_text(path: Path, resolution: int = 0) -> Dataset:
    """The next character of a text file: its first 80 % train, the rest tests."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from None
    return text_dataset(path.stem, text, resolution or DEFAULT_LENGTH)


def text_dataset(name: str, text: str, length: int) -> Dataset:
    """Windows of ``length`` characters, and what follows each character: int64 [count, length] both."""
    classes = tuple(sorted(set(text)))
    if len(classes) < 2 or not 2 <= length <= 1024 or len(text) < 10 * (length + 1):
        raise DataError(
            f"{name} has {len(text)} characters, {len(classes)} different; windows of {length} need 2 to "
            "1024 characters each, two different ones and a text of ten windows"
        )
    codes = np.searchsorted(np.array(classes), np.array(list(text))).astype(np.int64)
    count = (len(codes) - 1) // length
    inputs = codes[: count * length].reshape(count, length)
    targets = codes[1 : count * length + 1].reshape(count, length)
    first = count - max(1, round(_TEST_SHARE * count))
    return Dataset(
        name,
        name,
        digest("text", text),
        classes,
        inputs[:first],
        targets[:first],
        inputs[first:],
        targets[first:],
    )


def _digits(labels_text: str, resolution: int) -> Dataset:
    from sklearn.datasets import load_digits

    wanted = sorted(set(labels_text or "0123456789"))
    if len(wanted) < 2 or not set(wanted) <= set("0123456789"):
        raise DataError(f"no such digits: {labels_text!r}; name two or more of them, as digits:02468")
    bunch = load_digits()
    chosen = np.isin(bunch.target, [int(c) for c in wanted])
    images = np.round(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
    labels = np.searchsorted([int(c) for c in wanted], bunch.target[chosen]).astype(np.int64)
    name = "digits" if len(wanted) == 10 else f"digits-{''.join(wanted)}"
    tested = split(labels, wanted)
    pixels = squares(images, len(images), resolution, name)
    return image_dataset(
        name,
        "digits",
        digest("digits", images, labels),
        tuple(wanted),
        (pixels[~tested], labels[~tested]),
        (pixels[tested], labels[tested]),
    )


def _table(name: str) -> Dataset:
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    classes: tuple[str, ...]
    inputs = np.ascontiguousarray(bunch.data, dtype=np.float32)
    if name == "diabetes":
        targets = bunch.target.astype(np.float32)
        tested = np.zeros(len(targets), dtype=bool)
        tested[np.random.default_rng(0).permutation(len(targets))[: round(_TEST_SHARE * len(targets))]] = True
        classes, loss = (), "squared_error"
    else:
        targets = bunch.target.astype(np.int64)
        classes, loss = tuple(str(c) for c in bunch.target_names), "cross_entropy"
        tested = split(targets, classes)
    return Dataset(
        name,
        name,
        digest(name, inputs, targets),
        classes,
        inputs[~tested],
        targets[~tested],
        inputs[tested],
        targets[tested],
        loss,
    )


# A sentence has a subject, a verb that agrees with it in number, and perhaps an object, a relative clause and
# a second half: what comes next depends on characters nearby and on ones far back.
_NOUNS = ("cat", "bird", "child", "river", "machine", "number", "teacher", "stone")
_PLURALS = {"child": "children"}
_VERBS = ("see", "follow", "count", "like", "remember", "need")
_ALONE = ("sleep", "wait", "grow", "sing")
_ADJECTIVES = ("small", "green", "old", "quiet", "seventh")
_LINKS = ("and", "but", "because", "while")


def _sentences(count: int, seed: int = 0) -> Iterator[str]:
    draw = random.Random(seed)  # of which only random() is promised to give the same for ever

    def one(words: tuple[str, ...]) -> str:
        return words[int(draw.random() * len(words))]

    def noun(plural: bool) -> str:
        word = one(_NOUNS)
        adjective = f"{one(_ADJECTIVES)} " if draw.random() < 0.3 else ""
        return f"the {adjective}{_PLURALS.get(word, word + 's') if plural else word}"

    def verb(words: tuple[str, ...], plural: bool) -> str:
        return one(words) if plural else f"{one(words)}s"

    def clause() -> str:
        plural = draw.random() < 0.5
        subject = noun(plural)
        if draw.random() < 0.25:
            subject += f" that {verb(_VERBS, plural)} {noun(draw.random() < 0.5)}"
        if draw.random() < 0.3:
            return f"{subject} {verb(_ALONE, plural)}"
        return f"{subject} {verb(_VERBS, plural)} {noun(draw.random() < 0.5)}"

    for _ in range(count):
        second = f" {one(_LINKS)} {clause()}" if draw.random() < 0.3 else ""
        yield f"{clause()}{second}.\n"
