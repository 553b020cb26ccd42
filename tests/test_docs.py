"""The figures in the documents are those that the commands wrote."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import neural_network as theirs
from sklearn.datasets import load_digits, make_classification, make_regression

import handgrad
from handgrad import Adam, Dense, Network, Tanh, Trainer, cli, one_hot, schedules
from handgrad import sklearn as ours
from handgrad.export import TARGETS, export
from handgrad.losses import REGRESSION
from handgrad.sklearn import MLPClassifier, MLPRegressor
from handgrad.sklearn.trainer import SklearnAdam

ROOT = Path(__file__).parents[1]
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
RECORDS = (ROOT / "docs" / "records.md").read_text()
README = (ROOT / "README.md").read_text()
COMING = (ROOT / "docs" / "coming-from.md").read_text()


def tables(text: str) -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)


def made(*names: str) -> list[str]:
    """The tables that commands wrote into files."""
    return [table for name in names for table in tables((ROOT / name).read_text())]


def test_every_table_is_as_it_was_measured() -> None:
    """Whole: the files' tables and no other, but for those of each race, of which the first of steps.md is the sum."""
    summary, *races = made("benchmarks/results/steps.md")
    assert len(races) == 10
    others = [f"benchmarks/results/{name}.md" for name in ("ladder", "roads", "estimators", "resources")]
    assert tables(PERFORMANCE) == [summary, *made(*others)]


def test_who_is_ahead_with_adam_is_as_the_readme_says() -> None:
    assert "With Adam" in README
    races = json.loads((ROOT / "benchmarks/results/steps.json").read_text())["races"]
    for race in races:
        if race["optimizer"] == "adam":
            peers = {name: np.array(peer["step_seconds"]) for name, peer in race["peers"].items()}
            scan, torch = (np.median(peers[name] / peers["handgrad"]) for name in ("jax-scan", "torch"))
            assert scan < 1, race["case"]
            assert (torch < 1) == (race["sizes"][1] >= 512), race["case"]


def test_every_record_is_as_it_was_made() -> None:
    """The tables of docs/records.md are, whole, the commands' own, but that of what others published."""
    before, _, after = RECORDS.partition("## Beside what is published")
    told = tables(before + after[after.index("\n## ") :])
    others = ["benchmarks/results/pictures.md", "records/digits8.md"]
    assert told == made("records/table.md", "records/choices.md", *others)


def test_each_recipe_that_has_a_record_stands_beside_what_is_published() -> None:
    (published,) = tables(RECORDS.partition("## Beside what is published")[2].partition("\n## ")[0])
    names = re.findall(r"^\| `(\w+)` \|", published, re.MULTILINE)
    assert len(names) == len(set(names)) == len(published.splitlines()) - 2
    (records,) = made("records/table.md")
    assert set(names) == set(re.findall(r"^\| `(\w+)`", records, re.MULTILINE))


FENCED = re.compile(r"^(`{3,}).*?^\1$", re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Where a link into a document may lead: its headings as GitHub makes addresses of them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "]", heading)  # of a link its text
        slug = re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")
        found.add(next(s for s in (slug, *(f"{slug}-{i}" for i in range(1, 99))) if s not in found))
    return found


def astray(path: Path, text: str) -> list[str]:
    """The links of a document that lead to no file, or to no heading of one. What is on the net is not asked for."""
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
        file, _, anchor = link.partition("#")
        if re.match(r"https?://", link):
            continue
        target = path.parent / file
        pointed = text if not file else target.read_text() if anchor and target.exists() else ""
        if (file and not target.exists()) or (anchor and anchor not in anchors(pointed)):
            lost.append(link)
    return lost


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    assert astray(path, path.read_text()) == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    text = "# Here, `once`\n\n## Twice\n\n## Twice\n\n```python\n# Code\n```\n"
    assert anchors(text) == {"here-once", "twice", "twice-1"}
    good = "[a](#here-once) [b](#twice-1) [c](README.md) [d](docs/performance.md#side-by-side) [e](https://example.org)"
    assert astray(ROOT / "page.md", text + good) == []
    bad = ["#code", "#twice-2", "nowhere.md", "README.md#nowhere", "nowhere.md#records"]
    assert astray(ROOT / "page.md", text + " ".join(f"[x]({link})" for link in bad)) == bad


