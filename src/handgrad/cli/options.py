"""Options that several commands have, and the recipe and the data set that they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from ..data import Dataset, load
from ..data.stream import SHUFFLES
from ..errors import HandgradError, unknown
from ..io.atomic import as_path
from ..recipes import GROUPS, RECIPES, Recipe
from .echo import warnings_as_lines

METAVARS = {"early_stopping": "PATIENCE", "teacher": "MODEL|RECIPE"}  # those of other options are their types

Function = TypeVar("Function", bound=Callable[..., Any])

data_option = click.option(
    "--data",
    metavar="mnist|synthetic|PATH",
    help="Data set: MNIST, synthetic digits, a directory of IDX or .npy files, a folder with one folder of images for "
    "each class, a CSV file with a column of labels, or an .npz file.  [default: mnist]",
)
label_option = click.option(
    "--label",
    metavar="COLUMN",
    help="Column of the labels in a CSV file, by its name or its number from 0.  [default: the column named label, "
    "class, target or y; or else the only column of text; or else the first or the last one]",
)
shuffle_option = click.option(
    "--shuffle",
    type=click.Choice(SHUFFLES),
    help="Order of the images in an epoch, for IDX and .npy files: rows, any order, as in memory; or blocks of rows "
    "that are mixed in a buffer, for files larger than memory.  [default: auto, by the available memory]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


def model_path(path: Path) -> Path:
    """Return the model file of a run directory, and any other path unchanged.

    Raises HandgradError for the directory of a run that has not written its model yet.
    """
    model = as_path(path) / "model.safetensors"
    if os.path.exists(model):  # unlike model.exists(), also for names that are too long
        return model
    if os.path.exists(path / "config.json"):
        raise HandgradError(
            f"{path} has no model.safetensors yet: continue the run with handgrad train --resume {path}"
        )
    return path


def parse_model(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Parse a model file or a run directory."""
    return None if value is None else model_path(value)


model_argument = click.argument("model", type=click.Path(path_type=Path), callback=parse_model)


class GroupedCommand(click.Command):
    """A command whose help lists the settings of a recipe in groups, then the options that name files."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups."""
        group_of = {setting.name: setting.metadata.get("group") for setting in fields(Recipe)}
        files = ("recipe", "data", "label", "shuffle", "resumed", "start", "freeze")
        group_of |= dict.fromkeys(files, "Recipe and data")
        group_of["sync_every"] = "Training"
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Recipe and data", *GROUPS, "Output")}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups[group_of.get(param.name or "") or "Output"].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def recipe_options(*names: str, default: str = "post") -> Callable[[Function], Function]:
    """Add --recipe, and one option for each of these settings of a recipe, or for all of them.

    The help shows the settings of the recipe `default`.
    """
    types, options = get_type_hints(Recipe), []
    for setting in fields(Recipe):
        kind, text = types[setting.name], setting.metadata.get("help")
        if text is None or setting.name not in (names or types):
            continue
        text += _default_text(setting.name, getattr(RECIPES[default], setting.name))
        flag = flag_name(setting.name)
        if setting.name == "hidden":
            options.append(click.option(flag, metavar="N,N,...", callback=_parse_integers, help=text))
        elif kind is bool:
            options.append(click.option(f"{flag}/--no-{flag[2:]}", default=None, help=text))
        else:
            number = int if kind is int else float if kind in (float, float | None) else str
            options.append(click.option(flag, type=number, metavar=METAVARS.get(setting.name), help=text))
    text = f"Named settings to start from: {', '.join(RECIPES)}.  [default: {default}]"
    recipe = click.option("--recipe", metavar="NAME", help=text, shell_complete=_complete_recipe)

    def decorate(command: Function) -> Function:
        for option in reversed([recipe, *options]):
            command = option(command)
        return command

    return decorate


def _default_text(name: str, value: Any) -> str:
    """The end of a help text: "  [default: 30]", or nothing if the text describes the default."""
    if value is None:
        return ""
    if isinstance(value, bool):
        value = ("" if value else "no-") + name.replace("_", "-")
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"  [default: {f'{value:g}' if isinstance(value, float) else value}]"


def _complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The recipes that begin like this, for the completion of the shell."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def flag_name(setting: str) -> str:
    """Return the flag of a setting: --batch-size for batch_size, --from for start."""
    if setting == "start":
        return "--from"
    return f"--{setting.replace('_', '-')}"


def given_flags(values: Mapping[str, Any]) -> str:
    """List the flags that were given, for an error message: "--lr, --batch-size", or ""."""
    return ", ".join(flag_name(name) for name, value in values.items() if value is not None)


def choose_recipe(name: str | None, settings: Mapping[str, Any] | None = None, default: str = "post") -> Recipe:
    """Return a recipe with the settings from the command line. Raises HandgradError for an unknown name."""
    name = default if name is None else name
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name].replace(**(settings or {}))


def load_data(
    name: str | None,
    warn: Callable[[str], None],
    shuffle: str | None = None,
    label: str | None = None,
    feature_names: Sequence[str] | None = None,
) -> tuple[Dataset, str, bool]:
    """Load the data set of --data, or synthetic digits if MNIST is not available.

    Returns
    -------
    dataset : Dataset
    name : str
        Name under which a resumed run loads the same data set.
    substituted : bool
        Whether the digits are synthetic although MNIST was wanted. `warn` was called in that case.
    """
    from ..data.mnist import MnistNotFoundError

    name = "mnist" if name is None else name
    shuffle = shuffle or "auto"
    if name != "mnist":
        with warnings_as_lines(warn):
            dataset = load(name, shuffle=shuffle, label=label, feature_names=feature_names)
        return dataset, name if name == "synthetic" else str(Path(name).resolve()), False
    try:
        return load(name, shuffle=shuffle, label=label), name, False
    except MnistNotFoundError as error:
        warn(f"MNIST is not available, using synthetic digits instead: {error}")
        return load("synthetic"), "synthetic", True


def with_path(path: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), with `path` in front of the message of a HandgradError."""
    try:
        return function(*arguments)
    except HandgradError as error:
        raise HandgradError(f"{path}: {error}") from error


def parse_image_shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH."""
    if value is None:
        return None
    try:
        height, width = map(int, value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"'{value}': expected height and width in pixels, as 28x28") from None
    return height, width


def _parse_integers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    try:
        return None if value is None else tuple(int(n) for n in value.split(",") if value)
    except ValueError:
        raise click.BadParameter(f"'{value}': expected integers with commas between them, as 512,512") from None
