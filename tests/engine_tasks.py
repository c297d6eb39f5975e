"""What the engine's tests let workers do."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import DataError


@dataclass(frozen=True)
class Task:
    """A number and what to do with it."""

    number: int
    what: str
    folder: Path

    def described(self) -> str:
        return f"task {self.number}"


class Unreadable:
    """Travels as a call that fails."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (int, ("no number",))


def echo(task: Any) -> Any:
    return task


def work(task: Task) -> Any:
    n = task.number
    if task.what == "who":
        return os.getpid()
    if task.what == "bad data":
        raise DataError("expected a text, got none: pool.jsonl, row 3")
    if task.what == "divide by zero":
        return n // 0
    if task.what == "die once" and not (task.folder / f"died-{n}").exists():
        (task.folder / f"died-{n}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task.what == "hang once" and not (task.folder / f"hung-{n}").exists():
        (task.folder / f"hung-{n}").touch()
        signal.pause()
    if task.what == "hang":
        signal.pause()
    if task.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.what == "leave":
        os._exit(9)
    if task.what == "answer with a lambda":
        return lambda: n
    if task.what == "answer what cannot be read":
        return Unreadable()
    if task.what == "print":
        print("a stage says something")
        os.write(1, b"and again, past Python\n")
        return n
    if task.what == "read standard input":
        return sys.stdin.read()
    if task.what == "surroundings":
        return os.environ["OMP_NUM_THREADS"], signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    if task.what == "kill the parent":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    return n * n