@pytest.mark.parametrize("name", re.findall(r"`(?:\w+/)*(\w+\.py)`", PERFORMANCE))
def test_every_file_that_is_named_is_there(name: str) -> None:
    assert list(ROOT.glob(f"src/**/{name}")) + list(ROOT.glob(f"benchmarks/{name}"))


def test_the_program_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PERFORMANCE, flags=re.DOTALL)
    exec(compile(program, "docs/performance.md", "exec"), {})


# ---- Coming from elsewhere ------------------------------------------------------------------------------------------

unconverged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def rows_of(heading: str) -> list[list[str]]:
    """The cells of each row of the first table under a heading, without its head."""
    section = re.split(r"^#+ ", COMING.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    table = re.search(r"(^\|.*\n)+", section, re.MULTILINE)
    assert table, heading
    lines = table.group().splitlines()
    assert len({line.count("|") for line in lines}) == 1, heading
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def as_promised(line: str, promise: str, near: float) -> bool:
    """Word for word; a number may be off by `near`, or by so large a share."""
    words, others = line.split(), promise.split()
    if len(words) != len(others):
        return False
    for word, other in zip(words, others, strict=True):
        if word != other and (not near or abs(float(word) - float(other)) > near * max(1, float(other))):
            return False
    return True


@unconverged
def test_every_block_for_those_who_come_runs_and_prints_what_it_says() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", COMING, re.DOTALL)
    assert len(blocks) >= 12
    for block, text in blocks:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block, "docs/coming-from.md", "exec"), names)
        promises = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE) + text.splitlines()
        printed = said.getvalue().splitlines()
        assert len(printed) == len(promises), (block, printed)
        for line, promise in zip(printed, promises, strict=True):
            near = 0.15 if text else 0.02 if promise.startswith("about ") else 0
            assert as_promised(line, promise.removeprefix("about "), near), (line, promise)


def test_a_line_that_was_not_promised_is_noticed() -> None:
    assert as_promised("0.9355 0.94", "0.936 0.936", 0.02)
    assert as_promised("Epoch 0: 150 / 500", "Epoch 0: 152 / 500", 0.15)
    assert not as_promised("0.9", "0.936", 0.02)
    assert not as_promised("0.936", "0.936 0.936", 0.02)
    assert not as_promised("False", "True", 0)


def test_links_to_elsewhere_are_of_few_kinds() -> None:
    links = re.findall(r"\]\((http[^)]+)\)", COMING)
    assert len(links) > 5
    for link in links:
        assert re.match(
            r"https://github\.com/scikit-learn/scikit-learn/(issues|pull)/\d+$|https?://[\w-]+\.(org|com)", link
        )


def test_every_name_of_the_page_exists() -> None:
    told = set(re.findall(r"`((?:handgrad|schedules|Network)\.[\w.]+)", COMING))
    assert len(told) > 12
    for name in told:
        first, *rest = name.split(".")
        found: Any = {"schedules": schedules, "Network": Network, "handgrad": handgrad}[first]
        for part in rest:
            if not hasattr(found, part):
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)


def test_every_command_of_the_page_exists() -> None:
    told = set(re.findall(r"`handgrad ([a-z-]+)", COMING))
    assert {"export", "import", "inspect", "parity"} <= told
    assert told <= set(cli.handgrad.commands)
    (languages,) = re.findall(r"in another language: (.*?)\. A", COMING.replace("\n", " "))
    assert set(code(languages)) == set(TARGETS)


def test_an_estimators_file_goes_on_into_another_language(tmp_path: Path) -> None:
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier((20,), early_stopping=True, random_state=0).fit(X / 16, y)
    ours.save(model, tmp_path / "model.safetensors")
    network = handgrad.load(tmp_path / "model.safetensors")
    assert np.array_equal(network.predict_proba(X / 16), model.predict_proba(X / 16))
    export(network, tmp_path / "digits.py", to="python")
    names: dict[str, Any] = {"__name__": "digits"}
    exec(compile((tmp_path / "digits.py").read_text(), "digits.py", "exec"), names)
    np.testing.assert_allclose(names["probabilities"](X / 16), model.predict_proba(X / 16), atol=1e-5)


