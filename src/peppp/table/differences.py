"""Describe how recipes differ, so that rows of one task under two recipes can be distinguished."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from peppp.records import Recipe

_FIELDS = tuple(field.name for field in fields(Recipe))


def unlike_most(recipes: Iterable[Recipe]) -> dict[Recipe, dict[str, Any]]:
    """For each recipe, return the fields whose values differ from the most common ones.

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
    """Describe what distinguishes each recipe of one task from the others; "" if there is only one.

    >>> sorted(in_words([Recipe(), Recipe(network="vgg11")]).values())
    ['network resnet8', 'network vgg11']
    """
    distinct = list(dict.fromkeys(recipes))
    names = [name for name in _FIELDS if len({getattr(recipe, name) for recipe in distinct}) > 1]
    return {recipe: ", ".join(f"{name} {getattr(recipe, name)}" for name in names) for recipe in distinct}
