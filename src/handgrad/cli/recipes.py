"""handgrad recipes: a table of the recipes."""

from __future__ import annotations

import click

from ..io.atomic import encode_json
from ..recipes import RECIPES, RESULTS, Recipe
from ..tables import Table
from .echo import echo
from .options import json_option
from .progress import layer_sizes

COLUMNS = ("recipe", "network", "epochs", "test accuracy", "time", "cores", "needs")


@click.command()
@json_option
def recipes(as_json: bool) -> None:
    """List the recipes and their results on MNIST.

    A recipe is a network and its training with all settings, for handgrad train --recipe. The accuracy is that of the
    test set, as mean and standard deviation over several seeds; an accuracy without ± is from one run. The time
    includes preprocessing and evaluation, on the given number of cores of an AMD EPYC processor. A recipe that needs
    images cannot be trained on the numbers of a table.
    """
    rows = [dict(zip(COLUMNS, _row(recipe), strict=True)) for recipe in RECIPES.values()]
    if as_json:
        for row in rows:
            echo(encode_json(row))
        return
    echo(*str(Table(COLUMNS, [[str(cell) for cell in row.values()] for row in rows])).splitlines())
    echo("train one: handgrad train --recipe NAME")


def describe_networks(recipe: Recipe) -> str:
    """Return "784-30-10", or "4 x 784-30-10" for an ensemble of four networks."""
    sizes = "-".join(layer_sizes(recipe.trainer().network))
    return sizes if recipe.members == 1 else f"{recipe.members} x {sizes}"


def _row(recipe: Recipe) -> tuple[str | int, ...]:
    result = RESULTS[recipe.name]
    needs = "images" if recipe.needs_images else "images or numbers"
    return recipe.name, describe_networks(recipe), recipe.epochs, result.accuracy, result.duration, result.cores, needs


COMMANDS = (recipes,)