def test_what_scikit_learn_has_learnt_comes_in() -> None:
    X, y = load_digits(return_X_y=True)
    model = theirs.MLPClassifier((20,), early_stopping=True, random_state=0).fit(X / 16, y)
    network = interop.from_sklearn(model)
    np.testing.assert_allclose(network.predict_proba(X / 16), model.predict_proba(X / 16), atol=1e-12)


def parameters_of(kind: Any) -> dict[str, Any]:
    return {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items() if n != "self"}


def test_every_parameter_of_scikit_learns_is_in_the_table_with_its_default() -> None:
    told = {code(name)[0]: code(default)[0] for name, default, _ in rows_of("Every parameter")}
    have = parameters_of(theirs.MLPRegressor) | parameters_of(theirs.MLPClassifier)
    assert told == {name: repr(default).replace("'", '"') for name, default in have.items()}


def test_every_keyword_that_is_new_is_told_of() -> None:
    told = {code(name)[0] for name, *_ in rows_of("What it has more")}
    for kind in ("MLPClassifier", "MLPRegressor"):
        new = parameters_of(getattr(ours, kind)).keys() - parameters_of(getattr(theirs, kind)).keys()
        assert {f"{name}=" for name in new} <= told | {"loss="}
    (losses,) = [does for name, does, _ in rows_of("What it has more") if "regressor" in name]
    assert {f'"{name}"' for name in REGRESSION} - {'"squared_error"', '"poisson"'} <= set(code(losses))


@unconverged
def test_every_attribute_of_scikit_learns_is_in_the_table() -> None:
    told = {name for names, _ in rows_of("Every attribute") for name in code(names)}
    X, y = make_classification(60, random_state=0)
    for model in (theirs.MLPClassifier(max_iter=1), theirs.MLPRegressor(max_iter=1)):
        fitted = {name for name in vars(model.fit(X, y)) if name.endswith("_") and not name.startswith("_")}
        assert fitted <= told


@unconverged
def test_what_differs_from_scikit_learn_does_so() -> None:
    X, y = make_classification(100, random_state=0)
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "random_state": 0, "batch_size": 20}

    order = np.random.RandomState(0).permutation(100)  # theirs, of every partial_fit but the first
    model = theirs.MLPClassifier(**settings).partial_fit(X, y, classes=[0, 1])
    other = theirs.MLPClassifier(**settings).partial_fit(X, y, classes=[0, 1]).set_params(shuffle=False)
    for _ in range(2):
        model.partial_fit(X, y)
        other.partial_fit(X[order], y[order])
    np.testing.assert_allclose(model.coefs_[0], other.coefs_[0], rtol=1e-12)

    warm = MLPClassifier(**settings, schedule="cosine", max_iter=3, warm_start=True).fit(X, y).fit(X, y)
    assert warm.history_["lr"][3] == warm.history_["lr"][0] > warm.history_["lr"][2]
    with pytest.raises(ValueError, match="layers"):
        warm.set_params(activation="tanh").fit(X, y)

    with pytest.raises(ValueError, match="lbfgs has no epochs"):
        MLPClassifier(solver="lbfgs", schedule="cosine", max_iter=3).fit(X, y)
    assert not hasattr(MLPClassifier(solver="lbfgs", early_stopping=True, max_iter=3).fit(X, y), "history_")

    numbers = make_regression(50, n_targets=3, random_state=0)
    model = MLPRegressor(max_iter=2, alpha=0).fit(*numbers)
    assert model.history_["loss"][-1] == pytest.approx(3 * model.loss_)

    for dtype, least in ((np.float64, 1e-16), (np.float32, 6e-8)):
        p = []
        for kind in (theirs.MLPClassifier, MLPClassifier):
            model = kind((), max_iter=1, random_state=0).fit(X.astype(dtype), y)
            model.coefs_[0][...], model.intercepts_[0][...] = 0, [np.log(least / 1000)]
            p.append(model.predict_proba(X.astype(dtype))[0, 1])
        assert p[0] > 0 == p[1]


@unconverged
def test_bytes_are_numbers_to_an_estimator() -> None:
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier((20,), max_iter=20, random_state=0).fit(X.astype(np.uint8), y)
    assert model.score(X.astype(np.uint8), y) == model.score(X, y)


