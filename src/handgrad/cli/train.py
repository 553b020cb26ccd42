"""handgrad train."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..arrays import Rows, check_int
from ..callbacks import Checkpoint, resume
from ..data import Dataset
from ..data.dataset import has_bright_background
from ..diagnostics.model_card import model_card
from ..distributed.mpi import abort_on_error, wait_for_all, world
from ..errors import HandgradError
from ..io.atomic import encode_json, replace_file
from ..io.models import load
from ..model import Evaluation, Model
from ..recipes import NETWORK_SETTINGS, RECIPES, Recipe, keeps_output
from ..training import Trainer
from .echo import echo, echo_error, warn, warnings_as_lines
from .options import (
    GroupedCommand,
    choose_recipe,
    data_option,
    given_flags,
    json_option,
    label_option,
    load_data,
    model_path,
    recipe_options,
    shuffle_option,
    with_path,
)
from .progress import ProgressReporter, count, format_correct, format_sizes, result_numbers
from .run_directory import (
    GrowingReport,
    HistoryWriter,
    RunConfig,
    RunDirectory,
    Start,
    has_run,
    is_unused,
    read_config,
    read_result,
    read_start,
)
from .signals import exit_code


@click.command(cls=GroupedCommand)
@recipe_options()
@data_option
@label_option
@shuffle_option
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="MODEL|DIR",
    help="Fine-tune: start from the network, the weights and the preprocessing of a model file or a run directory. "
    "The recipe is that of the run, or quick, unless --recipe is given.",
)
@click.option(
    "--freeze",
    type=int,
    metavar="N",
    help="With --from: number of Dense layers, from the first, whose weights do not change.  [default: 0]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory for the results.  [default: runs/RECIPE]")
@click.option(
    "--resume", "resumed", type=click.Path(path_type=Path), metavar="DIR", help="Continue the run in this directory."
)
@click.option(
    "--sync-every",
    type=int,
    metavar="H",
    help="With several processes: average the weights every H steps (local SGD), instead of summing the gradients at "
    "every step.",
)
@click.option("--quiet", is_flag=True, help="Print only the result.")
@json_option
def train(
    recipe: str | None,
    data: str | None,
    label: str | None,
    shuffle: str | None,
    start: Path | None,
    freeze: int | None,
    out: Path | None,
    resumed: Path | None,
    sync_every: int | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a network on images of digits, or on your own data.

    Writes the model, its history, a checkpoint and a report to a directory. An interrupted run can be continued with
    --resume and gives the same model as an uninterrupted one. The default recipe, post, trains a 784-30-10 network
    with sigmoids for 30 epochs of SGD on MNIST; handgrad recipes lists the others. The flags change single settings of
    a recipe, and the defaults below are those of post. Numbers of a table are standardized. At most a sixth of the
    training set is used for validation, unless --validation is given. Several processes train one network if mpiexec
    or srun starts them.

    \b
    Examples:
      handgrad train --recipe quick
      handgrad train --hidden 100 --activation relu --optimizer adam --lr 0.001 --epochs 5 --out runs/first
      handgrad train --data flowers.csv --label species
      handgrad train --from runs/quick --data letters --epochs 10
      mpiexec -n 4 handgrad train --recipe quick
    """  # noqa: D301 (click needs the backspace)
    comm = world()
    if comm is None and sync_every is not None:
        raise HandgradError("--sync-every needs several processes: mpiexec -n 4 handgrad train ..., or leave it out")
    flags: dict[str, Any] = {"recipe": recipe, "data": data, "label": label, "shuffle": shuffle}
    flags |= {"start": start, "freeze": freeze, "out": out}
    with abort_on_error(comm, echo_error):
        _run(flags, resumed, settings, ProgressReporter(quiet=quiet, as_json=as_json), comm, sync_every)


