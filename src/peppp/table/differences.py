"""What sets the rows of a table apart, in words: rows of one task under two recipes must not look alike."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from peppp.records import Recipe

_FIELDS = tuple(field.name for field in fields(Recipe))


def unlike_most(recipes: Iterable[Recipe]) -> dict[Recipe, dict[str, Any]]:
    """Of each recipe, the fields whose values differ from the commonest ones.

    >>> usual, other = Recipe(), Recipe(network="vgg11", learning_rate=0.01)
    >>> unlike_most([usual, usual, other])[other]
    {'network': 'vgg11', 'learning_rate': 0.01}
    """
    counted = Counter(recipes)
    usual = {}
    for name in _FIELDS:
        values: Counter[Any] = Counter()
        for recipe, count in counted.items():
            values[getattr(recipe, name)] += count
        usual[name] = values.most_common(1)[0][0] if values else None
    return {
        recipe: {name: value for name in _FIELDS if (value := getattr(recipe, name)) != usual[name]}
        for recipe in counted
    }


def in_words(recipes: Iterable[Recipe]) -> dict[Recipe, str]:
    """What distinguishes the recipes of one task, "" if there is only one.

    >>> sorted(in_words([Recipe(), Recipe(network="vgg11")]).values())
    ['network resnet18', 'network vgg11']
    """
    distinct = list(dict.fromkeys(recipes))
    names = [name for name in _FIELDS if len({getattr(recipe, name) for recipe in distinct}) > 1]
    return {recipe: ", ".join(f"{name} {getattr(recipe, name)}" for name in names) for recipe in distinct}
