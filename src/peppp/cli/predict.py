"""``peppp predict``: label images with a trained network."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from peppp.cli.options import Json, print_json
from peppp.errors import DataError
from peppp.files import check_place, whole


@dataclass(frozen=True, slots=True)
class Row:
    """The prediction for one image: the probability of each class."""

    image: str
    classes: tuple[str, ...]
    each: list[float]

    @property
    def most(self) -> float:
        """The probability of the likeliest class."""
        return max(self.each)

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.classes[self.each.index(self.most)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        each = dict(zip(self.classes, self.each, strict=True))
        return {"image": self.image, "label": self.label, "probability": self.most, "probabilities": each}


def command(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished `peppp train --out`, or its file of weights.")
    ],
    images: Annotated[
        list[Path], typer.Argument(help="Images, or folders, which are searched at any depth.")
    ],
    network: Annotated[
        str | None,
        typer.Option(
            help="Your own network, package.module:factory, as in the run; its code is imported and run."
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="CSV file for image, label, probability, and the probability of each class."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Label images with a network that `peppp train` trained, and show the probability of each label.

    Example: peppp predict peppp-run/ new_photos/ --csv labels.csv
    """
    import numpy as np

    from peppp.tasks.folders import images_within
    from peppp.tasks.images import decode, several, square
    from peppp.tasks.trees import read_bytes
    from peppp.training.predicting import probabilities, read_trained

    if csv_file is not None:
        check_place(csv_file)
    trained = read_trained(run, network=network)
    files = images_within(images)
    pixels, broken = [], []
    for file in files:
        try:
            pixels.append(square(decode(read_bytes(file), str(file)), trained.side))
        except DataError as error:
            broken.append(str(error))
    if broken:
        raise DataError(several(broken))
    found = probabilities(trained, np.stack(pixels)).numpy()
    rows = [Row(str(file), trained.classes, row.tolist()) for file, row in zip(files, found, strict=True)]
    if csv_file is not None:
        with whole(csv_file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as target:
            table = csv.writer(target)
            table.writerow(["image", "label", "probability", *trained.classes])
            table.writerows(
                [row.image, row.label, *map("{:.4f}".format, (row.most, *row.each))] for row in rows
            )
        typer.echo(f"table     {csv_file}", err=json)
    if json:
        about = {"network": trained.name, "precision": trained.precision, "test_error": trained.test_error}
        print_json(about | {"predictions": [row.to_dict() for row in rows]})
    elif csv_file is None:
        width = max(len(row.label) for row in rows)
        for row in rows:
            typer.echo(f"{row.label:<{width}}  {row.most:6.1%}  {row.image}")
