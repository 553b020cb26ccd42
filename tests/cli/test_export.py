"""handgrad export: the files that it writes, the command that it suggests, and the recipe of --train."""

import json

import pytest

import handgrad
from handgrad import save
from handgrad.export import TARGETS
from handgrad.recipes import RECIPES


@pytest.fixture
def model(tmp_path):
    """A model file in a run directory, with the configuration of its training."""
    recipe = RECIPES["post"].replace(hidden=(6,), epochs=7, optimizer="adam", lr=0.004)
    directory = tmp_path / "run"
    directory.mkdir()
    save(recipe.trainer().network, directory / "model.safetensors")
    config = {**recipe.config(), "data": "mnist", "handgrad": handgrad.__version__}
    (directory / "config.json").write_text(json.dumps(config))
    return directory / "model.safetensors"


@pytest.mark.parametrize("to", [name for name in TARGETS if name != "onnx"])
def test_the_file_is_next_to_the_model_and_a_command_is_suggested(model, to, invoke):
    code, output, errors = invoke("export", model, "--to", to)
    assert (code, errors) == (0, "")
    written = model.with_name("model" + TARGETS[to].suffix)
    lines = output.splitlines()
    assert lines[0] == f"{written}: {written.stat().st_size:,} bytes"
    assert lines[1].startswith("try: ")
    assert str(written) in lines[1]
    assert len(list(model.parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "to"),
    [
        *((name, "python") for name, recipe in RECIPES.items() if recipe.deskew),
        *(("best", to) for to in TARGETS if to not in ("python", "onnx")),
    ],
)
def test_recipes_that_deskew_are_exported_to_every_target(name, to, tmp_path, invoke):
    recipe = RECIPES[name].replace(hidden=(3,), members=min(RECIPES[name].members, 2))
    networks = [recipe.trainer().network for _ in range(recipe.members)]
    model = recipe.assemble(networks, (28, 28))
    save(model, tmp_path / "model.safetensors")
    code, _, errors = invoke("export", tmp_path / "model.safetensors", "--to", to)
    assert (code, errors) == (0, "")
    text = tmp_path.joinpath("model" + TARGETS[to].suffix).read_text()
    assert "784 pixels of an image of height 28" in text
    code, _, errors = invoke("export", tmp_path / "model.safetensors", "--to", to, "--without-preprocessing")
    assert (code, errors) == (0, "")
    text = " ".join(tmp_path.joinpath("model" + TARGETS[to].suffix).read_text().split())
    assert f"must be preprocessed by handgrad's {model.preprocessing!r} first" in text.replace("// ", "")


def test_train_uses_the_recipe_of_the_run_unless_another_one_is_given(model, invoke):
    code, output, _ = invoke("export", model, "--to", "torch", "--train")
    assert code == 0
    written = model.with_name("model_torch_train.py")
    assert str(written) in output
    text = written.read_text()
    assert "epochs=7" in text
    assert "torch.optim.Adam(network.parameters(), lr=0.004" in text
    assert invoke("export", model, "--to", "torch", "--train", "--recipe", "post")[0] == 0
    text = written.read_text()
    assert "epochs=30" in text
    assert "torch.optim.SGD(network.parameters(), lr=0.5)" in text
    assert "describes another network" in text
    (model.parent / "config.json").unlink()  # post is the default
    assert invoke("export", model, "--to", "torch", "--train")[0] == 0
    assert written.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "c", "--train"), "--train cannot be used with the target c"),
        (("--to", "torch", "--train", "--recipe", "psot"), "did you mean 'post'"),
        (("--to", "c", "--out", "no/such/place.c"), "cannot write no/such/place.c"),
        (("--to", "c", "--out", "."), "cannot write"),
        ((), "Missing option '--to'"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(model, arguments, message, tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    code, output, errors = invoke("export", model, *arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("handgrad: ")
    assert message in errors
    assert len(list(model.parent.iterdir())) == 2


def test_an_invalid_config_only_matters_for_train(model, invoke):
    (model.parent / "config.json").write_text("{}")
    code, _, errors = invoke("export", model, "--to", "torch", "--train")
    assert code == 2
    assert "was not written by handgrad train" in errors
    assert invoke("export", model, "--to", "torch")[0] == 0
