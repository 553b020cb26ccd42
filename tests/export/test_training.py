"""Training scripts: the settings of a recipe that are translated, those that raise an error, and the network."""

import ast
from dataclasses import fields

import pytest

import handgrad
from handgrad import BatchNorm, Dense, Deskew, Dropout, Ensemble, Network, Preprocessed, ReLU
from handgrad.export import export, training
from handgrad.recipes import RECIPES, Recipe
from handgrad.wrappers import unwrap

POST = RECIPES["post"]


def exported(model, path, recipe, to="torch"):
    export(model, path, to=to, train=recipe)
    return path.read_text()


def trained(recipe):
    """The model of a recipe without training."""
    return recipe.assemble([recipe.trainer().network], (28, 28))


def test_every_setting_of_a_recipe_is_translated_or_rejected():
    sets = training.TRANSLATED, training.REJECTED, training.WITHOUT_EFFECT
    assert sorted(name for names in sets for name in names) == sorted(field.name for field in fields(Recipe))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "muon"}, "optimizer muon"),
        ({"ema_decay": 0.99}, "ema_decay 0.99"),
        ({"rotation": 5.0, "elastic": 1.0}, "elastic 1.0, rotation 5.0"),
        ({"adversarial": 1.0}, "adversarial 1.0"),
        ({"loss": "cross_entropy", "teacher": "best", "temperature": 2.0}, "teacher best, temperature 2.0"),
        ({"members": 3}, "members 3"),
        ({"l2": 1e-4, "clip_norm": 2.0}, "clip_norm 2.0, l2 0.0001"),
        ({"warm_up": 1.5, "early_stopping": 4}, "early_stopping 4, warm_up 1.5"),
    ],
)
def test_settings_that_cannot_be_translated_are_named(settings, message, tmp_path, rejects):
    network = POST.trainer().network
    with rejects(f"cannot translate {message} of the recipe post: .*post, quick, second"):
        export(network, tmp_path / "x.py", to="torch", train=POST.replace(**settings))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["torch", "keras"])
def test_momentum_is_translated(to, tmp_path):
    recipe = POST.replace(optimizer="momentum", momentum=0.8, lr=0.1)
    text = exported(trained(recipe), tmp_path / "x.py", recipe, to)
    assert "momentum=0.8)  # Momentum(lr=0.1, momentum=0.8)" in text


@pytest.mark.parametrize(
    ("model", "image_shape", "message"),
    [
        (Network([4, 3], rng=0), None, "needs a model of images"),
        (Network([784, 10], loss="huber", rng=0), (28, 28), "the model has a regression with Huber"),
        (Network([784, 1], rng=0), (28, 28), "the model has a single output"),
    ],
)
def test_only_classifications_of_images_can_be_trained(model, image_shape, message, tmp_path, rejects):
    model.image_shape = image_shape
    with rejects(message):
        export(model, tmp_path / "x.py", to="torch", train=POST)


def test_an_ensemble_cannot_be_trained(tmp_path, rejects):
    model = Ensemble([POST.trainer().network, POST.trainer().network])
    with rejects("--train needs a single network: the model is an ensemble"):
        export(model, tmp_path / "x.py", to="torch", train=POST)
    assert not list(tmp_path.iterdir())


def test_custom_preprocessing_cannot_be_trained(tmp_path, rejects):
    class Negative(Deskew):
        pass

    network = Network([784, 10], rng=0)
    with rejects(r"custom preprocessing Negative\(height=28, width=28\)"):
        export(Preprocessed(network, Negative(28, 28)), tmp_path / "x.py", to="torch", train=POST)


@pytest.mark.parametrize("to", ["torch", "keras"])
def test_a_training_script_is_valid_python_with_the_lines_of_handgrad_as_comments(to, tmp_path):
    recipe = RECIPES["quick"].replace(hidden=(8,), dropout=0.2, label_smoothing=0.1, weight_decay=0.01)
    text = exported(trained(recipe), tmp_path / "net.py", recipe, to)
    for words in (handgrad.__version__, "recipe quick", "floats in [0, 1]", "network.backward(dz)", "Deskew(height=28"):
        assert words in text
    assert "«" not in text
    assert max(map(len, text.splitlines())) <= 140
    assert "describes another network" not in text
    ast.parse(text)


def test_comments_of_the_training_loop_are_aligned(tmp_path):
    text = exported(POST.trainer().network, tmp_path / "net.py", POST)
    loop = text[text.index("def train(") : text.index("def to_floats(")].splitlines()
    columns = [line.index("# ") for line in loop if "# " in line]
    assert len(set(columns)) == 1
    assert len(columns) >= 10


def test_the_network_of_a_recipe_is_trained_with_its_batch_norm_layers(tmp_path):
    recipe = RECIPES["second"].replace(hidden=(6, 5))
    model = trained(recipe)
    assert not any(isinstance(layer, BatchNorm) for layer in unwrap(model).core.layers)
    text = exported(model, tmp_path / "net.py", recipe)
    assert text.count("nn.BatchNorm1d(") == 2
    assert "describes another network" not in text
    text = exported(model, tmp_path / "net.py", recipe.replace(hidden=(7, 5)))
    assert "describes another network" in text
    assert "nn.Linear(196, 6)" in text


@pytest.mark.parametrize("to", ["torch", "keras"])
def test_the_network_of_a_recipe_has_its_hog(to, tmp_path):
    recipe = RECIPES["second"].replace(hog=3, hog_order=2, hidden=(6,))
    text = exported(trained(recipe), tmp_path / "net.py", recipe, to)
    ast.parse(text)
    assert "class HOG(" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "HOG(14, 14, 7), # HOG(height=14, width=14, cells=7)," in lines
    assert "HOG(7, 7, 3, 8), # HOG(height=7, width=7, cells=3, channels=8)," in lines
    assert "describes another network" not in text
    assert "\n\n\n\n" not in text
    without = recipe.replace(hog=0, hog_order=1)
    assert "describes another network" in exported(trained(recipe), tmp_path / "net.py", without, to)
    assert "HOG" not in exported(trained(without), tmp_path / "net.py", without, to)


def test_custom_networks_keep_their_layers_and_initializers(tmp_path):
    network = Network([Dense(784, 8, "lecun"), ReLU(), Dropout(0.2), Dense(8, 10, "xavier_uniform")], rng=0)
    network.image_shape = (28, 28)
    text = exported(network, tmp_path / "net.py", POST)
    assert 'nn.init.kaiming_normal_(network[0].weight, nonlinearity="linear")' in text
    assert "nn.init.xavier_uniform_(network[3].weight)" in text
    assert "nn.Dropout(0.2)" in text
