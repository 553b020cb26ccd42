"""The server of the lab: answers, the stream of events, the rules of its security, start and end of the process."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from handgrad.lab import security
from handgrad.lab.experiments import MAX_EXPERIMENTS, MAX_STREAMS, Lab
from handgrad.lab.security import HEADERS, MAX_BODY, Guard
from handgrad.lab.server import Server, bind, make_app, serve
from handgrad.recipes import RECIPES

ADDRESS = "http://127.0.0.1"
POINTS = {"data": "moons", "n_train": 60, "hidden": [5], "loss": "cross_entropy", "activation": "tanh", "lr": 0.1}
DIGITS = {"data": "synthetic", "n_train": 200, "hidden": [12], "epochs": 3}


@pytest.fixture
def lab():
    made = Lab()
    yield made
    made.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("handgrad run")]


@pytest.fixture
def client(lab, monkeypatch):
    monkeypatch.setattr(security, "RATE", 10_000.0)  # the limit has its own test
    with TestClient(make_app(lab), base_url=ADDRESS) as made:
        yield made


@pytest.fixture
def create(client):
    """A function that creates an experiment and returns its description."""

    def create(*settings: dict, **more: object) -> dict:
        response = client.post("/api/experiments", json={"runs": list(settings or (POINTS,)), **more})
        assert response.status_code == 200, response.text
        return response.json()

    return create


@pytest.fixture
def finish(client, lab, until):
    """A function that carries out a command and waits until the runs have stopped."""

    def finish(description: dict, action: str = "start", **more: object) -> None:
        url = f"/api/experiments/{description['id']}/command"
        assert client.post(url, json={"action": action, **more}).status_code == 200
        until(lambda: lab.experiment(description["id"]).status not in ("running", "ready"))

    return finish


def drawing(width: int = 60, height: int = 60) -> bytes:
    """A thick vertical stroke, which is a 1."""
    image = np.zeros((height, width), np.uint8)
    image[10:50, 27:33] = 255
    return image.tobytes()


# ---- Answers ---------------------------------------------------------------------------------------------------------


def test_options_describe_everything_that_the_page_offers(client):
    options = client.get("/api/options").json()
    assert {row["name"] for row in options["datasets"]} >= {"mnist", "synthetic", "xor", "spirals"}
    for preset in options["presets"]:
        assert client.post("/api/experiments", json={"runs": preset["runs"]}).status_code in (200, 409)
    assert options["limits"]["body"] == MAX_BODY
    assert options["defaults"]["data"] in ("mnist", "synthetic")


def test_own_images_are_the_first_choice(tmp_path, digits):
    x, y, x_test, y_test = digits
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    with TestClient(make_app(Lab(str(tmp_path / "own.npz"))), base_url=ADDRESS) as client:
        defaults = client.get("/api/options").json()["defaults"]
        assert (defaults["data"], defaults["n_train"]) == ("own", 500)
        made = client.post("/api/experiments", json={"runs": [defaults]}).json()
        assert made["runs"][0]["image"] == [8, 8]
        run = made["runs"][0]["id"]
        answer = client.post(f"/api/runs/{run}/predict?width=60&height=60&channels=1", content=drawing()).json()
        assert len(base64.b64decode(answer["seen"])) == 64
        assert f'data = load("{tmp_path / "own.npz"}")' in client.get(f"/api/runs/{run}/code").text


def test_experiment_is_described_and_trained(client, create, finish):
    made = create({**DIGITS, "epochs": 1})
    (run,) = made["runs"]
    assert made["status"] == "ready"
    assert run["steps_per_epoch"] == 20
    assert [row["n_parameters"] for row in run["layers"]] == [784 * 12 + 12, 0, 130, 0]
    finish(made)
    assert client.get(f"/api/experiments/{made['id']}").json()["status"] == "finished"
    epochs = client.get(f"/api/runs/{run['id']}/epochs").json()
    assert [row["epoch"] for row in epochs] == [0, 1]


def test_weights_are_raw_floats_of_an_epoch(client, create, finish, lab):
    made = create()
    run = made["runs"][0]["id"]
    finish(made, "epoch")
    for epoch, index in (("", None), ("&epoch=0", 0), ("&epoch=1", 1), ("&epoch=7", 1)):  # 1 is the closest to 7
        response = client.get(f"/api/runs/{run}/weights?layer=0{epoch}")
        assert response.headers["x-shape"] == "5,2"
        expected = lab.run(run).snapshot(index).network.layers[0].W
        np.testing.assert_array_equal(np.frombuffer(response.content, "<f4").reshape(5, 2), expected)
    assert client.get(f"/api/runs/{run}/weights?layer=2").status_code == 400


def test_images_of_a_cell_are_those_that_the_confusion_matrix_counts(client, create, finish, lab):
    made = create(DIGITS)
    run = made["runs"][0]["id"]
    finish(made)
    table = client.get(f"/api/runs/{run}/confusion").json()
    matrix = np.array(table["matrix"])
    np.fill_diagonal(matrix, 0)
    true, predicted = np.unravel_index(matrix.argmax(), matrix.shape)
    images = client.get(f"/api/runs/{run}/images?true={true}&predicted={predicted}&limit=3").json()
    assert images["total"] == matrix.max()
    assert {(one["label"], one["predicted"]) for one in images["images"]} == {(true, predicted)}
    last = images["images"][-1]
    shown = client.get(f"/api/runs/{run}/activations?index={last['index']}").json()
    assert shown["pixels"] == last["pixels"]
    assert last["probability"] == pytest.approx(max(shown["probabilities"]))
    assert shown["label"] == true
    assert int(np.argmax(shown["probabilities"])) == predicted
    assert [len(layer["values"]) for layer in shown["layers"]] == [12, 12, 10]


def test_images_are_those_of_the_same_weights_as_the_matrix_while_the_run_goes_on(client, create, finish, lab):
    made = create(DIGITS)
    run = made["runs"][0]["id"]
    table = client.get(f"/api/runs/{run}/confusion").json()
    matrix = np.array(table["matrix"])
    true, predicted = np.unravel_index(matrix.argmax(), matrix.shape)
    finish(made)
    address = f"/api/runs/{run}/images?true={true}&predicted={predicted}"
    images = client.get(f"{address}&step={table['step']}").json()
    assert (images["total"], images["step"]) == (matrix.max(), 0)
    index = images["images"][0]["index"]
    shown = client.get(f"/api/runs/{run}/activations?index={index}&step=0").json()
    assert int(np.argmax(shown["probabilities"])) == predicted
    assert client.get(f"{address}&step=7").status_code == 404
    later = client.get(f"/api/runs/{run}/confusion").json()
    assert later["step"] == lab.run(run).step > 0
    assert client.get(f"{address}&step={later['step']}").json()["total"] == later["matrix"][true][predicted]


def test_drawing_is_read_as_by_handgrad_predict(client, create, finish, lab):
    from handgrad.images import predict_image

    made = create(DIGITS)
    run = made["runs"][0]["id"]
    finish(made)
    url = f"/api/runs/{run}/predict?width=60&height=60&channels=1"
    answer = client.post(url, content=drawing()).json()
    image = np.frombuffer(drawing(), np.uint8).reshape(60, 60)
    (reading,) = predict_image(lab.run(run).current().model, image)
    assert answer["answer"] == reading.label
    assert answer["confidence"] == reading.confidence
    assert answer["probabilities"] == list(reading.probabilities.values())
    assert [len(layer["values"]) for layer in answer["layers"]] == [12, 12, 10]
    (reading,) = predict_image(lab.run(run).snapshot(0).model, image)
    assert client.post(f"{url}&epoch=0", content=drawing()).json()["confidence"] == reading.confidence
    empty = client.post(url, content=bytes(3600)).json()
    assert empty["answer"] is None
    assert "no digit found" in empty["reason"]
    assert client.post(url, content=drawing()[1:]).status_code == 400


def test_drawing_of_several_digits_has_several_readings(client, create):
    run = create(DIGITS)["runs"][0]["id"]
    image = np.zeros((60, 200), np.uint8)
    image[10:50, 40:46] = image[10:50, 140:146] = 255
    answer = client.post(f"/api/runs/{run}/predict?width=200&height=60&channels=1", content=image.tobytes()).json()
    assert len(answer["readings"]) == 2
    assert "2 digits were found" in answer["reason"]


def test_smallest_change_of_a_drawing_changes_the_answer(client, create, finish):
    made = create(DIGITS)
    finish(made)
    url = f"/api/runs/{made['runs'][0]['id']}/flip?width=60&height=60&channels=1"
    found = client.post(url, content=drawing()).json()
    assert found["from"] != found["to"]
    assert (found["width"], found["height"]) == (28, 28)
    assert client.post(url, content=bytes(3600)).status_code == 400


@pytest.mark.parametrize("cells", [0, 4])
def test_recipe_with_preprocessing_answers_everything(client, create, finish, monkeypatch, cells):
    monkeypatch.setitem(RECIPES, "second", RECIPES["second"].replace(hog=cells))
    made = create({"recipe": "second", "data": "synthetic", "n_train": 500, "epochs": 1, "batch_size": 50})
    finish(made)
    assert made["runs"][0]["layers"][0]["name"] == ("HOG 196-128" if cells else "Dense 196-128")
    run = f"/api/runs/{made['runs'][0]['id']}"
    for name in ("predict", "flip"):
        assert client.post(f"{run}/{name}?width=60&height=60&channels=1", content=drawing()).status_code == 200
    for name in ("confusion", "images", "activations?index=0", "code", "model", "weights?layer=0"):
        assert client.get(f"{run}/{name}").status_code == 200
    assert client.post(f"{run}/check").json()["ok"]
    steps = client.get(f"/api/walkthrough?run={made['runs'][0]['id']}").json()["steps"]
    hog = {step["title"]: step["equation"] for step in steps if "HOG" in step["title"]}
    expected = {"Forward: HOG 196-128": "x' = HOG(x)", "Backward: HOG 196-128": "dx = (∂x'/∂x)ᵀ dx'"}
    assert hog == (expected if cells else {})


def test_points_have_a_boundary_and_no_images(client, create):
    run = create()["runs"][0]["id"]
    grid = client.get(f"/api/runs/{run}/boundary")
    assert grid.headers["x-shape"] == "80,80"
    assert len(grid.content) == 4 * 80 * 80
    points = client.get(f"/api/runs/{run}/points").json()
    assert len(points["train"]) == 60
    assert len(points["train"][0]) == 3
    assert "point" in client.get(f"/api/runs/{run}/activations?index=0").json()
    for path in ("images", "predict?width=1&height=1&channels=1", "flip?width=1&height=1&channels=1"):
        request = client.get if path == "images" else client.post
        assert request(f"/api/runs/{run}/{path}").json() == {"error": "this run has no images"}


def test_model_can_be_loaded_and_is_that_of_the_run(client, create, finish, tmp_path, lab):
    import handgrad

    made = create()
    finish(made)
    response = client.get(f"/api/runs/{made['runs'][0]['id']}/model")
    assert "attachment" in response.headers["content-disposition"]
    (tmp_path / "m.safetensors").write_bytes(response.content)
    run = lab.run(made["runs"][0]["id"])
    np.testing.assert_array_equal(handgrad.load(tmp_path / "m.safetensors").parameters, run.network.parameters)


def test_small_walkthrough_needs_no_run(client):
    steps = client.get("/api/walkthrough?example=2-2-1").json()["steps"]
    assert steps[0]["values"]["x"]["all"] == [1.0, 0.0]
    assert client.get("/api/walkthrough").status_code == 400


def test_walkthrough_of_a_run_shows_its_example(client, create, lab):
    run = create(DIGITS)["runs"][0]["id"]
    shown = client.get(f"/api/walkthrough?run={run}&index=3").json()
    assert base64.b64decode(shown["pixels"]) == lab.run(run).x_train[3].tobytes()
    assert shown["label"] == lab.run(run).y_train[3]
    assert shown["steps"][0]["values"]["x"]["shape"] == [784]
    assert client.get(f"/api/walkthrough?run={run}&index=200").status_code == 400


def test_new_experiment_replaces_the_old_one(client, create, lab):
    first = create()
    second = create(replaces=first["id"])
    assert client.get(f"/api/experiments/{first['id']}").status_code == 404
    assert client.get(f"/api/experiments/{second['id']}").status_code == 200


def test_abandoned_experiment_makes_room(client, create, monkeypatch):
    first, *_ = (create() for _ in range(MAX_EXPERIMENTS))
    assert client.post("/api/experiments", json={"runs": [POINTS]}).status_code == 409
    monkeypatch.setattr("handgrad.lab.experiments.ABANDONED", -1)
    create()
    assert client.get(f"/api/experiments/{first['id']}").status_code == 404


def test_run_of_a_closed_page_is_paused_and_that_of_a_reloaded_page_is_not(client, create, lab, until, monkeypatch):
    made = create({**POINTS, "epochs": 1000})
    address = f"/api/experiments/{made['id']}"
    experiment = lab.experiment(made["id"])
    client.post(f"{address}/command", json={"action": "speed", "value": 50})  # it must not finish before
    for action in ("start", "leave"):
        assert client.post(f"{address}/command", json={"action": action}).json()["status"] == "running"
    lab.pause_unwatched()
    assert experiment.pace.request is None  # the page may come back
    monkeypatch.setattr("handgrad.lab.experiments.LEFT", -1.0)
    client.get(address)  # it does
    lab.pause_unwatched()
    assert experiment.status == "running"
    with lab.streaming(experiment):
        client.post(f"{address}/command", json={"action": "leave"})
        with monkeypatch.context() as changed:
            changed.delattr(experiment.__class__, "command")
            lab.pause_unwatched()  # the stream is still open
    client.get(f"/api/runs/{made['runs'][0]['id']}/weights?layer=0")  # sent before the page was closed
    until(lambda: experiment.status == "paused")  # the server looks once a second


# ---- Stream ----------------------------------------------------------------------------------------------------------


class Stream:
    """An open stream of events."""

    def __init__(self, port: int, path: str, last: str | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        more = f"Last-Event-ID: {last}\r\n" if last else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])

    def events(self, count: int) -> list[tuple[str, dict]]:
        """The next events: (id, data)."""
        found, name = [], ""
        while len(found) < count:
            raw = self.file.readline()
            assert raw, f"the stream ended after {found}"
            line = raw.decode().strip()
            if line.startswith("id: "):
                name = line[4:]
            elif line.startswith("data: "):
                found.append((name, json.loads(line[6:])))
        return found

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def test_stream_continues_after_the_last_event_and_a_stale_one_starts_again(lab, until, running):
    from handgrad.lab.settings import Settings

    experiment = lab.create([Settings.from_json(POINTS)])
    experiment.command("epoch")
    until(lambda: experiment.status == "paused")
    path = f"/api/experiments/{experiment.id}/events"
    with running(lab) as served:
        first = Stream(served.port, path)
        events = first.events(3)
        first.close()
        assert [name for name, _ in events] == [f"{experiment.id}:{i}" for i in range(3)]
        resumed = Stream(served.port, path, events[1][0])
        assert resumed.events(1) == events[2:3]
        since = Stream(served.port, f"{path}?since=2")
        assert since.events(1) == events[2:3]
        stale = Stream(served.port, path, "0123abcd:7")  # from an earlier server
        assert stale.events(3) == events
        gone = Stream(served.port, "/api/experiments/0123abcd/events", "0123abcd:7")
        assert gone.status == 404
        experiment.command("reset")
        while resumed.events(1)[0][1]["type"] != "reset":
            pass
        lab.remove(experiment.id)
        while stale.events(1)[0][1].get("status") != "closed":
            pass
        for one in (resumed, since, stale, gone):
            one.close()
        until(lambda: lab.streams == 0)


def test_rule_13_streams_and_experiments_are_limited_and_closed_tabs_do_not_count(lab, until, running):
    from handgrad.lab.settings import Settings

    experiment = lab.create([Settings.from_json(POINTS)])
    path = f"/api/experiments/{experiment.id}/events"
    with running(lab) as served:
        streams = [Stream(served.port, path) for _ in range(MAX_STREAMS)]
        until(lambda: lab.streams == MAX_STREAMS)
        extra = Stream(served.port, path)
        assert extra.status == 409
        extra.close()
        for one in streams:
            one.close()
        until(lambda: lab.streams == 0)
        again = Stream(served.port, path)
        assert again.status == 200
        again.close()


def test_stream_for_which_others_leave_no_place_is_empty(lab, monkeypatch):
    from handgrad.lab.server import _stream
    from handgrad.lab.settings import Settings

    async def read() -> list[str]:
        return [text async for text in _stream(lab, experiment, 0, lambda: False)]

    experiment = lab.create([Settings.from_json(POINTS)])
    monkeypatch.setattr(lab, "streams", MAX_STREAMS)  # since the check before the answer
    assert asyncio.run(read()) == []


def test_open_stream_ends_with_the_server(lab, running):
    from handgrad.lab.settings import Settings

    experiment = lab.create([Settings.from_json(POINTS)])
    with running(lab) as served:
        stream = Stream(served.port, f"/api/experiments/{experiment.id}/events")
        stream.file.readline()
        served.server.should_exit = True
        rest = stream.file.read()
        stream.close()
    assert rest.endswith(b"0\r\n\r\n")  # the end of a complete answer, not of an interrupted one


@pytest.mark.parametrize("turns", range(4))
def test_connection_that_is_accepted_at_the_end_is_closed(lab, capsys, turns):
    class Ending(Server):
        async def on_tick(self, counter: int) -> bool:
            self.client = socket.create_connection(listener.getsockname(), timeout=60)
            for _ in range(turns):
                await asyncio.sleep(0)
            return True  # uvicorn shuts down now

    listener, _ = bind(0)
    server = Ending(lab)
    server.run(sockets=[listener])
    server.client.close()
    assert not server.server_state.connections
    gc.collect()  # reports sockets that are open
    assert capsys.readouterr().err == ""  # of uvicorn, if it waited until the timeout


def test_connection_of_a_client_that_does_not_read_its_answer_is_closed_at_the_end(lab, static):
    class Ending(Server):
        async def on_tick(self, counter: int) -> bool:
            self.client = socket.create_connection(listener.getsockname(), timeout=60)
            self.client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not self.server_state.total_requests:
                await asyncio.sleep(0.01)
            return True  # uvicorn shuts down now

    (static / "index.html").write_bytes(bytes(20_000_000))  # more than the buffers of the sockets
    listener, _ = bind(0)
    server = Ending(lab)
    server.config.timeout_graceful_shutdown = 0.1
    server.run(sockets=[listener])
    server.client.close()
    assert not server.server_state.connections


# ---- Security: the rules of a server on this machine -----------------------------------------------------------------


def assert_headers(response):
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    assert "server" not in response.headers
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_rule_1_socket_listens_on_this_machine_only():
    listener, moved = bind(0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not moved


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "127.0.0.2",
        "0.0.0.0",
        "[::1]",
        "",
        "localhost:x",
        "evil.com:80",
    ],
)
def test_rule_2_other_hosts_are_rejected(client, host):
    response = client.get("/api/options", headers={"host": host})
    assert response.status_code == 400
    assert_headers(response)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:8420", "LOCALHOST:80"])
def test_rule_2_hosts_of_this_machine_are_allowed(client, host):
    assert client.get("/api/walkthrough?example=2-2-1", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.com", "null", "http://127.0.0.1:81", "https://127.0.0.1", "http://localhost", ""]
)
def test_rule_3_other_origins_are_rejected(client, origin):
    response = client.post("/api/experiments", json={"runs": [POINTS]}, headers={"origin": origin})
    assert response.status_code == 403
    assert_headers(response)


def test_rule_3_own_origin_and_no_origin_are_allowed(client, create):
    create()
    response = client.post("/api/experiments", json={"runs": [POINTS]}, headers={"origin": ADDRESS})
    assert response.status_code == 200


def test_rule_3_evil_origin_with_an_evil_host_is_rejected_by_the_host(client):
    headers = {"host": "evil.com", "origin": "http://evil.com"}
    assert client.post("/api/experiments", json={"runs": [POINTS]}, headers=headers).status_code == 400


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_rule_4_requests_from_other_sites_are_rejected(client, site):
    for response in (
        client.get("/api/options", headers={"sec-fetch-site": site}),
        client.post("/api/experiments", json={"runs": [POINTS]}, headers={"sec-fetch-site": site}),
    ):
        assert response.status_code == 403
        assert_headers(response)
    assert client.get("/", headers={"sec-fetch-site": site}).status_code in (200, 503)  # a link to the page is allowed


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_rule_4_requests_of_the_page_are_allowed(client, site):
    assert client.get("/api/walkthrough?example=2-2-1", headers={"sec-fetch-site": site}).status_code == 200


def test_rule_5_no_answer_allows_other_sites_and_get_changes_nothing(client, create, lab):
    made = create()
    url = f"/api/experiments/{made['id']}/command"
    assert client.get(url).status_code == 405
    assert client.request("OPTIONS", url, headers={"origin": "http://evil.com"}).status_code == 403
    for path in ("/", "/api/options", f"/api/runs/{made['runs'][0]['id']}/code", "/nothing"):
        assert_headers(client.get(path, headers={"origin": "http://evil.com"}))
    assert lab.experiment(made["id"]).status == "ready"


def test_rule_6_large_bodies_are_rejected(client):
    def chunks():
        for _ in range(20):
            yield bytes(MAX_BODY // 10)

    for content in (bytes(1_000_000), chunks()):
        response = client.post("/api/experiments", content=content)
        assert response.status_code == 413
        assert_headers(response)
    lying = client.post("/api/experiments", content=b"{}", headers={"content-length": "99999999999"})
    assert lying.status_code == 413


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"x"',
    b"\xff\xfe",
    b"[" * 60_000,
    b'{"runs": ' + b"[" * 60_000,
    b'{"runs": 3}',
    b'{"runs": []}',
    b'{"runs": [1]}',
    b'{"runs": [{}, {}, {}]}',
    b'{"runs": [{"lr": NaN}]}',
    b'{"runs": [{"lr": 1e999}]}',
    b'{"runs": [{"lr": 1' + b"0" * 5000 + b"}]}",
    b'{"runs": [{"epochs": 1.5}]}',  # test_settings.py has the invalid settings
    b'{"runs": [{"data": "own"}]}',
    b'{"runs": [{"\\ud800": 1}]}',
    b'{"runs": [{"data": "\\ud800"}]}',
    b'{"runs": [{"data": "moons", "n_train": 60}], "replaces": 7}',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_rule_7_invalid_experiments_are_rejected_with_one_sentence(client, body):
    response = client.post("/api/experiments", content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error
    assert "\n" not in error
    assert "Traceback" not in error


def random_value(rng, depth=0):
    """A JSON value of any kind."""
    kind = int(rng.integers(0, 9 if depth < 3 else 7))
    words = ("mnist", "moons", "start", "lr", "", "sgd", "é\u0000", "x" * 300, "a1b2-0", "quick")
    if kind == 7:
        return [random_value(rng, depth + 1) for _ in range(rng.integers(0, 4))]
    if kind == 8:
        names = ("runs", "data", "lr", "hidden", "action", "value", "run", "recipe", "epochs", "zzz")
        return {str(rng.choice(names)): random_value(rng, depth + 1) for _ in range(rng.integers(0, 4))}
    return [None, True, int(rng.integers(-5, 9)), 10**300, float(rng.normal()), 1e308, str(rng.choice(words))][kind]


def test_rule_7_random_json_never_gives_an_error_of_the_server(client, create):
    rng, made = np.random.default_rng(0), create()
    bodies = [random_value(rng) for _ in range(60)]
    for body in bodies:
        runs = {"runs": [body if isinstance(body, dict) else {"lr": body}]}
        for path, content in (
            ("/api/experiments", runs),
            ("/api/experiments", body),
            (f"/api/experiments/{made['id']}/command", {"action": "lr", "value": body}),
            (f"/api/experiments/{made['id']}/command", body),
        ):
            response = client.post(path, content=json.dumps(content))
            assert response.status_code in (200, 400, 404, 409), (path, content, response.text)
            assert response.status_code == 200 or set(response.json()) == {"error"}


@pytest.mark.parametrize(
    "path",
    [
        "weights",
        "weights?layer=-1",
        "weights?layer=x",
        "weights?layer=9999999999999999999",
        "weights?layer=²",
        "weights?layer=0&epoch=1e3",
        "confusion?epoch=%00",
        "images?step=-1",
        "images?true=10",
        "images?limit=1000000",
        "activations",
        "activations?index=100000",
        "boundary",
        "points",
    ],
)
def test_rule_7_invalid_questions_are_rejected_with_one_sentence(client, create, path):
    response = client.get(f"/api/runs/{create(DIGITS)['runs'][0]['id']}/{path}")
    assert response.status_code == 400
    assert "\n" not in response.json()["error"]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *[("predict", ""), ("predict", "width=0&height=1&channels=1"), ("predict", "width=9999&height=1&channels=1")],
        *[("predict", "width=5&height=5&channels=2"), ("flip", "")],
    ],
)
def test_rule_7_invalid_drawings_are_rejected(client, create, name, size):
    run = create(DIGITS)["runs"][0]["id"]
    assert client.post(f"/api/runs/{run}/{name}?{size}", content=bytes(50)).status_code == 400


def test_rule_7_two_pixels_are_no_drawing(client, create):
    run = create(DIGITS)["runs"][0]["id"]
    assert client.post(f"/api/runs/{run}/predict?width=2&height=1&channels=1", content=bytes(2)).status_code == 400


def test_rule_8_unknown_ids_are_not_found(client, create):
    made = create()
    for path in (
        "/api/experiments/00000000",
        "/api/experiments/..%2f..%2fetc",
        "/api/runs/00000000-0/code",
        f"/api/runs/{made['id']}-1/code",
        f"/api/runs/{made['id']}/code",
        "/api/nothing",
    ):
        response = client.get(path)
        assert response.status_code == 404, path
        assert set(response.json()) == {"error"}


def test_rule_8_no_source_of_the_lab_reads_pickles_or_evaluates_code():
    package = Path(security.__file__).parent
    for path in package.glob("*.py"):
        assert not re.search(r"pickle|\beval\(|\bexec\(|np\.load\(", path.read_text()), path.name


def test_rule_9_and_10_all_answers_have_the_headers(client, create):
    run = create()["runs"][0]["id"]
    for response in (
        client.get("/"),
        client.get("/static/nothing.js"),
        client.get("/api/options"),
        client.get(f"/api/runs/{run}/weights?layer=0"),
        client.get(f"/api/runs/{run}/code"),
        client.get(f"/api/runs/{run}/weights"),
        client.delete("/api/options"),
    ):
        assert_headers(response)


@pytest.fixture
def static(tmp_path, monkeypatch):
    """A built page."""
    (tmp_path / "static").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("index.html", "lab.js", "lab.css"):
        (tmp_path / "static" / name).write_text(name)
    monkeypatch.setattr("handgrad.lab.server.STATIC", tmp_path / "static")
    return tmp_path / "static"


def test_rule_11_only_files_of_the_page_are_served(client, static, running):
    assert client.get("/").text == "index.html"
    assert client.get("/static/lab.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/static/lab.css").headers["content-type"].startswith("text/css")
    with running(Lab()) as served:  # a client would shorten the paths
        for path in (
            "/static/../secret.txt",
            "/static/..%2fsecret.txt",
            "/static/%2e%2e/secret.txt",
            "/static/..",
            "/static/",
        ):
            with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda connection=connection: connection.recv(65536), b""))
            assert b" 404 " in answer.split(b"\r\n")[0], path
            assert b"secret" not in answer.split(b"\r\n\r\n")[1]


def test_page_that_is_not_built_says_what_to_run(client, tmp_path, monkeypatch):
    monkeypatch.setattr("handgrad.lab.server.STATIC", tmp_path / "nothing")
    response = client.get("/")
    assert response.status_code == 503
    assert "make lab" in response.text


def test_rule_14_error_of_the_server_is_short(lab, monkeypatch):
    monkeypatch.setattr(Lab, "experiment", lambda self, name: 1 / 0)
    client = TestClient(make_app(lab), base_url=ADDRESS, raise_server_exceptions=False)
    response = client.get("/api/experiments/x")
    assert response.status_code == 500
    assert response.json() == {"error": "the server failed: the terminal shows the reason"}
    assert_headers(response)


def test_too_many_requests_wait_and_then_are_rejected(lab, monkeypatch):
    monkeypatch.setattr(security, "BURST", 5.0)
    monkeypatch.setattr(security, "RATE", 0.001)
    with TestClient(make_app(lab), base_url=ADDRESS) as client:
        statuses = [client.get("/nothing").status_code for _ in range(10)]
    assert statuses == [404] * 5 + [429] * 5


def test_burst_is_answered_at_once_and_what_follows_is_delayed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: now[0])
    guard = Guard(lambda scope, receive, send: None)
    delays = [guard._delay() for _ in range(int(security.BURST) + 100)]
    waiting = [delay for delay in delays if delay is not None and delay > 1e-9]
    assert len(waiting) == pytest.approx(security.RATE * security.MAX_DELAY, abs=1)
    assert delays[-1] is None
    now[0] += 10
    assert guard._delay() <= 0


def test_answers_get_a_small_share_of_the_time_while_a_run_is_trained(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: now[0])
    budget = security.Budget()
    assert budget.delay() == 0
    budget.spend(security.WORK_BURST)
    assert budget.delay() == 0
    budget.spend(0.1)
    assert budget.delay() == pytest.approx(0.1 / security.WORK_SHARE)
    now[0] += 0.2 / security.WORK_SHARE
    assert budget.delay() == 0
    now[0] += 10_000
    budget.delay()
    budget.spend(security.WORK_BURST + 0.1)  # an idle time does not add up
    assert budget.delay() > 0


def test_expensive_answers_are_refused_while_a_run_is_trained_and_commands_are_not(
    client, create, finish, lab, monkeypatch
):
    monkeypatch.setattr(security, "WORK_SHARE", 1e-9)
    monkeypatch.setattr(security, "REFUSAL", 0)
    monkeypatch.setattr(security.Budget, "spend", lambda self, seconds: setattr(self, "_left", self._left - 0.3))
    made = create({**DIGITS, "epochs": 1000})
    url = f"/api/experiments/{made['id']}"
    assert client.post(f"{url}/command", json={"action": "start"}).status_code == 200
    statuses = [client.get(url).status_code for _ in range(8)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    finish(made, "pause")
    assert client.get(url).status_code == 200


# ---- Process ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def process(tmp_path):
    """A function that starts `handgrad lab`: (process, address)."""
    started = []

    def start(*arguments: str) -> tuple[subprocess.Popen, str, list[str]]:
        environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "handgrad", "lab", "--no-browser", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(done)
        lines = []
        while not lines or "http://" not in lines[-1]:
            lines.append(done.stdout.readline())
            assert lines[-1], done.stderr.read()
        return done, re.search(r"http://\S+", lines[-1])[0], lines

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()
        one.stderr.close()


def post(port: int, path: str, value: object) -> dict:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, json.dumps(value))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_process_with_an_open_stream_and_a_running_experiment(process, number):
    done, address, _ = process("--port", "0")
    port = int(address.rstrip("/").rpartition(":")[2])
    made = post(port, "/api/experiments", {"runs": [{**DIGITS, "epochs": 1000}]})
    stream = Stream(port, f"/api/experiments/{made['id']}/events")
    assert post(port, f"/api/experiments/{made['id']}/command", {"action": "start"})["status"] == "running"
    stream.events(2)
    done.send_signal(number)
    code = done.wait(60)  # 0.3 s on an idle machine; without an end of the streams, the server waits for them
    stream.close()
    assert (code, done.stderr.read()) == (0, "")


def test_port_in_use_is_named_and_another_one_is_taken(process):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, address, lines = process("--port", str(port))
    assert f"port {port} is in use" in "".join(lines)
    assert not address.endswith(f":{port}/")


def test_killed_server_starts_again_on_the_same_port(process):
    done, address, _ = process("--port", "0")
    port = int(address.rstrip("/").rpartition(":")[2])
    made = post(port, "/api/experiments", {"runs": [POINTS]})
    path = f"/api/experiments/{made['id']}/events"
    stream = Stream(port, path)
    done.kill()
    done.wait(60)
    stream.close()
    _, again, _ = process("--port", str(port))
    assert again == address
    stale = Stream(port, path, f"{made['id']}:3")
    assert stale.status == 404
    stale.close()


def test_missing_mnist_is_said_in_the_terminal(no_mnist, monkeypatch):
    monkeypatch.setattr(Server, "run", lambda self, sockets: None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    lines: list[str] = []
    serve(0, browser=False, show=lines.append)
    assert [line for line in lines if "handgrad data fetch" in line] == lines[:1]
    lines.clear()
    serve(0, own="synthetic", browser=False, show=lines.append)
    assert "handgrad data fetch" not in "".join(lines)


def test_missing_extra_is_one_line(tmp_path):
    program = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['handgrad', 'lab', '--no-browser']; "
        "from handgrad.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "handgrad: 'uvicorn' is not installed: run pip install 'handgrad[lab]'\n"


def test_missing_data_set_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "handgrad", "lab", "--no-browser", "--data", str(tmp_path / "nothing")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("handgrad: there is no data set")
    assert done.stderr.count("\n") == 1
