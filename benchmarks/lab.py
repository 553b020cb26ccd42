"""The lab: what an open page, and a flood of requests, cost a training.

    python -m benchmarks.lab [--rounds 12] [--minutes 1]
    python -m benchmarks.lab --quick      short windows, without writing anything

trainer    steps per second in `handgrad lab` without a page, relative to `Trainer.fit` in a process of its own
page       steps per second with an open page, relative to the same run without it: the stream of events, the weights
           three times a second, and the confusion matrix every second
drawing    the same while somebody draws on the page: the drawing is read five times a second
flood      steps per second while 200 connections send 500 requests a second, relative to the same run without them;
           the largest growth of the memory of the server, and how many requests were answered or rejected

The run is that of the blog post: 784-30-10, SGD with batch size 10, on 50,000 synthetic digits. Windows with and
without alternate; the result is the median of the ratios of neighbouring windows, and the processor time of the threads
that answer, as a share of the time, which depends less on other programs. Writes lab.json and lab.md to
benchmarks/results.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from .tables import RESULTS, about, machine, save, save_json, table

SETTINGS = {"data": "synthetic", "n_train": 50_000, "epochs": 1000}
FLOOD, CONNECTIONS = 500, 200  # requests per second
ALONE = """
import sys, time
from handgrad import SGD, Callback, Network, Trainer
from handgrad.data.synthetic import synthetic_digits

x, y, x_validation, y_validation = synthetic_digits(50_000, 10_000)
network = Network([784, 30, 10], rng=0)
trainer = Trainer(network, SGD(0.5), batch_size=10, rng=0)
while True:
    line = sys.stdin.readline()
    if not line:
        break
    begin, epochs = time.perf_counter(), 0
    while time.perf_counter() - begin < float(line):
        trainer.fit(x, y, 1, validation=(x_validation, y_validation), progress=False)
        epochs += 1
    print(epochs * trainer.batches / (time.perf_counter() - begin), flush=True)
