"""The errors a user can meet, named by consequence; each carries its exit code.

Messages say what was expected, what came, where (file, row, recipe path) and how to fix it.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CurateError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1


class ConfigError(CurateError):
    """The recipe, or the words of the call, are wrong. Nothing was read or written."""

    exit_code = 2


class DataError(CurateError):
    """The data are bad; the message names the file and the row."""

    exit_code = 3


class StageError(CurateError):
    """A stage failed; the message names the stage, and the cause is chained."""

    exit_code = 1


class InternalError(CurateError):
    """A promise of this program was broken (rows do not balance, a worker died twice)."""

    exit_code = 1


class MachineError(CurateError):
    """The machine could not: a full disk, a folder that may not be written, a fault of the disk, no memory left.

    Nothing is wrong with recipe or data, and nothing is half-written: the same command goes on when the machine can.
    """

    exit_code = 74  # EX_IOERR of sysexits.h


class OutOfMemoryError(MachineError):
    """Memory ran out. A worker that says so is ended, and its task tried once more in a fresh one."""


class RunHeldError(CurateError):
    """Another process holds the run folder; the same command may succeed later."""

    exit_code = 75


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of a block: in the middle of DuckDB's import they end the process in C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda number, _: waiting.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if waiting:
            signal.raise_signal(waiting[0])


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C as DuckDB tells it: it swallows the KeyboardInterrupt and raises a RuntimeError."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, RuntimeError) and "Query interrupted" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


AGAIN = "then run the same command again: what is done is kept"
_DISK = f"free space there, {AGAIN}"
_WRITABLE = f"give this user the right to it, or name another folder with --run or --store, {AGAIN}"
_FAULT = f"the disk or the network under it reports a fault: see the system's log, {AGAIN}"
_FILES = f"raise the limit (ulimit -n), {AGAIN}"
#: What the system says that a user can mend, and how.
REMEDIES = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: f"the quota of this user is used up: free space or have it raised, {AGAIN}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f), {AGAIN}",
    errno.EROFS: f"mount it writable, or name another folder with --run or --store, {AGAIN}",
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.EIO: _FAULT,
    errno.ESTALE: _FAULT,
    errno.ETIMEDOUT: _FAULT,
    errno.ENXIO: _FAULT,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: f"a limit of processes or threads is reached: raise it (ulimit -u), or use fewer --workers, {AGAIN}",
}
_MEMORY = f"use fewer --workers, or a machine with more, {AGAIN}"
#: Memory that ran out, in the words of those who do not raise MemoryError.
_NO_MEMORY = ("bad_alloc", "can't start new thread", "failed to map segment", "annot allocate memory", "Out of Memory Error")
#: DuckDB's words where the disk that it spills to is full.
_NO_SPILL = ("max_temp_directory_size", "failed to offload data block")


def machine_error(error: BaseException, doing: str) -> MachineError | None:
    """What a user is told of an error that is the machine's, `doing` being what failed; None for any other error.

    Arrow and DuckDB keep the system's number or words inside theirs, so those are looked for as well.
    """
    said = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and str(error.filename) not in doing:
        doing = f"{doing}, at {error.filename}"
    number = system_number(error)
    if number in REMEDIES:
        return MachineError(f"{doing}: {os.strerror(number)}; {REMEDIES[number]}")
    if any(words in said for words in _NO_SPILL):
        return MachineError(f"{doing}: {os.strerror(errno.ENOSPC)} for what DuckDB spills; {_DISK}")
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in said for words in _NO_MEMORY):
        return OutOfMemoryError(f"{doing}: memory ran out ({said.splitlines()[0]}); {_MEMORY}")
    return None


@contextmanager
def plainly(doing: str) -> Iterator[None]:
    """Turn what other libraries raise in a block into what a user is told: an interruption, or the machine's fault."""
    try:
        yield
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if not isinstance(error, CurateError) and (short := machine_error(error, doing)):
            raise short from error
        raise


def system_number(error: BaseException) -> int:
    """The system's number for an error, 0 where there is none."""
    said = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, OSError) and (inside := re.search(r"\[errno (\d+)\]", said)):
        return int(inside.group(1))
    if type(error).__module__.split(".")[0] in ("duckdb", "_duckdb"):
        return next((number for number in REMEDIES if os.strerror(number) in said), 0)
    return 0


def told(error: Exception, doing: str, unforeseen: type[CurateError] = InternalError) -> CurateError:
    """Any error as one that is reported without a traceback; one that nobody foresaw says where it was raised."""
    if isinstance(error, CurateError):
        return error
    found = machine_error(error, doing)
    if found is not None:
        return found
    if isinstance(error, OSError):
        return MachineError(f"{doing}: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}; put it right, {AGAIN}")
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return unforeseen(f"{doing}: {type(error).__name__}: {error}{where}; a defect of curate or of a stage, CURATE_TRACEBACK=1 shows all of it")
