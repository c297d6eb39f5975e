"""The local engine: run a function over tasks in processes of our own, and nothing else.

Workers are started as `python -m curate.worker` (never forked: polars and threads do not survive a fork; never by
multiprocessing's spawn: a user's script without a main guard must work). Messages are length-prefixed pickles over
the worker's standard input and output.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO

from curate.errors import InternalError, OutOfMemoryError, StageError, told

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
        self.overran = False  # it was ended because its task took too long
        environment = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "ARROW_IO_THREADS"):
            environment.setdefault(name, "1")  # one thread per process: the processes are the parallelism
        environment["PYTHONPATH"] = os.pathsep.join(_added_paths())
        environment["CURATE_PARENT"] = str(os.getpid())
        # Ctrl-C reaches every process of the terminal: a worker that still starts up would die of it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "curate.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def call(self, function: str, task: Any, limit: float | None = None) -> tuple[str, Any, int]:
        """What the task comes to; where that takes more than `limit` seconds, the worker is killed, and EOFError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        first = threading.Lock()  # the answer or the end of the time, whichever comes first, takes it

        def end() -> None:
            if first.acquire(blocking=False):
                self.overran = True
                self.process.kill()

        timer = None if limit is None else threading.Timer(limit, end)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            send(self.process.stdin, (function, task))  # type: ignore[arg-type]
            answer = receive(self.process.stdout)  # type: ignore[arg-type]
        finally:
            if timer is not None:
                timer.cancel()
        if not first.acquire(blocking=False):
            raise EOFError
        return answer  # type: ignore[no-any-return]

    def stop(self, patience: float = 0.0) -> int:
        """End the process; return its exit code, or minus the signal that it died of, within `patience` seconds by itself."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # it died with a message half sent
        if patience:
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout=patience)
        self.process.kill()
        return self.process.wait()


#: What to do about a task that ended two workers.
TWICE = "no memory left, or a crash in native code: use fewer --workers or a machine with more memory; where it stays, leave the file out and report it"


def described(task: Any) -> str:
    """What to call a task in an error."""
    return str(task.described()) if hasattr(task, "described") else f"a task of {type(task).__name__}"


class LocalEngine:
    """Runs tasks on this machine, in `workers` processes; with one worker, in this process.

    `task_timeout`: seconds after which a task's worker is killed. All tasks then run in processes, which can be.
    """

    def __init__(self, workers: int, task_timeout: float | None = None) -> None:
        self.workers = workers
        self.task_timeout = task_timeout
        self._idle: list[_Worker] = []
        self._alive: set[_Worker] = set()
        self._lock = threading.Lock()
        #: resident memory that the largest worker has had; 0 while all was done in this process
        self.peak_bytes = 0

    def warm(self, tasks: int) -> None:
        """Start the processes that `tasks` tasks will need, so that they import while the caller plans."""
        if self.workers > 1 or self.task_timeout is not None:
            while len(self._idle) < min(self.workers, tasks):
                self._idle.append(self._start(len(self._idle)))

    def map(self, function: str, tasks: Sequence[Any], done: Callable[[Any], None] | None = None) -> list[Any]:
        """Call `function` (`module:name`) on every task; results in the order of the tasks.

        `done` hears of each result as it comes, in the caller's thread. The first error stops the rest and is raised.
        A worker that dies, runs out of memory or takes too long is replaced once per task; a task that ends two workers
        is reported by its description.
        """
        if (self.workers <= 1 or len(tasks) <= 1) and self.task_timeout is None:
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
            with self._lock:
                for worker in self._alive:
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
                    status, value, peak = worker.call(function, tasks[index], self.task_timeout)
                except (EOFError, OSError):
                    code = self._end(worker, patience=5.0)
                    if attempt == 2:
                        finished.put((index, "error", self._twice(tasks[index], worker, code)))
                        return
                except Exception as error:
                    self._end(worker)
                    finished.put((index, "error", InternalError(f"{described(tasks[index])}: a message could not be sent or understood: {type(error).__name__}: {error}")))
                    return
                else:
                    if attempt == 2 or not isinstance(value, OutOfMemoryError):
                        self.peak_bytes = max(self.peak_bytes, peak)
                        finished.put((index, status, value))
                        break
                    self._end(worker)  # a fresh one has what this one's heap no longer gave
                try:
                    worker, ours = self._start(worker.number), True
                except Exception as error:  # no process or no memory left: whoever waits for the result must hear of it
                    finished.put((index, "error", told(error, "could not start a worker")))
                    return
                if stop.is_set():  # whoever set it may have looked for workers to kill before this one was there
                    break
        if stop.is_set() or ours:
            self._end(worker)
        else:
            self._idle.append(worker)

    def _twice(self, task: Any, worker: _Worker, code: str) -> StageError | InternalError:
        """The error for a task that two workers did not come through; `worker` was the second."""
        if worker.overran:
            return StageError(
                f"{described(task)}: two workers were ended, the last after {self.task_timeout:g} s at it, the limit of --task-timeout; "
                "its file may lie on a disk that does not answer, or hold a text that a stage takes very long for: "
                "leave the file out, or allow more seconds, and run the same command again: what is done is kept"
            )
        return InternalError(f"{described(task)} killed its worker twice ({code}); {TWICE}")

    def _start(self, number: int) -> _Worker:
        worker = _Worker(number)
        with self._lock:
            self._alive.add(worker)
        return worker

    def _end(self, worker: _Worker, patience: float = 0.0) -> str:
        """End a worker, dead or alive; return what it died of."""
        code = worker.stop(patience)
        with self._lock:
            self._alive.discard(worker)
        return f"signal {-code}" if code < 0 else f"exit {code}"

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._idle:
            self._end(worker)
        self._idle = []

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