def _run(
    flags: dict[str, Any],
    resumed: Path | None,
    settings: dict[str, Any],
    reporter: ProgressReporter,
    comm: Any,
    sync_every: int | None,
) -> None:
    """Train as the flags say. Of several processes, only the one with rank 0 writes and prints."""
    is_main = comm is None or comm.Get_rank() == 0
    recipe, data, label, shuffle, start, freeze, out = (
        flags[name] for name in ("recipe", "data", "label", "shuffle", "start", "freeze", "out")
    )
    if resumed is None:
        origin = _read_start(start, freeze, settings)
        chosen, directory = _new_run(recipe, out, settings, origin)
    else:
        config = _resumed_run(resumed, {**settings, **flags})
        directory, chosen, data = resumed, config.recipe, config.data
        with RunDirectory(
            directory, chosen, data, new=False, is_main=is_main
        ):  # not while another process trains in it
            result = read_result(directory, chosen)
        if result is not None:
            if is_main:
                done = {**result, "run": str(directory)}
                echo(encode_json(done) if reporter.as_json else _describe_finished(directory, result))
            return
        origin, shuffle, label = read_start(directory, config), config.shuffle, config.label
    if comm is not None:
        chosen = chosen.replace(threads=1)  # each process is one rank
    if not is_main:
        wait_for_all(comm)  # rank 0 reads the data set first, because it may download it
    dataset, data, substituted = load_data(
        data,
        warn if is_main else lambda message: None,
        shuffle,
        label,
        None if origin is None else origin.model.feature_names,
    )
    if is_main:
        wait_for_all(comm)
    order = _order(dataset, comm)
    notes = list(dataset.notes)
    if resumed is None and settings["validation"] is None:
        wanted, chosen = chosen.validation, chosen.for_examples(len(dataset.x_train))
        if chosen.validation < wanted:
            notes.append("the validation set is a sixth of the training set")
    if not dataset.is_images:
        notes.append("the numbers are standardized")
    loaded, dataset = dataset, replace(dataset, notes=tuple(notes))
    if is_main and chosen.deskew and dataset.is_images and has_bright_background(dataset.x_train[:1000]):
        warn("the images have a bright background, but deskewing expects a dark one (0): store 255 - x, or --no-deskew")
    with RunDirectory(
        directory, chosen, data, new=resumed is None, start=origin, is_main=is_main, shuffle=order, label=label
    ) as run:
        try:
            with warnings_as_lines(reporter.warn):
                model, trainers = _train(run, dataset, reporter, {"comm": comm, "sync_every": sync_every})
            reporter.stop()
            if not is_main:
                wait_for_all(comm)  # rank 0 evaluates the model and writes the results
                return
            test = model.evaluate(dataset.x_test, dataset.y_test)
            from ..diagnostics.plots import report  # late: matplotlib takes longer to import than an epoch takes

            sizes = dict.fromkeys(format_sizes(trainer.network) for trainer in trainers)  # of members that differ
            title, history = f"{chosen.name}: {', '.join(sizes)} on {dataset.name}", trainers[-1].history
            test_set, soft_labels = (dataset.x_test, dataset.y_test), chosen.teacher is not None
            report(directory / "report.png", model, history, *test_set, title=title, soft_labels=soft_labels)
            used = chosen.config() | ({} if origin is None else {"from": origin.path, "freeze": origin.freeze})
            card = model_card(model, history, dataset=loaded, settings=used, evaluation=test, title=title)
            replace_file(directory / "model.md", card.encode())
            run.finish(result_numbers(test, trainers), stopped=all(trainer.stop for trainer in trainers))
        except KeyboardInterrupt as interrupt:
            reporter.stop()
            if is_main:
                echo(f"interrupted: {run.interrupted(reporter.saved())}", err=True)
            raise SystemExit(exit_code(interrupt)) from None
        finally:
            reporter.stop()
    reporter.result(test, trainers, directory, data)
    wait_for_all(comm)
    if substituted:
        warn("this network was trained and tested on synthetic digits, not on MNIST")


def _order(dataset: Dataset, comm: Any) -> str | None:
    """The order of files that are read when they are used, for all processes that of rank 0; None for arrays."""
    x = dataset.x_train
    if not isinstance(x, Rows):
        return None
    if comm is not None:
        in_blocks = np.array([x.in_blocks], np.int64)
        comm.Bcast(in_blocks)
        x.in_blocks = bool(in_blocks[0])
    return "blocks" if x.in_blocks else "rows"


def _read_start(path: Path | None, freeze: int | None, settings: dict[str, Any]) -> Start | None:
    """The model of --from. Raises HandgradError for flags that it excludes."""
    if path is None:
        if freeze is not None:
            raise HandgradError(f"--freeze {freeze} needs --from with a model to fine-tune")
        return None
    excluded = given_flags({name: settings[name] for name in NETWORK_SETTINGS})
    if excluded:
        raise HandgradError(f"--from continues with the network and the preprocessing of {path}: leave out {excluded}")
    file = model_path(path)
    return Start(load(file), str(file.resolve()), check_int("--freeze", freeze or 0, 0))


def _base_recipe(start: Start) -> Recipe:
    """The recipe of the run that a model to fine-tune is from, without its teacher, or quick."""
    directory = Path(start.path).parent
    if not has_run(directory):
        return RECIPES["quick"]
    return replace(read_config(directory).recipe, teacher=None, temperature=1.0)


