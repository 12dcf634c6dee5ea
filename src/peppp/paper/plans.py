"""The paper's campaigns by name: the data sets and recipes that form the rows of its error matrices."""

from dataclasses import replace

from peppp.errors import BudgetError
from peppp.records import Recipe
from peppp.tasks.catalog import Entry, e5_sets, entries, find, table5

PLANS = {
    "paper": "the 87 data sets of Table 2 at ResNet-18, 10 epochs, learning rate 0.001: 8613",
    "table5": "the 45 data sets and learning rates of Table 5, 100 epochs, batches of 128: 4455",
    "architectures": "the ten ImageNet sets of E.5 at ResNet-34 and VGG-11, 13, 16 and 19: 4950",
    "epochs": "CIFAR-10 for 100 epochs (Figure 19): 99",
    "learning-rates": "CIFAR-10 at the learning rates 0.01 and 0.0001 (Figure 20): 198",
}
"""The plans by name, with a description that ends in the number of measurements at 99 configurations."""


def named_plan(name: str, recipe: Recipe) -> list[tuple[Entry, Recipe]]:
    """The rows (data set, recipe) of a plan; fields that the plan does not set are taken from ``recipe``.

    Figures 19 and 20 also need the plan ``paper``, which has CIFAR-10 at 10 epochs and the learning rate
    0.001. Raises BudgetError for an unknown plan.

    >>> rows = named_plan("table5", Recipe())
    >>> len(rows), rows[0][0].slug, rows[0][1].learning_rate, rows[0][1].epochs
    (45, 'cifar100-aquatic-mammals', 0.01, 100)
    """
    paper = replace(recipe, network="resnet18", epochs=10, batch_size=32, learning_rate=0.001)
    cifar10 = find("cifar10")
    match name:
        case "paper":
            return [(entry, paper) for entry in entries()]
        case "table5":
            return [
                (entry, replace(paper, learning_rate=rate, epochs=100, batch_size=128))
                for entry, rate in table5()
            ]
        case "architectures":
            networks = ("resnet34", "vgg11", "vgg13", "vgg16", "vgg19")
            return [(entry, replace(paper, network=network)) for network in networks for entry in e5_sets()]
        case "epochs":
            return [(cifar10, replace(paper, epochs=100))]
        case "learning-rates":
            return [(cifar10, replace(paper, learning_rate=rate)) for rate in (0.01, 0.0001)]
    raise BudgetError(f"no plan {name!r}; there are {', '.join(PLANS)}")
