"""List the paper's 87 data sets (Table 2) by name, and the subsets that its experiments use.

The paper does not define the cut-out sets, so their definitions were inferred from the image counts: each
CIFAR-100 set is one superclass, and each ImageNet set consists of the classes of ILSVRC-2012 below one node
of WordNet, which reproduces the paper's number of points for all 50. This module holds no pixels;
:mod:`peppp.tasks.sources` finds the data on disk.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from peppp.errors import DataError

E5_WORDNET_IDS = (
    "n02470899", "n01482071", "n02022684", "n03546340", "n07566340",
    "n00019613", "n01772222", "n03915437", "n02489589", "n02127808",
)  # fmt: skip
"""The ten ImageNet sets on which the paper learns across networks (appendix E.5)."""

# Table 5 lists sets 2 to 17 of Table 2 at each learning rate; the last block stops after 13 of them.
_TABLE5_BLOCKS = ((0.01, 16), (0.001, 16), (0.0001, 13))


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set of Table 2.

    ``name`` is the paper's name and ``slug`` is ours. ``source`` is the published set it is cut from, and
    ``definition`` says how. ``points`` counts training and test images as the paper does. ``classes`` is the
    number of classes, or None where it is unknown. ``terms`` are the terms of use that the source's pages
    state.
    """

    index: int
    slug: str
    name: str
    source: str
    resolution: int
    points: int
    classes: int | None
    terms: str
    definition: str

    @property
    def family(self) -> str:
        """The group of sets with the same source: ``cifar``, ``imagenet``, or else the set's own slug."""
        return {"CIFAR-10": "cifar", "CIFAR-100": "cifar", "ILSVRC-2012": "imagenet"}.get(
            self.source, self.slug
        )

    @property
    def wordnet_id(self) -> str | None:
        """The node of WordNet above all classes of an ImageNet set; None for other sets."""
        return self.definition.partition(":")[0] if self.family == "imagenet" else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes to keep, by the source's names (for ImageNet, WordNet ids); () keeps all classes."""
        listed = self.definition.partition(": ")[2] if self.source in ("CIFAR-100", "ILSVRC-2012") else ""
        return tuple(listed.split(";")) if listed else ()


@dataclass(frozen=True, slots=True)
class ImageNetClass:
    """A class of ILSVRC-2012 in one of the 50 sets: its WordNet id, name and numbers of images."""

    wordnet_id: str
    name: str
    train_images: int
    val_images: int


def entries() -> tuple[Entry, ...]:
    """Return all 87 data sets in the order of Table 2.

    >>> len(entries()), entries()[37].slug, entries()[37].points
    (87, 'imagenet-bag', 6519)
    """
    return tuple(_by_slug().values())


def find(slug: str) -> Entry:
    """Return the data set with this slug; raise DataError with the closest slugs if there is none.

    >>> find("imagenet-bag").class_names
    ('n02769748', 'n03709823', 'n03958227', 'n04026417', 'n04235860')
    """
    if slug not in _by_slug():
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(slug, _by_slug(), 3)) or "cifar10, cifar100-fish, imagenet-bag"
        raise DataError(
            f"no data set {slug!r} in the catalog; similar names: {near} (`peppp datasets` lists all)"
        )
    return _by_slug()[slug]


def imagenet_classes(entry: Entry) -> tuple[ImageNetClass, ...]:
    """Return the classes of an ImageNet set in the order of their WordNet ids; () for other sets.

    >>> [c.name for c in imagenet_classes(find("imagenet-bag"))]
    ['backpack', 'mailbag', 'plastic bag', 'purse', 'sleeping bag']
    """
    return _imagenet_lists().get(entry.wordnet_id or "", ())


def table5() -> tuple[tuple[Entry, float], ...]:
    """Return the 45 rows of Table 5, each a CIFAR-100 set and a learning rate.

    The paper trains them for 100 epochs with batches of 128 (appendix E.4.2).

    >>> len(table5()), table5()[-1][0].slug, table5()[-1][1]
    (45, 'cifar100-medium-sized-mammals', 0.0001)
    """
    sets = entries()[1:17]
    return tuple((entry, rate) for rate, count in _TABLE5_BLOCKS for entry in sets[:count])


def e5_sets() -> tuple[Entry, ...]:
    """Return the ten ImageNet sets of appendix E.5 in the paper's order.

    >>> e5_sets()[0].name
    'ImageNet (anthropoid ape)'
    """
    by_id = {entry.wordnet_id: entry for entry in entries()}
    return tuple(by_id[wordnet_id] for wordnet_id in E5_WORDNET_IDS)


def is_named(slug: str) -> bool:
    """Whether the catalog has a data set with this slug."""
    return slug in _by_slug()


@cache
def _by_slug() -> Mapping[str, Entry]:
    return {
        row["slug"]: Entry(
            index=int(row["index"]),
            slug=row["slug"],
            name=row["name"],
            source=row["source"],
            resolution=int(row["resolution"]),
            points=int(row["points"]),
            classes=int(row["classes"]) if row["classes"] else None,
            terms=row["terms"],
            definition=row["definition"],
        )
        for row in _rows("datasets.csv")
    }


@cache
def _imagenet_lists() -> Mapping[str, tuple[ImageNetClass, ...]]:
    lists: dict[str, list[ImageNetClass]] = {}
    for row in _rows("imagenet.csv"):
        one = ImageNetClass(
            row["class_wnid"], row["class_name"], int(row["train_images"]), int(row["val_images"])
        )
        lists.setdefault(row["partition_wnid"], []).append(one)
    return {
        wordnet_id: tuple(sorted(found, key=lambda c: c.wordnet_id)) for wordnet_id, found in lists.items()
    }


def _rows(name: str) -> Iterable[dict[str, str]]:
    text = (files("peppp.tasks") / "lists" / name).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())