@unconverged
def test_a_float32_loss_of_scikit_learns_ends_at_16() -> None:
    model = theirs.MLPClassifier((), max_iter=1, learning_rate_init=1e-9).fit(np.float32([[1], [-1]]), [1, 0])
    model.coefs_[0][...] = 1
    model.partial_fit(np.float32([[900], [-900]]), [0, 1])
    assert round(model.loss_) == 16


def test_n_iter_no_change_is_a_patience_of_one_less() -> None:
    X, y = load_digits(return_X_y=True)
    settings: dict[str, Any] = {"hidden_layer_sizes": (10,), "learning_rate_init": 1e-9, "tol": 1.0, "alpha": 0}
    model = MLPClassifier(**settings, n_iter_no_change=3, random_state=0).fit(X, y)
    stopping = handgrad.EarlyStopping("loss", patience=4, min_delta=1.0, restore_best=False)
    trainer = Trainer(Network([64, 10, 10], rng=0), handgrad.SGD(1e-9), callbacks=[stopping], rng=0)
    assert len(trainer.fit(X / 16, y, epochs=20)["loss"]) == model.n_iter_


def test_scikit_learns_epsilon_is_larger_by_what_the_page_says() -> None:
    networks = [Network([3, 2], loss="quadratic", rng=0, dtype=np.float64) for _ in range(2)]
    plain = SklearnAdam(0.1, 0.9, 0.999, 1e-3)
    scaled = Adam(0.1)
    for step in range(1, 6):
        scaled.epsilon = 1e-3 / math.sqrt(1 - 0.999**step)
        for network, optimizer in zip(networks, (plain, scaled), strict=True):
            optimizer.train_step(network, np.eye(3), np.eye(3)[:, :2], 0.1)
        np.testing.assert_allclose(networks[0].parameters, networks[1].parameters, rtol=1e-12)
    assert round(1 / math.sqrt(1 - 0.999)) == 32


def test_the_books_cost_is_the_loss_and_its_penalty() -> None:
    """As the page writes total_cost, against its sums over one example after another."""
    (cell,) = [here for book, here, _ in rows_of("Nielsen's book") if "total_cost" in book]
    rng = np.random.default_rng(0)
    x, y, lmbda = rng.random((20, 6)), rng.integers(0, 4, 20), 3.0
    for loss in ("binary_cross_entropy", "quadratic"):
        network = Network([6, 5, 4], loss=loss, rng=0, dtype=np.float64)
        a, t = network.predict_proba(x), one_hot(y, 4, np.float64)
        cost = -(t * np.log(a) + (1 - t) * np.log(1 - a)) if loss == "binary_cross_entropy" else (a - t) ** 2 / 2
        norms = sum(np.linalg.norm(layer.W) ** 2 for layer in network.layers if isinstance(layer, Dense))
        told = eval(code(cell)[0], {"network": network, "x": x, "y": y, "lmbda": lmbda})
        assert told == pytest.approx(cost.sum() / 20 + lmbda / 2 / 20 * norms)


# ---- ... held against PyTorch and Keras ------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="make test-peers installs it")


@pytest.fixture
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="make test-peers installs it")


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((9, 6), np.float32), rng.integers(0, 4, 9)


def small() -> Network:
    return Network([Dense(6, 5, "lecun"), Tanh(), Dense(5, 4, "lecun")], loss="cross_entropy", rng=0)


def in_keras(keras: Any, network: Network, **options: Any) -> Any:
    dense = keras.layers.Dense
    model = keras.Sequential([keras.layers.Input((6,)), dense(5, activation="tanh", **options), dense(4, **options)])
    model.set_weights([p.T.copy() for p in network.named_parameters.values()])
    return model


