"""handgrad import, export and inspect."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import HandgradError
from ..io.atomic import encode_json, is_stream
from ..io.models import load, save
from .echo import echo
from .options import choose_recipe, json_option, model_argument, parse_image_shape, parse_model
from .run_directory import read_config


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="MODEL", help="Model file to write.")
@click.option(
    "--activation",
    help="Activation of the hidden layers of a .safetensors file, or one for each: tanh,relu.",
)
@click.option("--loss", help="Loss: cross_entropy, binary_cross_entropy, squared_error, ...; depends on FILE.")
@click.option("--classes", metavar="NAME,NAME,...", help="Names of the classes.  [default: 0,1,...]")
@click.option(
    "--image-shape",
    metavar="HEIGHTxWIDTH",
    callback=parse_image_shape,
    help="Size of the images, as 28x28, if the inputs are pixels.",
)
def import_command(
    file: Path,
    out: Path,
    activation: str | None,
    loss: str | None,
    classes: str | None,
    image_shape: tuple[int, int] | None,
) -> None:
    """Convert a PyTorch or Keras model to handgrad.

    FILE is a state dict of PyTorch (.safetensors) or a model of Keras (.keras).

    \b
    In PyTorch, save the state dict with
      safetensors.torch.save_file(model.state_dict(), "model.safetensors")
    """  # noqa: D301 (click needs the backspace)
    from ..diagnostics import inspect as inspection  # late: few commands need it
    from ..interop import from_keras, from_torch

    if file.suffix == ".keras":
        if activation is not None:
            raise HandgradError(f"--activation {activation}: {file} contains its activations, leave it out")
        network = from_keras(file, loss=loss, image_shape=image_shape)
    else:
        names = activation.split(",") if activation is not None and "," in activation else activation
        network = from_torch(file, activation=names, loss=loss)
    if classes is not None:
        network.classes = tuple(classes.split(","))
    if image_shape is not None:
        network.image_shape = image_shape
    if out.exists() and file.samefile(out):
        raise HandgradError(f"--out {out} is the input file: choose another name")
    save(network, out)
    if not is_stream(out):
        for line in inspection.format_report(inspection.inspect(out), arrays=False):
            echo(line)


@click.command("export")
@model_argument
@click.option("--to", required=True, metavar="torch|keras|onnx|python|c|js", help="Target.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Output file.  [default: next to MODEL]")
@click.option("--train", is_flag=True, help="Write a script that trains the network of MODEL: torch and keras.")
@click.option(
    "--recipe",
    metavar="NAME",
    help="Recipe for --train.  [default: that of the run directory of MODEL, otherwise post]",
)
@click.option(
    "--without-preprocessing", is_flag=True, help="Leave out the preprocessing and the test-time augmentation."
)
def export_command(
    model: Path, to: str, out: Path | None, train: bool, recipe: str | None, without_preprocessing: bool
) -> None:
    """Export a model to another framework or language.

    MODEL is a model file or a run directory. torch and keras are Python scripts that load the model from their own
    directory. onnx is a graph. python is a file that needs only NumPy, and c and js are files without dependencies.
    Each file describes its inputs and outputs in a comment at the top.
    """
    from ..export import export, get_target  # late: few commands need it

    target = get_target(to)
    if recipe is not None and not train:
        raise HandgradError("--recipe is the training that --train exports: add --train")
    chosen = None
    if train:
        in_run = recipe is None and (model.parent / "config.json").exists()
        config = read_config(model.parent) if in_run else None
        if config is not None and config.origin is not None:
            raise HandgradError(
                f"{model} was fine-tuned, but --train exports a training from random weights: add --recipe"
            )
        chosen = choose_recipe(recipe) if config is None else config.recipe
    if out is None:
        suffix = target.suffix.replace(".", "_train.") if train else target.suffix
        out = model.with_name(model.stem + suffix)
    files = export(load(model), out, to=to, model_file=model, train=chosen, without_preprocessing=without_preprocessing)
    if is_stream(out):  # perhaps stdout, where these lines would be part of the exported file
        return
    for path in files:
        echo(f"{path}: {path.stat().st_size:,} bytes")
    command = f"python {out} [DATA]" if train else target.command(out)
    if command:
        echo(f"try: {command}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path), callback=parse_model)
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Describe the contents of a .safetensors file.

    The file may contain a model, a checkpoint or an estimator of handgrad, or arrays of another program. For a run
    directory, this is the model of the run.
    """
    from ..diagnostics import inspect as inspection  # late: few commands need it

    found = inspection.inspect(file)
    for line in [encode_json(found)] if as_json else inspection.format_report(found):
        echo(line)


COMMANDS = (import_command, export_command, inspect)
