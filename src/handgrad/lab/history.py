"""History of an experiment: a list of events that is sent to the page, and from which a page can continue."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from ..io.atomic import encode_json

MAX_POINTS = 4000  # points that are kept; ten minutes at ten points a second are 6,000
MAX_OTHERS = 2500  # other events: two for each epoch of two runs, and changes of the status


class Entry(NamedTuple):
    """An event: its position in the history, its type, the number of the point, and the JSON."""

    position: int
    kind: str
    number: int
    text: str


class History:
    """An append-only list of events. A long list is thinned evenly, so that a curve keeps its shape."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._next = 0
        self._stride = 1  # of the points that are kept when the list is thinned

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, event: dict[str, Any], number: int = 0) -> None:
        """Append an event. `number` counts the points of a run; those of several runs with the same number are kept
        together. NaN and infinity become null.
        """
        text = encode_json(event)
        with self._lock:
            self._entries.append(Entry(self._next, event["type"], number, text))
            self._next += 1
            if len(self._entries) > MAX_POINTS + MAX_OTHERS:
                self._thin()

    def _thin(self) -> None:
        others = [entry for entry in self._entries if entry.kind != "point"][-MAX_OTHERS:]
        points = [entry for entry in self._entries if entry.kind == "point" and entry.number % self._stride == 0]
        while len(points) > MAX_POINTS // 2:
            self._stride *= 2
            points = [entry for entry in points if entry.number % self._stride == 0]
        self._entries = sorted(points + others)

    def clear(self) -> None:
        """Remove all events. Positions continue."""
        with self._lock:
            self._entries, self._stride = [], 1

    def since(self, position: int) -> list[Entry]:
        """Return the events from this position on. Positions of events that were removed are missing."""
        with self._lock:
            if position >= self._next:
                return []
            if not self._entries or position <= self._entries[0].position:
                return list(self._entries)
            low, high = 0, len(self._entries)
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if self._entries[middle].position < position else (low, middle)
            return self._entries[low:]
