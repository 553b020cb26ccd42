"""handgrad sweep: a grid of settings with several seeds, on local processes or on a Dask cluster."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import click

from .. import __version__
from ..arrays import check_int
from ..data import load
from ..distributed.sweep import (
    MEASURES,
    Summary,
    Sweep,
    cluster_client,
    describe,
    format_settings,
    format_value,
    inspect_data,
    local_client,
    plot,
    run,
)
from ..errors import HandgradError, optional
from ..io.atomic import encode_json, read_json, remove_temporary_files, replace_file, write_json
from ..io.locks import DirectoryLock, LockedError
from ..recipes import RECIPES, Recipe
from ..tables import Table
from .echo import echo, echo_error, warn
from .options import (
    METAVARS,
    GroupedCommand,
    choose_recipe,
    data_option,
    flag_name,
    given_flags,
    json_option,
    label_option,
    load_data,
    model_path,
    recipe_options,
    with_path,
)
from .progress import count
from .run_directory import is_unused
from .signals import exit_code

ONE_VALUE = ("validation", "teacher")  # settings that all trainings of a sweep have in common
EXAMPLES = {
    "hidden": "256,512x512",
    "activation": "relu,tanh+relu",
    bool: "on,off",
    int: "64,128",
    float: "0.001,0.003",
}
MAX_ROWS = 40  # settings in the table
JSON, CSV, PLOT = "sweep.json", "sweep.csv", "sweep.png"
HEADER = ("validation accuracy", "±", "loss", "seeds", "seconds")
DEFAULT_RECIPE, SEEDS = "post", 3


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each setting of a recipe, which accepts several values, except for the seed."""
    types = get_type_hints(Recipe)
    for setting in reversed(fields(Recipe)):
        name, text = setting.name, setting.metadata.get("help")
        if text is None or name == "seed":
            continue
        flag = flag_name(name)
        if name in ONE_VALUE:
            kind = int if types[name] is int else str
            option = click.option(flag, type=kind, metavar=METAVARS.get(name), help=text)
        elif types[name] is bool:
            option = click.option(flag, is_flag=False, flag_value="on", metavar="[on,off]", callback=_parse, help=text)
        else:
            metavar = "N,NxN,..." if name == "hidden" else f"{METAVARS.get(name, 'VALUE')},..."
            text = text.replace("one for each: tanh,relu", "one for each: tanh+relu")
            option = click.option(flag, metavar=metavar, callback=_parse, help=text)
        command = option(command)
    return command


def _parse(ctx: click.Context, param: click.Parameter, value: str | None) -> list[Any] | None:
    """Parse the values of a setting, with commas between them."""
    if value is None:
        return None
    name = str(param.name)
    kind = get_type_hints(Recipe)[name]
    kind = float if kind == (float | None) else kind
    try:
        values = [_parse_value(name, kind, text.strip()) for text in value.split(",")]
    except (ValueError, KeyError):
        example = EXAMPLES.get(name) or EXAMPLES[kind]
        raise click.BadParameter(f"'{value}': expected values with commas between them, as {example}") from None
    return list(dict.fromkeys(values))


def _parse_value(name: str, kind: Any, text: str) -> Any:
    if name == "hidden":
        return () if text == "none" else tuple(map(int, text.lower().split("x")))
    if name == "activation":
        return text.replace("+", ",")
    if kind is bool:
        return {"on": True, "off": False}[text.lower()]
    return kind(text) if kind in (int, float) else text


