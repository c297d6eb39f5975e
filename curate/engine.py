"""The local engine: run a function over tasks in processes of our own, and nothing else.

Workers are started as `python -m curate.worker` (never forked: polars and threads do not survive a fork; never by
multiprocessing's spawn: a user's script without a main guard must work). Messages are length-prefixed pickles over
the worker's standard input and output.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, BinaryIO

from curate.errors import InternalError

_LENGTH = struct.Struct("<Q")


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message."""
    body = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message; EOFError where the other side is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return pickle.loads(body)


def resolve(function: str) -> Callable[[Any], Any]:
    """`module:name` to the function itself."""
    module, _, name = function.partition(":")
    found = getattr(import_module(module), name)
    if not callable(found):
        raise InternalError(f"{function} is not a function")
    return found  # type: ignore[no-any-return]


def available_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _added_paths() -> list[str]:
    """What was added to the import path by hand: a worker must find the modules that its parent found."""
    own = (sys.prefix, sys.base_prefix)
    return [path for path in sys.path if path and not path.startswith(own)]


class _Worker:
    def __init__(self, number: int) -> None:
        self.number = number
        environment = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "ARROW_IO_THREADS"):
            environment.setdefault(name, "1")  # one thread per process: the processes are the parallelism
        environment["PYTHONPATH"] = os.pathsep.join(_added_paths())
        environment["CURATE_PARENT"] = str(os.getpid())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "curate.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def call(self, function: str, task: Any) -> tuple[str, Any, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        send(self.process.stdin, (function, task))  # type: ignore[arg-type]
        return receive(self.process.stdout)  # type: ignore[arg-type, no-any-return]

    def stop(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # it died with a message half sent
        self.process.kill()
        self.process.wait()


class LocalEngine:
    """Runs tasks on this machine, in `workers` processes; with one worker, in this process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle: list[_Worker] = []
        self._started = 0
        #: resident memory that the largest worker has had; 0 while all was done in this process
        self.peak_bytes = 0

    def warm(self, tasks: int) -> None:
        """Start the processes that `tasks` tasks will need, so that they import while the caller plans."""
        if self.workers > 1:
            while self._started < min(self.workers, tasks):
                self._idle.append(_Worker(self._started))
                self._started += 1

    def map(self, function: str, tasks: Sequence[Any], done: Callable[[Any], None] | None = None) -> list[Any]:
        """Call `function` (`module:name`) on every task; results in the order of the tasks.

        `done` hears of each result as it comes, in the caller's thread. The first error stops the rest and is raised.
        A worker that dies is replaced once per task; a task that kills two workers is reported by its description.
        """
        if self.workers <= 1 or len(tasks) <= 1:
            results = []
            call = resolve(function)
            for task in tasks:
                results.append(call(task))
                if done:
                    done(results[-1])
            return results
        return self._map_in_processes(function, tasks, done)

    def _map_in_processes(self, function: str, tasks: Sequence[Any], done: Callable[[Any], None] | None) -> list[Any]:
        self.warm(len(tasks))
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(tasks)):
            waiting.put(index)
        finished: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        stop = threading.Event()
        workers = self._idle[: min(self.workers, len(tasks))]
        self._idle = self._idle[len(workers) :]
        threads = [
            threading.Thread(target=self._drive, args=(worker, function, tasks, waiting, finished, stop), daemon=True)
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        results: list[Any] = [None] * len(tasks)
        try:
            for _ in tasks:
                index, status, value = finished.get()
                if status == "error":
                    raise value
                results[index] = value
                if done:
                    done(value)
        except BaseException:
            stop.set()
            for worker in workers:
                worker.process.kill()
            raise
        finally:
            for thread in threads:
                thread.join()
        return results

    def _drive(
        self,
        worker: _Worker,
        function: str,
        tasks: Sequence[Any],
        waiting: queue.SimpleQueue[int],
        finished: queue.SimpleQueue[tuple[int, str, Any]],
        stop: threading.Event,
    ) -> None:
        """Feed one worker until no task waits; put it back among the idle, unless it died.

        A worker asks the system to die with the thread that started it, so one started here ends here.
        """
        ours = False
        while not stop.is_set():
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                break
            for attempt in (1, 2):
                try:
                    status, value, peak = worker.call(function, tasks[index])
                except (EOFError, OSError):
                    code = worker.process.wait()
                    worker.stop()
                    if stop.is_set():
                        return
                    worker, ours = _Worker(worker.number), True
                    if attempt == 2:
                        what = getattr(tasks[index], "described", lambda: f"task {index}")()
                        error = InternalError(f"{what} killed its worker twice (exit {code}); no memory left, or a crash in native code")
                        finished.put((index, "error", error))
                        worker.stop()
                        return
                    continue
                self.peak_bytes = max(self.peak_bytes, peak)
                finished.put((index, status, value))
                break
        if stop.is_set() or ours:
            worker.stop()
        else:
            self._idle.append(worker)

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._idle:
            worker.stop()
        self._idle = []
        self._started = 0

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_order(items: Sequence[Any], sizes: Sequence[int], limit: int) -> Iterator[list[Any]]:
    """Group consecutive items so that a group's sizes add up to about `limit`: a thousand small parts share tasks."""
    group: list[Any] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group
