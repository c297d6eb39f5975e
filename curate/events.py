"""What a run has to say while it works. The library prints nothing: whoever calls it may listen.

Events go to `events.jsonl` in the run folder and to the listener; nothing of them enters published bytes.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

#: No event is longer.
MOST_LINE_BYTES = 1 << 20
Listener = Callable[[dict[str, Any]], None]


class Phase:
    """A stretch of work with a size, in bytes of text."""

    def __init__(self, events: Events, name: str, total: int) -> None:
        self._events, self.name, self.total = events, name, total
        self.documents = self.bytes = 0

    def advance(self, documents: int, size: int) -> None:
        """Say that some documents, and this much of `total`, are done."""
        self.documents += documents
        self.bytes += size
        self._events.emit(
            "progress",
            keep=False,
            phase=self.name,
            documents=self.documents,
            bytes=self.bytes,
            total=self.total,
        )


def _mend(file: Path) -> None:
    """Cut off the half line that a killed run, or a full disk, left at the end: the next must not be glued to it."""
    if not file.exists():
        return
    from curate.store import writing

    with writing(file), open(file, "r+b") as lines:
        start = max(0, lines.seek(0, os.SEEK_END) - MOST_LINE_BYTES)
        lines.seek(start)
        tail = lines.read()
        if not tail.endswith(b"\n"):
            lines.truncate(start + tail.rfind(b"\n") + 1)


class Events:
    """Where events go."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listeners = [listener] if listener else []
        self._file: Path | None = None
        self._early: list[bytes] = []

    def open(self, file: Path) -> None:
        """Append to this file from now on, what was said before included."""
        self._file = file
        early, self._early = self._early, []
        _mend(file)
        self._append(b"".join(early))

    def emit(self, event: str, *, keep: bool = True, **values: Any) -> None:
        """Say that something happened; `keep` writes it down too."""
        record = {"time": round(time.time(), 3), "event": event, **values}
        if keep:
            self._append(msgspec.json.encode(record) + b"\n")
        for listener in self._listeners:
            listener(record)

    @contextmanager
    def also(self, listener: Listener) -> Iterator[None]:
        """Let one more hear what happens during a block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _append(self, line: bytes) -> None:
        if self._file is None:
            self._early.append(line)
            return
        from curate.store import writing  # loads the table libraries, which `curate status` does without

        with writing(self._file), open(self._file, "ab") as file:
            file.write(line)

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[Phase]:
        """Time a stretch of work; memory is the peak of this process and of the largest worker that has ended."""
        started = time.perf_counter()
        phase = Phase(self, name, total)
        phase.advance(0, 0)
        yield phase
        self.emit(
            "phase", phase=name, seconds=round(time.perf_counter() - started, 4), documents=phase.documents, bytes=phase.bytes,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )  # fmt: skip