def _new_run(
    recipe: str | None, out: Path | None, settings: dict[str, Any], start: Start | None
) -> tuple[Recipe, Path]:
    """The recipe with the settings of the flags, and a directory without a run."""
    if start is None:
        chosen = choose_recipe(recipe, settings)
    else:
        base = choose_recipe(recipe) if recipe is not None else _base_recipe(start)
        chosen = with_path(Path(start.path), base.starting_from, start.model).replace(**settings)
    if chosen.teacher is not None and chosen.teacher not in RECIPES:  # a file; --resume may run in another directory
        chosen = chosen.replace(teacher=str(model_path(Path(chosen.teacher)).resolve()))
    if out is not None:
        if has_run(out):
            raise HandgradError(f"{out} contains a run: continue it with --resume {out}, or choose another --out")
        return chosen, out
    number, directory = 1, Path("runs") / chosen.name
    while directory.exists() and not is_unused(directory):
        number += 1
        directory = directory.with_name(f"{chosen.name}-{number}")
    return chosen, directory


def _resumed_run(directory: Path, flags: dict[str, Any]) -> RunConfig:
    """The configuration of an existing run. Only the number of epochs can change."""
    epochs = flags.pop("epochs")
    others = given_flags(flags)
    if others:
        raise HandgradError(f"--resume continues with the settings of the run: leave out {others}")
    config = read_config(directory)
    return config._replace(recipe=config.recipe.replace(epochs=epochs))


def _describe_finished(directory: Path, result: dict[str, Any]) -> str:
    """What --resume prints for a finished run, in one line."""
    ended = "early stopping has ended it after " if result["stopped"] else ""
    advice = "" if result["stopped"] else "; to train longer, add --epochs N"
    test = format_correct(Evaluation(math.nan, result["test"]["correct"], result["test"]["total"]))
    return f"{directory} is finished: {ended}{count(result['epochs'], 'epoch')}, test: {test}{advice}"


def _train(
    run: RunDirectory, dataset: Dataset, reporter: ProgressReporter, processes: dict[str, Any]
) -> tuple[Model, list[Trainer]]:
    """Train the recipe of a run, its teacher first, and save the model. Returns it and one trainer for each member.

    `processes` contains the options `comm` and `sync_every` of the trainers.
    """
    recipe, x, y = run.recipe, dataset.x_train, dataset.y_train
    start = run.start
    if start is None:
        recipe.trainer(x.shape[1:], len(dataset.classes))  # raises errors before a teacher is trained
    teacher = _train_teacher(run, dataset, reporter, processes) if recipe.teacher in RECIPES else None
    trainers: list[Trainer] = []

    def on_trainer(trainer: Trainer, member: int) -> None:
        suffix = f"-{member + 1}" if recipe.members > 1 else ""
        checkpoint = Checkpoint(run.path / f"checkpoint{suffix}.safetensors", max_share=0.05)
        note = None if start is None else _describe_start(start, dataset)
        reporter.start(recipe, trainer.network, dataset, checkpoint, member, note)
        trainer.callbacks += [HistoryWriter(run, suffix), reporter, GrowingReport(run, dataset), checkpoint]
        if run.is_main and not run.new and checkpoint.path.exists():
            resume(trainer, checkpoint.path)
            if trainer.epoch > recipe.epochs:
                raise HandgradError(
                    f"--epochs {recipe.epochs}: {checkpoint.path} already has {count(trainer.epoch, 'epoch')}"
                )
        trainers.append(trainer)

    model = recipe.train(
        x,
        y,
        len(dataset.classes),
        teacher=teacher,
        start=None if start is None else start.model,
        freeze=0 if start is None else start.freeze,
        classes=dataset.classes,
        on_trainer=on_trainer,
        **processes,
    )
    model.feature_names = dataset.feature_names
    if run.is_main:
        run.save(model)
    return model, trainers


def _describe_start(start: Start, dataset: Dataset) -> str:
    """What a fine-tuning starts from, in one line."""
    if keeps_output(start.model, len(dataset.classes), dataset.classes):
        last = "the same classes"
    else:
        ours, theirs = len(dataset.classes), len(start.model.classes)
        what = f"{ours} classes instead of {theirs}" if ours != theirs else "other classes"
        last = f"{what}: the last layer is new"
    frozen = f"; {count(start.freeze, 'layer')} frozen" if start.freeze else ""
    return f"start: {start.path}; {last}{frozen}"


def _train_teacher(run: RunDirectory, dataset: Dataset, reporter: ProgressReporter, processes: dict[str, Any]) -> Model:
    """Train the recipe that is the teacher, in a subdirectory; load it if it is already trained."""
    path = run.path / "teacher"
    recipe = RECIPES[str(run.recipe.teacher)].replace(validation=run.recipe.validation, seed=run.recipe.seed)
    new = run.new or not has_run(path)
    with RunDirectory(path, recipe, run.data, new=new, parent=run, is_main=run.is_main, label=run.label) as teacher_run:
        if not run.new and (path / "model.safetensors").exists():
            model: Model = load(path / "model.safetensors")
            return model
        return _train(teacher_run, dataset, reporter, processes)[0]


COMMANDS = (train,)