@click.command(cls=GroupedCommand)
@recipe_options("name")
@data_option
@label_option
@click.option("--seeds", type=int, help="Number of seeds for each combination.  [default: 3]")
@sweep_options
@click.option("--workers", type=int, help="Number of local processes.  [default: the cores divided by --threads]")
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of this Dask scheduler, as tcp://10.0.0.1:8786.")
@click.option("--out", type=click.Path(path_type=Path), help="New directory.  [default: sweeps/RECIPE]")
@click.option("--resume", "resumed", metavar="DIR", type=click.Path(path_type=Path), help="Continue this sweep.")
@click.option("--quiet", is_flag=True, help="Print only the result.")
@json_option
def sweep(
    recipe: str | None,
    data: str | None,
    label: str | None,
    seeds: int | None,
    workers: int | None,
    scheduler: str | None,
    out: Path | None,
    resumed: Path | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compare settings: train a grid of them with several seeds.

    The flags of handgrad train accept several values with commas between them, and every combination is trained with
    every seed. Layers of one network have an x between their widths, 512x512, and activations a +. The trainings run
    in local processes or on the workers of a Dask cluster. Settings are compared by their accuracy on validation
    examples, a sixth of the training set unless the recipe or --validation gives another number; the test set is not
    used.

    Writes a table of the trainings to sweep.csv and sweep.json after each one, and a plot to sweep.png. An interrupted
    sweep can be continued with --resume, which also accepts a larger number of --seeds. A worker that dies is replaced,
    and its training starts again.

    \b
    Examples:
      handgrad sweep --recipe quick --lr 0.003,0.01 --hidden 256,512x512 --seeds 5
      handgrad sweep --data flowers.csv --optimizer sgd,adam --lr 0.001,0.01,0.1
      handgrad sweep --recipe minute --rotation 5,10,15 --scheduler tcp://10.0.0.1:8786
    """  # noqa: D301 (click needs the backspace)
    optional("distributed", "dask")
    if workers is not None:
        check_int("--workers", workers, 1)
        if scheduler is not None:
            raise HandgradError("--workers starts processes on this machine: leave it out with --scheduler")
    if resumed is None:
        chosen, directory = _new_sweep(recipe, data, label, seeds, settings), _new_directory(recipe, out)
        rows: list[dict[str, Any]] = []
    else:
        others = given_flags({**settings, "recipe": recipe, "data": data, "label": label, "out": out})
        if others:
            raise HandgradError(f"--resume continues with the settings of the sweep: leave out {others}")
        chosen, rows = _read_sweep(resumed, seeds)
        directory = resumed
    results = _Results(directory, chosen, rows, new=resumed is None, quiet=quiet, as_json=as_json)
    try:
        with results:
            if resumed is not None:
                results.open()
            _train_all(results, workers, scheduler, new=resumed is None, fixed=settings["validation"] is not None)
            results.conclude()
    except KeyboardInterrupt as interrupt:
        echo(f"interrupted: {results.saved()}", err=True)
        raise SystemExit(exit_code(interrupt)) from None
    except HandgradError as error:
        raise HandgradError(f"{error}; {results.saved()}" if results.rows else str(error)) from error
    if results.lost:
        echo_error(f"{count(len(results.lost), 'training')} without a result: {results.lost[0]}; {results.saved()}")
        raise SystemExit(1)


def _train_all(results: _Results, workers: int | None, scheduler: str | None, *, new: bool, fixed: bool) -> None:
    """Run the tasks that have no result; `fixed` if the number of validation examples was given."""
    chosen, remaining = results.sweep, results.remaining()
    if not remaining:
        return
    if scheduler is None:
        if new:
            dataset, name, _ = load_data(chosen.data, warn, label=chosen.label)
            chosen = replace(chosen, data=name)
        else:  # never synthetic digits in place of MNIST: the results would not be comparable
            dataset = load(chosen.data, label=chosen.label)
        described = describe(dataset)
        del dataset
        threads = max(recipe.threads for recipe in chosen.recipes())
        context = local_client(min(workers or max(1, _cores() // threads), len(remaining)))
    else:
        context = cluster_client(scheduler)
    with context as client:
        if scheduler is not None:
            if not client.nthreads():
                echo(f"waiting for a worker at {scheduler}", err=True)
            described = inspect_data(client, chosen)
        if new and not fixed:
            chosen = chosen.for_examples(described["examples"])
        chosen.check(described)
        if described["bright"] and any(recipe.deskew for recipe in chosen.recipes()):
            warn("the images have a bright background, but deskewing expects a dark one (0): store 255 - x")
        results.sweep = chosen
        results.open()
        results.start(described, len(client.nthreads()))
        for task, outcome in run(client, results.remaining()):
            results.add(task, outcome)


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _new_sweep(
    recipe: str | None, data: str | None, label: str | None, seeds: int | None, settings: dict[str, Any]
) -> Sweep:
    """The sweep that the flags describe. A setting with one value is a setting of the recipe."""
    given = {name: value for name, value in settings.items() if value is not None}
    values = {name: value for name, value in given.items() if isinstance(value, list) and len(value) > 1}
    fixed = {name: value[0] if isinstance(value, list) else value for name, value in given.items()}
    chosen = choose_recipe(recipe, fixed)
    if chosen.teacher is not None and chosen.teacher not in RECIPES:
        chosen = chosen.replace(teacher=str(model_path(Path(chosen.teacher)).resolve()))
    name = "mnist" if data is None else data
    if name not in ("mnist", "synthetic"):
        name = str(Path(name).resolve())
    return Sweep(chosen, name, values, SEEDS if seeds is None else seeds, label)


def _new_directory(recipe: str | None, out: Path | None) -> Path:
    """A directory without a sweep."""
    if out is not None:
        if (out / JSON).exists():
            raise HandgradError(f"{out} contains a sweep: continue it with --resume {out}, or choose another --out")
        return out
    base = Path("sweeps") / (recipe or DEFAULT_RECIPE)
    numbered = (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([base], numbered) if not path.exists() or is_unused(path))


def _read_sweep(directory: Path, seeds: int | None) -> tuple[Sweep, list[dict[str, Any]]]:
    """The sweep in a directory, and its finished trainings."""
    file = directory / JSON
    content = read_json(file)
    try:
        recipe = with_path(file, Recipe.from_config, content["recipe"])
        names, old_seeds = list(content["values"]), content["seeds"]
        found = Sweep(recipe, str(content["data"]), content["values"], old_seeds, content.get("label"))
        rows = [row for row in content["results"] if {*names, "seed"} <= set(row)]
        if any("error" not in row and not {"val_accuracy", "val_loss", "seconds"} <= set(row) for row in rows):
            raise KeyError("val_accuracy")
    except (KeyError, TypeError, AttributeError) as error:
        raise HandgradError(f"{file} was not written by handgrad sweep: expected a recipe and results") from error
    if seeds is not None:
        if seeds < old_seeds:
            raise HandgradError(f"--seeds {seeds}: the sweep in {directory} has {old_seeds} already")
        found = replace(found, seeds=seeds)
    return found, rows


class _Results:
    """The table of a sweep, in a directory that this process has locked, and on the terminal.

    Attributes
    ----------
    rows : list of dict
        The finished trainings, in the order in which they finished.
    lost : list of str
        Why other trainings have no result.
    """

    def __init__(
        self, directory: Path, sweep: Sweep, rows: list[dict[str, Any]], *, new: bool, quiet: bool, as_json: bool
    ) -> None:
        self.directory, self.sweep, self.rows, self.lost, self.new = directory, sweep, rows, list[str](), new
        self.text, self.json_rows, self.as_json = not (quiet or as_json), as_json and not quiet, as_json
        self._lock: DirectoryLock | None = None

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def open(self) -> None:
        """Create the directory, and lock it."""
        if self._lock is not None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = DirectoryLock(self.directory)
        except LockedError as error:
            raise HandgradError(f"{error}: wait until it ends, or choose another directory") from error
        except OSError as error:
            raise HandgradError(f"cannot write to {self.directory}: {error.strerror}") from error
        if self.new and (self.directory / JSON).exists():
            raise HandgradError(f"another process has started a sweep in {self.directory}: choose another directory")
        remove_temporary_files(self.directory)

    def remaining(self) -> list[dict[str, Any]]:
        """Return the tasks without a result."""
        done = {_key(row) for row in self.rows}
        return [task for task in self.sweep.tasks() if _key(self.sweep.row(task, {})) not in done]

    def start(self, described: dict[str, Any], workers: int) -> None:
        """Write the first files, and print what will be trained."""
        self.write()
        if not self.text:
            return
        recipe, total = self.sweep.recipe, len(self.sweep.tasks())
        settings = count(len(self.sweep.settings()), "setting")
        echo(f"recipe {recipe.name}: {settings}, {count(self.sweep.seeds, 'seed')}, {count(total, 'training')}")
        training = described["examples"] - recipe.validation
        echo(f"{described['name']}: {training:,} training examples, {recipe.validation:,} validation")
        where = f"{count(len(self.rows), 'training')} finished before, " if self.rows else ""
        echo(f"{where}{count(workers, 'worker')}, results in {self.directory}")

    def add(self, task: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Add a finished training to the files and print it."""
        if "lost" in outcome:
            self.lost.append(outcome["lost"])
            if self.text:
                echo(f"{self._name(self.sweep.row(task, {}))}: no result: {outcome['lost']}")
            return
        row = self.sweep.row(task, outcome)
        self.rows.append(row)
        self.write()
        if self.json_rows:
            echo(encode_json(row))
        if self.text:
            total = str(len(self.sweep.tasks()))
            result = f"failed: {row['error']}" if "error" in row else (
                f"validation accuracy {row['val_accuracy']:.2%}, loss {row['val_loss']:.4f}, {row['seconds']:.1f} s"
            )  # fmt: skip
            echo(f"{len(self.rows):{len(total)}}/{total}  {self._name(row)}: {result}")

    def _name(self, row: dict[str, Any]) -> str:
        return format_settings({name: row[name] for name in (*self.sweep.values, "seed")})

    def write(self) -> None:
        """Write sweep.json and sweep.csv."""
        sweep = self.sweep
        content = {
            "recipe": sweep.recipe.config(),
            "data": sweep.data,
            "label": sweep.label,
            "values": sweep.values,
            "seeds": sweep.seeds,
            "handgrad": __version__,
            "results": self.rows,
        }
        write_json(self.directory / JSON, content)
        table = io.StringIO()
        writer = csv.DictWriter(table, [*sweep.values, "seed", *MEASURES, "error"], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow(row | {name: format_value(row[name]) for name in sweep.values})
        replace_file(self.directory / CSV, table.getvalue().encode())

    def saved(self) -> str:
        """Describe what the directory contains and how to continue."""
        if not self.rows:
            return "no training has finished"
        total = len(self.sweep.tasks())
        return (
            f"{len(self.rows)} of {count(total, 'training')} finished; to continue, run handgrad sweep --resume "
            f"{self.directory}"
        )

    def conclude(self) -> None:
        """Write the plot, and print the table and the best setting."""
        found = self.sweep.summaries(self.rows)
        if not found or not found[0].seeds:
            raise HandgradError(f"every training failed: {self.rows[0]['error'] if self.rows else self.lost[0]}")
        plot(self.sweep, self.rows, self.directory / PLOT)
        best, command = found[0], self.sweep.command(found[0].settings)
        if self.as_json:
            numbers = {"val_accuracy": best.mean, "std": best.std, "seeds": best.seeds, "val_loss": best.loss}
            echo(encode_json({"best": best.settings, **numbers, "command": command, "sweep": str(self.directory)}))
            return
        names = list(self.sweep.values)
        header = [*(name.replace("_", " ") for name in names or ["recipe"]), *HEADER]
        cells = [
            [*([format_value(s.settings[name]) for name in names] or [self.sweep.recipe.name]), *_numbers(s)]
            for s in found[:MAX_ROWS]
        ]
        hidden = f"the best {MAX_ROWS} of {len(found):,} settings" if len(found) > MAX_ROWS else ""
        echo(*str(Table(header, cells, hidden)).splitlines())
        what = format_settings(best.settings) or self.sweep.recipe.name
        spread = f" ± {100 * best.std:.2f}" if best.seeds > 1 else ""
        echo(f"best: {what}: validation accuracy {best.mean:.2%}{spread}, {count(best.seeds, 'seed')}")
        close = self.sweep.indistinguishable(found)
        if close:
            echo(f"not clearly worse with these seeds: {count(close, 'other setting')}")
        echo(f"results in {self.directory}: {CSV}, {JSON}, {PLOT}")
        echo(f"train it: {command}")


def _numbers(summary: Summary) -> list[str]:
    """The cells of the numbers of a setting."""
    if not summary.seeds:
        return ["failed", "", "", f"0 of {summary.failed}", ""]
    seeds = f"{summary.seeds} of {summary.seeds + summary.failed}" if summary.failed else str(summary.seeds)
    std = f"{100 * summary.std:.2f}" if summary.seeds > 1 else ""
    return [f"{summary.mean:.2%}", std, f"{summary.loss:.4f}", seeds, f"{summary.seconds:.1f}"]


def _key(row: dict[str, Any]) -> str:
    """The settings and the seed of a row as text."""
    return encode_json({name: value for name, value in row.items() if name not in (*MEASURES, "error")})


COMMANDS = (sweep,)
