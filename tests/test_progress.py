"""The progress of a training: a bar in a terminal or notebook, lines elsewhere, nothing in scripts by default."""

import contextlib
import copy
import io
import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

from handgrad import SGD, Callback, EarlyStopping, Network, ProgressBar, Trainer, progress

X = np.random.default_rng(0).random((23, 4))
Y = np.arange(23) % 3


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self):
        return True


def make(**options):
    return Trainer(Network([4, 5, 3], loss="cross_entropy", rng=0), SGD(0.1), batch_size=5, rng=0, **options)


@pytest.fixture
def terminal(monkeypatch):
    """Calls a function with a terminal as stderr, and returns what is shown there."""

    def show(function, *arguments, **options):
        with contextlib.redirect_stderr(Terminal()) as stream:
            function(*arguments, **options)
        return stream.getvalue()

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return show


def test_nothing_is_printed_in_a_script_by_default(capfd):
    make().fit(X, Y, epochs=2)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_has_a_bar_with_the_metrics_by_default(terminal):
    trainer = make()
    last = terminal(trainer.fit, X, Y, epochs=3, validation=(X, Y)).rstrip().splitlines()[-1].rpartition("\r")[2]
    assert last.startswith("epoch 3/3: 100%")
    assert "15/15" in last
    for name in ("loss", "val_loss"):
        assert f"{name} {trainer.metrics[name]:.4f}" in last
    for name in ("accuracy", "val_accuracy"):
        assert f"{name} {trainer.metrics[name]:.2%}" in last


def test_progress_false_prints_nothing_in_a_terminal(terminal):
    assert terminal(make().fit, X, Y, epochs=2, progress=False) == ""


def test_tqdm_disable_turns_the_default_off(terminal, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert terminal(make().fit, X, Y, epochs=2) == ""


def test_a_callback_that_shows_the_progress_replaces_the_default(terminal):
    class Dots(Callback):
        shows_progress = True

    assert terminal(make(callbacks=[Dots()]).fit, X, Y, epochs=2) == ""


def test_a_notebook_has_a_bar_by_default(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert progress.is_interactive()
    shell.config.clear()
    assert not progress.is_interactive()


def test_progress_true_prints_a_line_per_epoch_without_a_terminal(capsys):
    make().fit(X, Y, epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[:15] for line in err.splitlines()] == ["epoch 1/2  loss", "epoch 2/2  loss"]


def test_lines_replace_the_bar_without_tqdm(terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    shown = terminal(make().fit, X, Y, epochs=2)
    assert [line[:9] for line in shown.splitlines()] == ["epoch 1/2", "epoch 2/2"]


def test_a_long_training_prints_some_of_its_epochs_and_the_last(capsys):
    make().fit(X, Y, epochs=333, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= progress.MAX_LINES + 1
    assert lines[-1].startswith("epoch 333/333")


def test_a_second_fit_counts_on(capsys):
    trainer = make()
    trainer.fit(X, Y, epochs=1)
    trainer.fit(X, Y, epochs=2, progress=True)
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["epoch 2/3", "epoch 3/3"]


def test_the_bar_is_closed_if_training_stops_early_or_raises(terminal, monkeypatch):
    bars = []
    monkeypatch.setattr(ProgressBar, "open", lambda self, trainer, **_: bars.append(self))
    closed = []
    monkeypatch.setattr(ProgressBar, "close", lambda self: closed.append(self))
    terminal(make(callbacks=[EarlyStopping(monitor="loss", patience=1, min_delta=10)]).fit, X, Y, epochs=9)
    assert closed
    assert closed[-1] is bars[-1]

    class Failing(Callback):
        def on_epoch_end(self, trainer):
            raise KeyboardInterrupt

    trainer = make(callbacks=[Failing()])
    closed.clear()
    with pytest.raises(KeyboardInterrupt):
        terminal(trainer.fit, X, Y, epochs=2)
    assert closed == [bars[-1]]
    assert trainer._progress is None


def test_progress_does_not_change_the_training_or_the_state(terminal):
    shown, hidden = make(), make()
    assert "100%" in terminal(shown.fit, X, Y, epochs=2)
    hidden.fit(X, Y, epochs=2, progress=False)
    np.testing.assert_array_equal(shown.network.parameters, hidden.network.parameters)
    assert shown.state_dict().keys() == hidden.state_dict().keys()
    assert shown.callbacks == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_trainer_can_be_copied_while_a_bar_is_shown(copied, terminal):
    twins = []

    class Copying(Callback):
        def on_epoch_end(self, trainer):
            if not twins:
                trainer.callbacks, own = [], trainer.callbacks
                twins.append(copied(trainer))
                trainer.callbacks = own

    assert "100%" in terminal(make(callbacks=[Copying()]).fit, X, Y, epochs=2)
    assert twins[0].epoch == 1


def test_a_progress_bar_can_be_a_callback_of_the_trainer(capsys):
    trainer = make(callbacks=[ProgressBar()])
    trainer.fit(X, Y, epochs=1)
    assert capsys.readouterr().err.startswith("epoch 1/1")
    assert repr(trainer.callbacks) == "[ProgressBar()]"


@pytest.mark.parametrize("value", ["yes", 2])
def test_an_invalid_progress_is_rejected(value, rejects):
    with rejects("progress must be True, False or None"):
        make().fit(X, Y, epochs=1, progress=value)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo terminals")
def test_a_program_in_a_terminal_shows_a_bar():
    import fcntl  # not on Windows
    import struct
    import termios

    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    program = (
        "import numpy as np; from handgrad import Network; x = np.random.default_rng(0).random((40, 3)); "
        "Network([3, 4, 2], rng=0).fit(x, np.arange(40) % 2, epochs=2)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=terminal, env=environment, check=True
    )
    os.close(terminal)
    shown = os.read(controller, 100_000).decode()
    os.close(controller)
    assert done.stdout == b""
    assert "epoch 2/2: 100%" in shown
    assert "val_accuracy" in shown