def vector(model: Any) -> np.ndarray:
    return np.concatenate([p.T.ravel() for p in model.get_weights()])


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_loss_is_so_many_of_theirs(torch: Any, keras: Any) -> None:
    rng = np.random.default_rng(0)
    n_out = 4
    z, t = rng.standard_normal((12, n_out)), rng.random((12, n_out))
    t /= t.sum(axis=1, keepdims=True)
    rows = rows_of("Losses")
    assert len(rows) == 10
    for row in rows:
        (here,), factor = code(row[2]), eval(code(row[3])[0], {"n_out": n_out})
        loss = eval(here, vars(handgrad))
        value = loss.value(z, loss.targets(t, 12, n_out, np.float64))
        constant = (t * np.log(t) - t).sum() / 12 if here == "Poisson()" else 0
        for cell, library in ((row[0], torch.nn), (row[1], keras.losses)):
            if cell:
                kind = eval(code(cell)[0], vars(library))
                if library is torch.nn:
                    other = kind(torch.from_numpy(z), torch.from_numpy(t)).item()
                else:
                    other = float(kind(t, np.exp(z) if here == "Poisson()" else z))
                assert value == pytest.approx(factor * other + constant, rel=1e-5), row


TORCH = [
    (lambda: handgrad.SGD(0.5, l2=0.05), lambda optim, p: optim.SGD(p(0.05), lr=0.5)),
    (lambda: handgrad.Momentum(0.1, 0.9), lambda optim, p: optim.SGD(p(0.0), lr=0.1, momentum=0.9)),
    (lambda: handgrad.Nesterov(0.1, 0.9), lambda optim, p: optim.SGD(p(0.0), lr=0.1, momentum=0.9, nesterov=True)),
    (lambda: Adam(0.01), lambda optim, p: optim.Adam(p(0.0), lr=0.01)),
    (lambda: handgrad.AdamW(0.01), lambda optim, p: optim.AdamW(p(0.01), lr=0.01)),
    (lambda: handgrad.SGD(0.5, clip_norm=0.1), lambda optim, p: optim.SGD(p(0.0), lr=0.5)),
]


@pytest.mark.peers
@pytest.mark.parametrize("number", range(len(TORCH)))
def test_the_optimizers_steps_and_memories_are_pytorchs(number: int, torch: Any) -> None:
    network, nn = small(), torch.nn
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    nn.utils.vector_to_parameters(torch.from_numpy(network.parameters.copy()), model.parameters())

    def groups(decay: float) -> list[dict[str, Any]]:
        parameters = list(model.parameters())
        return [
            {"params": parameters[0::2], "weight_decay": decay},
            {"params": parameters[1::2], "weight_decay": 0.0},
        ]

    optimizer, other = TORCH[number][0](), TORCH[number][1](torch.optim, groups)
    for seed in range(30):
        x, y = batch(seed)
        network.backprop(x, one_hot(y, 4))
        optimizer.step(network)
        other.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        if optimizer.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        other.step()
    reached = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(network.parameters, reached, atol=2e-6)
    states = [other.state[p] for p in model.parameters()]
    scales = {"momentum_buffer": (0, 1.0), "exp_avg": (0, 0.1), "exp_avg_sq": (1, 0.001)}
    for name in set(states[0]) & set(scales):
        if states[0][name] is not None:
            memory, scale = scales[name]
            kept = np.concatenate([state[name].numpy().ravel() for state in states])
            np.testing.assert_allclose(kept, scale * optimizer.memory[memory], atol=1e-6)


@pytest.mark.peers
def test_the_rate_and_the_penalty_change_by_the_losss_factor(torch: Any) -> None:
    network, nn = Network([6, 4], loss="squared_error", init="lecun", rng=0), torch.nn
    model = nn.Linear(6, 4)
    nn.utils.vector_to_parameters(torch.from_numpy(network.parameters.copy()), model.parameters())
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    other, c = torch.optim.SGD(groups, lr=0.2), 4 / 2
    optimizer = handgrad.SGD(0.2 / c, l2=c * 0.1)
    for seed in range(20):
        x, y = batch(seed)
        optimizer.train_step(network, x, one_hot(y, 4), optimizer.lr)
        other.zero_grad()
        nn.functional.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(one_hot(y, 4))).backward()
        other.step()
    reached = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(network.parameters, reached, atol=1e-6)


def _plain(optimizer: SklearnAdam, **options: float) -> SklearnAdam:
    vars(optimizer).update(options)
    return optimizer


def _adamw(keras: Any) -> Any:
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


