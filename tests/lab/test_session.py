"""Experiments: pausing, stepping, two runs, changes of the learning rate, divergence, copies and the history."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from handgrad import Callback
from handgrad.lab import history as history_module
from handgrad.lab.examples import Library
from handgrad.lab.history import History
from handgrad.lab.measure import update_ratios
from handgrad.lab.run import NotFoundError
from handgrad.lab.settings import Settings

from .conftest import DIGITS, POINTS


def reference(settings: Settings, epochs: int | None = None):
    """The weights after a training without the lab."""
    examples = Library().examples(settings.data, settings.n_train)
    trainer = settings.make_trainer(examples)
    trainer.fit(
        examples.x_train,
        examples.y_train,
        epochs or settings.epochs,
        validation=(examples.x_validation, examples.y_validation),
        progress=False,
    )
    return trainer


def threads_of(experiment):
    return [one for one in threading.enumerate() if experiment.id in one.name]


# ---- Commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [DIGITS, POINTS], ids=["digits", "points"])
def test_weights_and_metrics_are_those_of_a_trainer_without_the_lab(experiment, finish, settings):
    lab, expected = experiment(settings), reference(settings)
    finish(lab, "step")
    finish(lab)
    assert lab.status == "finished"
    run = lab.runs[0]
    np.testing.assert_array_equal(run.current().parameters, expected.network.parameters)
    last = run.epochs()[-1]
    assert last["loss"] == expected.history["loss"][-1]
    assert last["validation_accuracy"] == expected.history["val_accuracy"][-1]


def test_step_takes_one_step_and_measures_it(experiment, finish, events):
    lab = experiment()
    for number in (1, 2, 3):
        before = lab.runs[0].current().network
        finish(lab, "step")
        assert (lab.status, lab.runs[0].step) == ("paused", number)
        after = lab.runs[0].current()
        point = events(lab, "point")[-1]
        assert point["step"] == number
        assert point["loss"] > 0
        assert point["update_ratios"] == update_ratios(after.network, before.parameters)
        assert point["gradient_norms"] == lab.runs[0]._probe.measure(after.parameters).gradient_norms


def test_epoch_stops_after_the_validation_of_the_epoch(experiment, finish, events):
    lab = experiment()
    finish(lab, "step")
    finish(lab, "epoch")
    assert lab.runs[0].step == lab.runs[0].epoch_steps == 6
    (epoch,) = events(lab, "epoch")
    assert epoch["epoch"] == 1
    assert epoch["validation_accuracy"] == reference(POINTS, 1).history["val_accuracy"][0]
    finish(lab, "epoch")
    assert lab.runs[0].step == 12


def test_points_have_the_mean_loss_since_the_last_point(experiment, finish, events):
    lab = experiment()
    finish(lab, "step")
    finish(lab, "epoch")
    first, second = events(lab, "point")
    assert first["loss"] + 5 * second["loss"] == pytest.approx(6 * events(lab, "epoch")[0]["loss"])
    assert first["accuracy"] + 5 * second["accuracy"] == pytest.approx(6 * events(lab, "epoch")[0]["accuracy"])


def test_a_point_after_few_examples_has_the_mean_loss_since_the_point_before(experiment, finish, events):
    lab = experiment()
    for action in ("step", "epoch", "step"):
        finish(lab, action)
    first, second, third = events(lab, "point")
    assert [first["step"], second["step"], third["step"]] == [1, 6, 7]
    new = 60 * third["accuracy"] - 50 * second["accuracy"]  # correct answers in the 10 examples of the last step
    assert new == pytest.approx(round(new))
    assert 0 <= round(new) <= 10
    loss = 6 * third["loss"] - 5 * second["loss"]
    finish(lab, "epoch")
    last, epoch = events(lab, "point")[-1], events(lab, "epoch")[-1]
    assert loss + 5 * last["loss"] == pytest.approx(6 * epoch["loss"])


def test_pause_stops_both_runs_at_the_same_step(experiment, finish, until):
    lab = experiment(replace(DIGITS, epochs=500), replace(DIGITS, epochs=500, loss="squared_error"))
    for _ in range(3):
        seen = lab.runs[1].step
        lab.command("start")
        until(lambda seen=seen: lab.runs[1].step > seen + 50)
        finish(lab, "pause")
        assert lab.status == "paused"
        assert lab.runs[0].step == lab.runs[1].step


def test_two_runs_with_the_same_settings_have_the_same_weights(experiment, finish, until, events):
    lab = experiment(replace(DIGITS, epochs=500), replace(DIGITS, epochs=500))
    lab.command("start")
    until(lambda: len(events(lab, "point")) >= 6)
    finish(lab, "pause")
    a, b = (run.current() for run in lab.runs)
    assert a.step == b.step
    np.testing.assert_array_equal(a.parameters, b.parameters)
    steps = [[point["step"] for point in events(lab, "point") if point["run"] == run.id] for run in lab.runs]
    assert steps[0] == steps[1]


def test_two_runs_get_the_same_batches(experiment, finish):
    lab, seen = experiment(DIGITS, replace(DIGITS, loss="squared_error")), ([], [])
    for run, batches in zip(lab.runs, seen, strict=True):
        step = run.trainer.optimizer.train_step

        def spy(network, x, *others, step=step, batches=batches):
            batches.append(x.copy())
            return step(network, x, *others)

        run.trainer.optimizer.train_step = spy
    finish(lab)
    assert len(seen[0]) == 60
    np.testing.assert_array_equal(*(np.concatenate(batches) for batches in seen))


def test_learning_rate_changes_from_the_next_step(experiment, finish):
    lab = experiment()
    finish(lab, "step")
    assert lab.command("lr", 0.5) == "paused"
    finish(lab, "step")
    run, settings = lab.runs[0], POINTS
    assert run.rates == {1: 0.5}
    examples = Library().examples("moons", 60)
    trainer = settings.make_trainer(examples)
    order = settings.make_trainer(examples).shuffling.permutation(60)
    t = trainer.network.loss.targets(examples.y_train, 60, 2, np.float32)
    for rows, lr in ((order[:10], 0.1), (order[10:20], 0.5)):
        trainer.optimizer.train_step(trainer.network, examples.x_train[rows], t[rows], lr)
    np.testing.assert_allclose(run.current().parameters, trainer.network.parameters, rtol=1e-6)


def test_learning_rate_of_one_of_two_runs_changes(experiment):
    lab = experiment(POINTS, replace(POINTS, lr=0.2))
    lab.command("lr", 0.7, lab.runs[1].id)
    assert [run.lr for run in lab.runs] == [0.1, 0.7]


def test_reset_returns_to_the_initial_weights_and_settings(experiment, finish, events):
    lab = experiment()
    before, names = lab.runs[0].current().parameters.copy(), [run.id for run in lab.runs]
    finish(lab)
    lab.command("lr", 0.9)
    lab.command("reset")
    assert [event["type"] for event in events(lab)] == ["reset", "status"]
    assert (lab.status, lab.runs[0].step, lab.runs[0].lr, names) == ("ready", 0, 0.1, [run.id for run in lab.runs])
    np.testing.assert_array_equal(lab.runs[0].current().parameters, before)
    finish(lab)
    np.testing.assert_array_equal(lab.runs[0].current().parameters, reference(POINTS).network.parameters)


def test_commands_can_be_repeated(experiment, finish, until):
    lab = experiment(replace(POINTS, epochs=1000))
    for _ in range(3):
        lab.command("start")
    until(lambda: lab.runs[0].step > 0)
    assert len(threads_of(lab)) == 1
    for _ in range(3):
        finish(lab, "pause")
    assert lab.status == "paused"
    lab.command("close")
    lab.command("close")
    assert lab.command("start") == "paused"
    assert not threads_of(lab)


def test_finished_experiment_ignores_commands(experiment, finish):
    lab = experiment()
    finish(lab)
    for action in ("start", "step", "epoch", "pause"):
        assert lab.command(action) == "finished"
    assert not threads_of(lab)


def test_closing_ends_a_run_that_is_slow_or_paused_or_running(experiment, until):
    for speed, action in ((0.1, "start"), (None, "start"), (None, "step")):
        lab = experiment(replace(POINTS, epochs=1000))
        lab.command("speed", speed)
        lab.command(action)
        until(lambda lab=lab: lab.runs[0].step > 0)
        lab.close()
        assert not threads_of(lab)


def test_speed_limits_the_steps(experiment, until, finish):
    lab = experiment(POINTS, replace(POINTS, lr=0.2))
    lab.command("speed", 0.1)
    lab.command("start")
    until(lambda: all(run.step == 1 for run in lab.runs))
    lab.command("speed", None)
    until(lambda: lab.status == "finished")


@pytest.mark.parametrize(
    ("action", "value", "message"),
    [
        ("stop", None, "unknown action"),
        ("lr", None, "lr must be"),
        ("lr", "0.1", "lr must be"),
        ("lr", float("nan"), "lr must be"),
        ("lr", -1, "lr must be"),
        ("lr", True, "lr must be"),
        ("speed", 0, "the speed must be"),
        ("speed", "fast", "the speed must be"),
    ],
)
def test_invalid_commands_are_rejected(experiment, rejects, action, value, message):
    with rejects(message):
        experiment().command(action, value)


def test_command_for_an_unknown_run_is_rejected(experiment):
    with pytest.raises(NotFoundError):
        experiment().command("lr", 0.1, "x")


# ---- Divergence, warnings --------------------------------------------------------------------------------------------


def test_diverged_run_says_so_and_the_other_run_goes_on(experiment, finish, events):
    wild = replace(DIGITS, activation="relu", loss="cross_entropy", lr=1000.0, hidden=(50, 50), optimizer="momentum")
    lab = experiment(wild, replace(wild, lr=0.01))
    finish(lab)
    assert [run.status for run in lab.runs] == ["diverged", "finished"]
    assert lab.status == "diverged"
    message = next(event["message"] for event in events(lab, "status") if event["status"] == "diverged")
    assert "training diverged at step" in message
    assert np.isfinite(lab.runs[0].current().parameters).all()
    assert lab.runs[1].step == 60


def test_error_in_the_thread_ends_the_run_and_not_the_experiment(experiment, finish, events, capsys):
    lab = experiment(POINTS, replace(POINTS, lr=0.2))

    def fail(*_):
        raise RuntimeError("mine")

    lab.runs[0].trainer.optimizer.train_step = fail
    finish(lab)
    assert [run.status for run in lab.runs] == ["failed", "finished"]
    assert lab.status == "failed"
    assert "RuntimeError: mine" in capsys.readouterr().err


def test_events_have_null_instead_of_nan():
    history = History()
    history.append({"type": "point", "loss": float("nan"), "norms": [float("inf"), 1.0]})
    assert json.loads(history.since(0)[0].text) == {"type": "point", "loss": None, "norms": [None, 1.0]}


def test_warnings_of_a_training_are_events(experiment, finish, events):
    lab = experiment(replace(DIGITS, hidden=(30,), lr=100.0, epochs=30))
    finish(lab)
    assert any("saturated" in event["message"] for event in events(lab, "warning"))


# ---- Copies and snapshots --------------------------------------------------------------------------------------------


def test_copies_are_taken_between_two_steps_and_do_not_change(experiment, finish, until):
    lab = experiment(replace(DIGITS, epochs=1000))
    run = lab.runs[0]
    lab.command("start")
    until(lambda: run.step > 100)
    copies = [run.current() for _ in range(20)]
    finish(lab, "pause")
    kept = [copy.parameters.copy() for copy in copies]
    finish(lab, "epoch")
    assert len({copy.step for copy in copies}) >= 1
    examples = Library().examples("synthetic", 200)
    trainer = run.settings.make_trainer(examples)
    wanted, seen = {copy.step: copy for copy in copies}, {}

    class Keep(Callback):
        def on_batch_end(self, trainer):
            step = trainer.epoch * trainer.batches + trainer.batch
            if step in wanted:
                seen[step] = trainer.network.parameters.copy()

    trainer.callbacks = [Keep()]
    trainer.fit(examples.x_train, examples.y_train, max(wanted) // run.epoch_steps + 1, progress=False)
    for copy, parameters in zip(copies, kept, strict=True):
        np.testing.assert_array_equal(parameters, seen[copy.step])


def test_epochs_are_kept_with_the_weights_that_were_evaluated(experiment, finish):
    lab = experiment()
    for _ in range(POINTS.epochs):
        finish(lab, "epoch")
    run = lab.runs[0]
    assert [row["epoch"] for row in run.epochs()] == [0, 1, 2, 3, 4]
    for row in run.epochs()[1:]:
        snapshot = run.snapshot(row["epoch"])
        assert snapshot.epoch == row["epoch"]
        accuracy = np.mean(snapshot.network.predict(run.x_validation) == run.y_validation)
        assert accuracy == pytest.approx(row["validation_accuracy"])
    assert run.snapshot(1_000_000) is run.snapshot(4)  # the closest one


def test_number_of_kept_epochs_is_limited(experiment, finish, monkeypatch):
    monkeypatch.setattr("handgrad.lab.run.SNAPSHOTS", 5)
    monkeypatch.setattr("handgrad.lab.run.EPOCH_INTERVAL", 0)
    lab = experiment(replace(POINTS, epochs=40))
    finish(lab)
    epochs = [row["epoch"] for row in lab.runs[0].epochs()]
    assert len(epochs) == 5
    assert (epochs[0], epochs[-1]) == (0, 40)
    assert max(np.diff(epochs)) <= 20


def test_model_of_a_recipe_predicts_unprocessed_images(experiment, finish):
    recipe = Settings.from_json({"recipe": "second", "data": "synthetic", "n_train": 1000, "epochs": 2, "lr": 0.02})
    lab = experiment(recipe)
    finish(lab)
    run = lab.runs[0]
    model, examples = run.current().model, run.examples
    accuracy = model.evaluate(examples.x_validation, examples.y_validation).accuracy
    assert accuracy == pytest.approx(run.epochs()[-1]["validation_accuracy"], abs=0.01)
    assert accuracy > 0.5


# ---- History ---------------------------------------------------------------------------------------------------------


def test_history_continues_from_a_position():
    history = History()
    for number in range(5):
        history.append({"type": "point", "n": number})
    assert [entry.position for entry in history.since(3)] == [3, 4]
    assert history.since(5) == []
    history.clear()
    history.append({"type": "reset"})
    assert [entry.position for entry in history.since(3)] == [5]


def test_long_history_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(history_module, "MAX_POINTS", 100)
    monkeypatch.setattr(history_module, "MAX_OTHERS", 20)
    history = History()
    for number in range(5000):
        history.append({"type": "point", "run": 0, "n": number}, number)
        history.append({"type": "point", "run": 1, "n": number}, number)
        if number % 100 == 0:
            history.append({"type": "status"}, number)
    assert len(history) <= 121
    kept = [json.loads(entry.text) for entry in history.since(0) if entry.kind == "point"]
    numbers = [event["n"] for event in kept if event["run"] == 0]
    assert numbers[:15] == [event["n"] for event in kept if event["run"] == 1][:15]
    assert numbers[0] == 0
    assert max(np.diff(numbers)) < 500
    assert [entry.position for entry in history.since(0)] == sorted(entry.position for entry in history.since(0))