"""


class Server:
    """A `handgrad lab` with one running experiment."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "handgrad", "lab", "--no-browser", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = ""
        while "http://" not in line:
            line = self.process.stdout.readline()
        found = re.search(r":(\d+)/", line)
        assert found is not None
        self.port, self.share = int(found[1]), 0.0
        made = self.post("/api/experiments", {"runs": [SETTINGS]})
        self.id, self.run = made["id"], made["runs"][0]["id"]
        self.point = 0.0, 0
        threading.Thread(target=self.watch, daemon=True).start()
        self.command("start")

    def request(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON answer to a request."""
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return json.loads(content) if "json" in answer.headers["content-type"] else content

    def post(self, path: str, value: Any) -> Any:
        """The JSON answer to a POST of a JSON value."""
        return self.request("POST", path, json.dumps(value).encode())

    def command(self, action: str) -> None:
        """Start or pause the run."""
        self.post(f"/api/experiments/{self.id}/command", {"action": action})

    def watch(self) -> None:
        """Note the time and the number of steps of each point of the stream of events."""
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", f"/api/experiments/{self.id}/events")
        answer = connection.getresponse()
        for line in answer:
            if line.startswith(b'data: {"type": "point"'):
                self.point = time.perf_counter(), json.loads(line[6:])["step"]

    def steps(self) -> tuple[float, int]:
        """The time and the number of steps of the next point, at most 0.1 s from now."""
        last = self.point
        while self.point == last:
            time.sleep(0.001)
        return self.point

    def rate(self, seconds: float) -> float:
        """Steps per second in the next seconds. `self.share` is then the processor time of the other threads."""
        before = self.threads()
        begin, first = self.steps()
        time.sleep(seconds)
        end, last = self.steps()
        used = sorted(value - before.get(name, 0.0) for name, value in self.threads().items())
        self.share = sum(used[:-1]) / (end - begin)  # the thread that trains uses most
        return (last - first) / (end - begin)

    def threads(self) -> dict[str, float]:
        """Seconds of processor time of each thread so far."""
        times, tick = {}, os.sysconf("SC_CLK_TCK")
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
                times[thread.name] = (int(fields[11]) + int(fields[12])) / tick
        return times

    def memory(self) -> float:
        """Resident memory in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        return int(found[1]) / 1000 if found else float("nan")

    def end(self) -> None:
        """End the process as Ctrl-C does."""
        self.process.send_signal(2)
        self.process.wait(20)


def drawing() -> bytes:
    """A drawing of 200x200 grey pixels, a thick 1."""
    image = np.zeros((200, 200), np.uint8)
    image[30:170, 92:108] = 255
    return image.tobytes()


class Client:
    """A connection that is kept open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request, read the complete answer and return its status."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", answer)
        if length:
            await reader.readexactly(int(length[1]))
        return int(answer.split()[1])


async def every(seconds: float, request: Callable[[], Any]) -> None:
    """Send a request again and again."""
    while True:
        begin = time.perf_counter()
        await request()
        await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - begin)))


async def read_events(server: Server) -> None:
    """Read the stream of events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /api/experiments/{server.id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    try:
        while await reader.read(65536):
            pass
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def tasks(*coroutines: Any) -> AsyncIterator[None]:
    """Tasks that are cancelled at the end of the block."""
    started = [asyncio.ensure_future(one) for one in coroutines]
    try:
        yield
    finally:
        for one in started:
            one.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def with_page(server: Server, seconds: float, draw: bool = False) -> float:
    """Steps per second with an open page."""
    weights, pad, mistakes = (Client(server.port) for _ in range(3))
    run = f"/api/runs/{server.run}"
    predict, image = f"{run}/predict?width=200&height=200&channels=1", drawing()
    pen = [every(0.2, lambda: pad.request("POST", predict, image))] if draw else []
    async with tasks(
        read_events(server),
        every(1 / 3, lambda: weights.request("GET", f"{run}/weights?layer=0")),
        every(1.0, lambda: mistakes.request("GET", f"{run}/confusion")),
        *pen,
    ):
        await asyncio.sleep(0.3)
        return await asyncio.to_thread(server.rate, seconds)


async def with_flood(server: Server, seconds: float, statuses: Counter[int]) -> float:
    """Steps per second while 500 requests a second arrive."""
    run = f"/api/runs/{server.run}"
    predict = ("POST", f"{run}/predict?width=200&height=200&channels=1", drawing())
    kinds = [
        ("GET", f"{run}/weights?layer=0", b""),
        ("GET", "/api/options", b""),
        ("GET", f"{run}/confusion", b""),
        predict,
        ("GET", f"/api/experiments/{server.id}", b""),
    ]

    async def send(number: int) -> None:
        client = Client(server.port)
        await asyncio.sleep(number / FLOOD)

        async def one() -> None:
            statuses[await client.request(*kinds[(number + sum(statuses.values())) % len(kinds)])] += 1

        await every(CONNECTIONS / FLOOD, one)

    async with tasks(*(send(number) for number in range(CONNECTIONS))):
        await asyncio.sleep(0.3)
        return await asyncio.to_thread(server.rate, seconds)


def compare_trainer(server: Server, rounds: int, seconds: float) -> list[float]:
    """Ratios of the steps per second in the lab and without it."""
    alone = subprocess.Popen(
        [sys.executable, "-c", ALONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_one_thread()
    )
    assert alone.stdin is not None
    assert alone.stdout is not None
    ratios = []
    for _ in range(rounds):
        server.command("start")
        time.sleep(0.2)
        ours = server.rate(seconds)
        server.command("pause")
        time.sleep(0.2)
        print(seconds, file=alone.stdin, flush=True)
        ratios.append(ours / float(alone.stdout.readline()))
    alone.stdin.close()
    alone.wait()
    server.command("start")
    return ratios


def _one_thread() -> dict[str, str]:

    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def compare(server: Server, rounds: int, seconds: float, other: Callable[[], Any], shares: list[float]) -> list[float]:
    """Ratios of the steps per second with something and without it, in neighbouring windows.

    Appends the processor time of the threads that answer, as a share of the time, to `shares`.
    """
    ratios, before = [], server.rate(seconds)
    for _ in range(rounds):
        during = asyncio.run(other())
        shares.append(server.share)
        after = server.rate(seconds)
        ratios.append(2 * during / (before + after))
        before = after
    return ratios


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=1.0, help="duration of the longest flood")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds, seconds = (3, 1.0) if options.quick else (options.rounds, 2.0)
    long = 5.0 if options.quick else 60 * options.minutes
    server, statuses = Server(), Counter[int]()
    shares: dict[str, list[float]] = {"page": [], "drawing": [], "flood": []}
    try:
        time.sleep(1)
        ratios = {
            "trainer": compare_trainer(server, rounds, seconds),
            "page": compare(server, rounds, seconds, lambda: with_page(server, seconds), shares["page"]),
            "drawing": compare(server, rounds, seconds, lambda: with_page(server, seconds, True), shares["drawing"]),
            "flood": compare(server, rounds, seconds, lambda: with_flood(server, seconds, Counter()), shares["flood"]),
        }
        memory = server.memory()
        without = server.rate(5)
        during = asyncio.run(with_flood(server, long, statuses))
        shares["long flood"] = [server.share]
        growth = server.memory() - memory
        ratios["long flood"] = [2 * during / (without + server.rate(5))]
    finally:
        server.end()
    result = {
        "ratios": ratios,
        "medians": {name: statistics.median(values) for name, values in ratios.items()},
        "processor time of answers, share": {name: statistics.median(values) for name, values in shares.items()},
        "memory growth, MB": growth,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "seconds of the flood": long,
    }
    rows = [
        [
            name,
            f"{statistics.median(values):.2f}",
            f"{min(values):.2f} to {max(values):.2f}",
            f"{statistics.median(shares[name]):.1%}" if name in shares else "",
        ]
        for name, values in ratios.items()
    ]
    text = table(["compared with", "steps per second, relative", "range", "processor time of answers"], rows)
    print(text)
    print({name: value for name, value in result.items() if name not in ("ratios", "medians")})
    if not options.quick:
        about_machine = machine()
        save_json(RESULTS / "lab.json", {"machine": about_machine, **result})
        save(RESULTS / "lab.md", f"{about(about_machine)}\n\n{text}\n")


if __name__ == "__main__":
    main()