KERAS: list[tuple[Any, Any, Any]] = [
    (handgrad.SGD(0.5), lambda k: k.optimizers.SGD(0.5), None),
    (handgrad.Momentum(0.1), lambda k: k.optimizers.SGD(0.1, momentum=0.9), None),
    (handgrad.Nesterov(0.1), lambda k: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True), None),
    (SklearnAdam(0.01, 0.9, 0.999, 0.1), lambda k: k.optimizers.Adam(0.01, epsilon=0.1), None),
    (_plain(SklearnAdam(0.01, 0.9, 0.999, 1e-7), weight_decay=0.1), _adamw, None),
    (handgrad.SGD(0.5, clip_norm=0.1), lambda k: k.optimizers.SGD(0.5, global_clipnorm=0.1), None),
    (
        handgrad.SGD(0.5, l2=0.05),
        lambda k: k.optimizers.SGD(0.5),
        lambda k: {"kernel_regularizer": k.regularizers.L2(0.025)},
    ),
    (
        handgrad.SGD(0.5, l1=0.01),
        lambda k: k.optimizers.SGD(0.5),
        lambda k: {"kernel_regularizer": k.regularizers.L1(0.01)},
    ),
    (
        handgrad.SGD(0.5, max_norm=0.8),
        lambda k: k.optimizers.SGD(0.5),
        lambda k: {"kernel_constraint": k.constraints.MaxNorm(0.8, axis=0)},
    ),
]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(KERAS)))
def test_the_optimizers_steps_are_keras(number: int, keras: Any) -> None:
    optimizer, make, options = KERAS[number]
    network = small()
    model = in_keras(keras, network, **(options(keras) if options else {}))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=make(keras), loss=loss)
    for seed in range(30):
        x, y = batch(seed)
        optimizer.train_step(network, x, one_hot(y, 4), optimizer.lr)
        model.train_on_batch(x, y)
    np.testing.assert_allclose(network.parameters, vector(model), atol=5e-6)


@pytest.mark.peers
def test_keras_defaults_are_those_that_the_page_tells(keras: Any) -> None:
    assert (keras.optimizers.AdamW().weight_decay, keras.optimizers.Adam().epsilon) == (0.004, 1e-7)
    norm = keras.layers.BatchNormalization()
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    assert keras.layers.LeakyReLU().negative_slope == pytest.approx(0.3)
    assert inspect.signature(keras.activations.leaky_relu).parameters["negative_slope"].default == 0.2
    told = [code(cell)[0] for cell, _ in rows_of("Early stopping")]
    have = inspect.signature(keras.callbacks.EarlyStopping.__init__).parameters
    for name, default in (cell.split("=") for cell in told if "=" in cell):
        assert repr(have[name].default).replace("'", '"') == default
    assert {"baseline", "start_from_epoch"} <= set(have)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("patience", "in_keras_terms", "min_delta"), [(1, 0, 0), (1, 1, 0), (3, 3, 0), (3, 3, 0.003)])
