"""The drawing on the home page: trains its model when the documentation is built, and writes it as a classic script.

The exported JavaScript is a module. Browsers do not load modules from files, so `classic_script` wraps it in a
function, and the page works without a server.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from handgrad import Model
from handgrad.data import load
from handgrad.export import export
from handgrad.recipes import RECIPES

# The recipe "second" with data augmentation, because people draw in more ways than MNIST contains.
RECIPE = RECIPES["second"].replace(name="home", rotation=10.0, scale=0.15, shift=0.5, elastic=0.8, epochs=5)


def train() -> tuple[Model, float]:
    """Train the model of the home page, and return it with its accuracy on the test set of MNIST."""
    digits = load("mnist")
    model = RECIPE.train(digits.x_train, digits.y_train, 10)
    return model, model.evaluate(digits.x_test, digits.y_test).accuracy


def classic_script(model: Model, accuracy: float) -> str:
    """Return a script that defines `handgradDigits` with `predictProba`, `CLASSES` and `ACCURACY`."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "digits.mjs")
        export(model, path, to="js")
        module = path.read_text()
    module, _, _ = module.partition("// Runs only if Node.js executes this file")
    module = re.sub(r"^export (?=const|function)", "", module, flags=re.MULTILINE)
    return (
        f"// Written by handgrad.export and docs/_ext/home.py.\n(() => {{\n{module}\n"
        f"globalThis.handgradDigits = {{ predictProba, CLASSES, ACCURACY: {accuracy} }};\n}})();\n"
    )


def write_model(app: Any, error: Exception | None) -> None:
    """Write the script next to the page. It is kept in the cache of the executed pages, which has the same lifetime."""
    if error is not None or app.builder.format != "html":
        return
    cached = Path(app.config.nb_execution_cache_path, "draw-model.js")
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_text(classic_script(*train()))
    target = Path(app.outdir, "_static", "draw", "model.js")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(cached.read_text())


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", write_model)
    return {"parallel_read_safe": True}
