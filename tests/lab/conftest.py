"""Fixtures of the lab: small settings, experiments that are closed after the test, waiting, a server in a thread."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from types import SimpleNamespace

import pytest

from handgrad.lab.examples import Library
from handgrad.lab.experiments import Lab
from handgrad.lab.session import Experiment
from handgrad.lab.settings import Settings

DIGITS = Settings(data="synthetic", n_train=200, hidden=(12,), epochs=3)
POINTS = Settings(data="moons", n_train=60, hidden=(5,), loss="cross_entropy", activation="tanh", lr=0.1, epochs=4)


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    """A machine without MNIST, on which a download would fail."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HANDGRAD_MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setattr("handgrad.data.mnist.search_paths", lambda: (tmp_path,))
    monkeypatch.delenv("HANDGRAD_DATA", raising=False)


@pytest.fixture
def experiment():
    """A function that creates an experiment from settings."""
    created = []

    def create(*settings: Settings) -> Experiment:
        created.append(Experiment(settings or (POINTS,), Library()))
        return created[-1]

    yield create
    for one in created:
        one.close()


@pytest.fixture
def until():
    """A function that waits until a condition holds, or fails after a minute."""

    def wait(condition) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "the condition does not become true"
            time.sleep(0.005)

    return wait


@pytest.fixture
def finish(until):
    """A function that carries out a command and waits until the runs have stopped."""

    def finish(experiment: Experiment, action: str = "start", value: object = None) -> None:
        experiment.command(action, value)
        until(lambda: experiment.status not in ("running", "ready"))

    return finish


@pytest.fixture
def events():
    """A function that returns the events of an experiment, of one type."""

    def read(experiment: Experiment, kind: str | None = None) -> list[dict]:
        found = [json.loads(entry.text) for entry in experiment.history.since(0)]
        return [event for event in found if kind in (None, event["type"])]

    return read


@pytest.fixture(scope="session")
def running():
    """A context with a server in a thread: its lab, which is closed at the end, server, port and url."""
    from handgrad.lab.server import Server, bind

    @contextlib.contextmanager
    def run(lab: Lab, port: int = 0):
        listener, moved = bind(port)
        assert not moved, f"port {port} is in use"
        port, server = listener.getsockname()[1], Server(lab)
        thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield SimpleNamespace(lab=lab, server=server, port=port, url=f"http://127.0.0.1:{port}/")
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server does not end"

    return run