def test_early_stopping_is_keras(patience: int, in_keras_terms: int, min_delta: float, keras: Any) -> None:
    x, y = np.concatenate([batch(s)[0] for s in range(6)]), np.concatenate([batch(s)[1] for s in range(6)])
    held_out = x[-20:] + 0.1, (y[-20:] + 1) % 4
    network = small()
    model = in_keras(keras, network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss, metrics=["accuracy"])
    callback = keras.callbacks.EarlyStopping(patience=in_keras_terms, min_delta=min_delta, restore_best_weights=True)
    options = {"batch_size": 54, "shuffle": False, "verbose": 0, "validation_data": held_out}
    other = model.fit(x, y, epochs=40, callbacks=[callback], **options).history
    stopping = handgrad.EarlyStopping(patience=patience, min_delta=min_delta)
    trainer = Trainer(network, handgrad.SGD(0.5), batch_size=54, callbacks=[stopping], rng=0)
    history = trainer.fit(x, y, epochs=40, validation=held_out)
    assert len(history["loss"]) == len(other["loss"]) < 40
    assert set(other) <= set(history)
    np.testing.assert_allclose(network.parameters, vector(model), atol=1e-6)
    assert len(model.fit(x, y, epochs=2, **options).history["loss"]) == 2  # two more there; here those in all


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_weights_of_examples_are_keras_where_their_mean_is_1(keras: Any) -> None:
    (x, y), w = batch(0), np.random.default_rng(0).random(9)
    networks = [small(), small()]
    model = in_keras(keras, networks[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss)
    for network, scale in zip(networks, (1, 7), strict=True):
        Trainer(network, handgrad.SGD(0.5), batch_size=9, rng=0).fit(x, y, epochs=10, sample_weight=scale * w)
    for _ in range(10):
        model.train_on_batch(x, y, sample_weight=np.float32(w / w.mean()))
    for network in networks:
        np.testing.assert_allclose(network.parameters, vector(model), atol=1e-6)


@pytest.mark.peers
def test_weights_of_classes_are_over_their_sum_as_in_pytorch(torch: Any) -> None:
    z, (_, y), weights = torch.randn(9, 4, dtype=torch.float64), batch(0), torch.tensor([1.0, 5.0, 2.0, 0.5]).double()
    each = torch.nn.functional.cross_entropy(z, torch.from_numpy(y), reduction="none")
    told = torch.nn.CrossEntropyLoss(weight=weights)(z, torch.from_numpy(y))
    assert told.item() == pytest.approx((each * weights[y]).sum().item() / weights[y].sum().item())


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_penalty_is_in_keras_loss_and_not_in_ours(keras: Any) -> None:
    network, (x, y) = small(), batch(0)
    model = in_keras(keras, network, kernel_regularizer=keras.regularizers.L2(0.5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)
    told = model.fit(x, y, epochs=1, batch_size=9, verbose=0).history["loss"][0]
    penalty = sum(float((W**2).sum()) for W, _ in network.weights) / 2
    ours_told = network.evaluate(x, y).loss
    assert told == pytest.approx(ours_told + penalty, rel=1e-5)
    history = Trainer(network, handgrad.SGD(1e-9, l2=1.0), batch_size=9, rng=0).fit(x, y, epochs=1)
    assert history["loss"][0] == pytest.approx(ours_told, rel=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_schedules_are_theirs(torch: Any, keras: Any) -> None:
    lr, theirs_of = torch.optim.lr_scheduler, keras.optimizers.schedules

    def in_torch(make: Any, count: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule, rates = make(optimizer), []
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    steps = [step / 10 for step in range(50)]  # 5 epochs of 10 batches
    cosine, exponential = schedules.cosine(), schedules.exponential(0.9)
    stairs, cycle = schedules.step(2, 0.1), schedules.one_cycle(final=4e-6)
    pairs = [
        ([cosine(e, 5) for e in steps], in_torch(lambda o: lr.CosineAnnealingLR(o, T_max=50), 50)),
        ([stairs(e, 5) for e in range(5)], in_torch(lambda o: lr.StepLR(o, step_size=2, gamma=0.1), 5)),
        ([exponential(e, 5) for e in range(5)], in_torch(lambda o: lr.ExponentialLR(o, gamma=0.9), 5)),
        ([cosine(e, 5) for e in steps], [float(theirs_of.CosineDecay(1.0, 50)(i)) for i in range(50)]),
        ([exponential(e, 5) for e in steps], [float(theirs_of.ExponentialDecay(1.0, 10, 0.9)(i)) for i in range(50)]),
        (
            [stairs(e, 5) for e in steps],
            [float(theirs_of.ExponentialDecay(1.0, 20, 0.1, staircase=True)(i)) for i in range(50)],
        ),
    ]
    for here, there in pairs:
        np.testing.assert_allclose(here, there, atol=1e-6)
    other = in_torch(lambda o: lr.OneCycleLR(o, max_lr=1.0, total_steps=51, cycle_momentum=False), 50)
    apart = np.abs(np.array([cycle(e, 5) for e in steps]) - other)
    assert apart.max() < np.abs(np.diff(other)).max()  # less than a step further


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_keras_running_variance_is_over_the_batch(keras: Any) -> None:
    x, _ = batch(0)
    norm = keras.layers.BatchNormalization(momentum=0.9)
    norm(x, training=True)
    here = handgrad.BatchNorm(6, momentum=0.1, epsilon=1e-3)
    network = Network([here, Dense(6, 2)], rng=0)
    network.forward(x)
    mean, variance = (np.array(p) for p in norm.get_weights()[2:])
    np.testing.assert_allclose(here.running_mean, mean, atol=1e-6)
    np.testing.assert_allclose(here.running_var - 0.9, (variance - 0.9) * 9 / 8, atol=1e-6)
