"""What a run is doing, or did last: `RUN/status.json`, which a run renews while it works, read together with its lease.

Reading needs no table library, so `curate status` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from curate.errors import ConfigError
from curate.lease import BEATS, Holder, Lease, Watch, failure, newest, read_holder, stamp

if TYPE_CHECKING:
    from curate.events import Events

NAME = "status.json"
#: Seconds between two writings of a status that moves.
RENEW_SECONDS = 1.0
State = Literal["running", "finished", "failed", "interrupted", "killed", "silent"]


class Status(msgspec.Struct, kw_only=True):
    """What a run says of itself. Times are seconds since 1970 by its own clock; bytes are of text."""

    nonce: str  # of the lease under which it was written
    host: str
    process: int
    state: State = "running"
    recipe: str = ""
    parts: int = 0
    started: float = 0.0
    updated: float = 0.0
    phase: str = ""
    phase_seconds: float = 0.0
    documents: int = 0  # of the phase
    bytes: int = 0  # of the phase
    total_bytes: int = 0  # of the phase; 0 where its size is not known
    read: int | None = None  # documents of a run that finished
    kept: int | None = None
    warnings: int = 0
    removed: int = 0  # files and folders that a repair has taken away since
    error: str = ""
    exit_code: int | None = None


class Teller:
    """Hears a run's events and keeps its status file."""

    def __init__(self, folder: Path, lease: Lease) -> None:
        holder = lease.holder
        self._file, self._staging = folder / NAME, lease.staging
        self._status = Status(nonce=holder.nonce, host=holder.host, process=holder.process, started=holder.since)
        self._phase_at = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._moved = False
        self._thread = threading.Thread(target=self._run, name="curate-status", daemon=True)
        self._thread.start()

    def hear(self, event: dict[str, Any]) -> None:
        """Take in an event."""
        with self._lock:
            status, kind = self._status, event["event"]
            if kind == "started":
                status.recipe, status.parts = event["recipe"], event["parts"]
                self._write()
            elif kind == "progress":
                if event["phase"] != status.phase or event["bytes"] < status.bytes:
                    self._phase_at = time.monotonic()
                status.phase, status.documents = event["phase"], event["documents"]
                status.bytes, status.total_bytes = event["bytes"], event["total"]
                self._moved = True
            elif kind == "warning":
                status.warnings += 1
            elif kind == "finished":
                status.read, status.kept = event["documents"], event["kept"]

    def _write(self) -> None:
        self._status.updated = time.time()
        self._status.phase_seconds = round(time.monotonic() - self._phase_at, 3)
        temporary = self._staging / f"{NAME}.{threading.get_ident()}"
        with contextlib.suppress(OSError):  # what is told of a run must not end it
            temporary.write_bytes(msgspec.json.encode(self._status))
            os.replace(temporary, self._file)

    def _run(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            with self._lock:
                if self._moved:
                    self._moved = False
                    self._write()

    def end(self, error: BaseException | None) -> None:
        """Write how it ended; a run that failed before it wrote anything else leaves no status either."""
        self._stop.set()
        self._thread.join()
        self._status.state, self._status.error, self._status.exit_code = failure(error)
        if error is None or self._file.exists() or (self._file.parent / "recipe.lock.json").exists():
            self._write()


@contextlib.contextmanager
def told(folder: Path, lease: Lease, events: Events) -> Iterator[None]:
    """Keep the status of a run while a block works."""
    teller = Teller(folder, lease)
    try:
        with events.also(teller.hear):
            yield
    except BaseException as error:
        teller.end(error)
        raise
    teller.end(None)


def repaired(folder: Path, removed: int, staging: Path) -> None:
    """Add to a run's status what a repair has removed: what the run left is not all there until it has run again."""
    try:
        status = msgspec.json.decode((folder / NAME).read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return
    status.removed += removed
    with contextlib.suppress(OSError):
        (staging / NAME).write_bytes(msgspec.json.encode(status))
        os.replace(staging / NAME, folder / NAME)


class Report(msgspec.Struct, kw_only=True):
    """A status, judged by who looks: a run whose process is gone was killed, whatever its file says."""

    state: State
    run: str
    recipe: str = ""
    host: str = ""
    process: int = 0
    since: float = 0.0
    updated: float = 0.0
    phase: str = ""
    documents: int = 0
    bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    read: int | None = None
    kept: int | None = None
    warnings: int = 0
    removed: int = 0
    error: str = ""
    exit_code: int | None = None


def look(folder: Path) -> Report:
    """What a run is doing or did last. Of a holder on another machine, a few of its heartbeats are waited for."""
    path = newest(folder)
    holder = read_holder(path) if path else None
    try:
        status = msgspec.json.decode((folder / NAME).read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        status = None
    if path is None or holder is None:
        if status is None:
            raise ConfigError(f"expected a run folder, got {folder}, in which no run has worked")
        return _report(folder, status, "silent")
    if status is not None and status.nonce != holder.nonce and holder.free and holder.outcome == "finished":
        # it was no run that held the folder last, but a pruning, a repair, a comparison: the run's own words stand
        return _report(folder, status, "killed" if status.state == "running" else status.state)
    if status is None or status.nonce != holder.nonce:  # one that only begins, or that says nothing of itself
        recipe = status.recipe if status else ""
        status = Status(nonce=holder.nonce, host=holder.host, process=holder.process, started=holder.since, updated=holder.since, recipe=recipe)
    if holder.free:
        status.error, status.exit_code = holder.error, holder.exit_code
        return _report(folder, status, holder.outcome or "finished")  # type: ignore[arg-type]
    return _report(folder, status, _alive(holder, path))


def _alive(holder: Holder, path: Path) -> State:
    watch = Watch(holder, path.with_suffix(".beat"))
    until = time.monotonic() + 3 * holder.lease_seconds / BEATS
    while not watch.here() and not watch.moved and time.monotonic() < until:
        time.sleep(0.1)
        watch.dead()
    if watch.here():
        return "killed" if watch.dead() else "running"
    return "running" if watch.moved else "silent"


def _report(folder: Path, status: Status, state: State) -> Report:
    report = Report(
        state=state, run=str(folder), recipe=status.recipe, host=status.host, process=status.process, since=status.started, updated=status.updated,
        phase="" if state == "finished" else status.phase, documents=status.documents, bytes=status.bytes, total_bytes=status.total_bytes,
        read=status.read, kept=status.kept, warnings=status.warnings, removed=status.removed, error=status.error, exit_code=status.exit_code,
    )  # fmt: skip
    if state == "running" and status.phase_seconds > 0 and status.bytes:
        report.bytes_per_second = round(status.bytes / status.phase_seconds, 1)
        if status.total_bytes:
            report.seconds_left = round(max(status.total_bytes - status.bytes, 0) / report.bytes_per_second, 1)
    return report


def described(report: Report) -> str:
    """A report, for people."""
    who = f"process {report.process} on {report.host}"
    where = f" in {report.phase}" if report.phase else ""
    again = "run the same command again to continue"
    name = report.recipe or report.run
    if report.state == "finished":
        counts = f": {report.kept:,} of {report.read:,} documents kept" if report.read is not None and report.kept is not None else ""
        lost = f"; {report.removed:,} of its files were damaged and removed by a repair: run the same command again, which makes them again" if report.removed else ""
        return f"{name}: finished at {stamp(report.updated)}{counts}{_warned(report)}{lost}"
    if report.state == "failed":
        return f"{name}: failed{where} at {stamp(report.updated)} with exit code {report.exit_code}: {report.error}"
    if report.state == "interrupted":
        return f"{name}: was interrupted{where} at {stamp(report.updated)}; {again}"
    if report.state == "killed":
        return f"{name}: was killed{where} ({who}, which began {stamp(report.since)}); {again}"
    if report.state == "silent":
        return f"{name}: nothing was heard of {who}, which began {stamp(report.since)}{where}; if it is dead, a run takes over when its lease has run out"
    lines = [f"{name}: running since {stamp(report.since)}, {who}{_warned(report)}"]
    if report.phase:
        share = f"{report.bytes / 1e6:,.1f} of {report.total_bytes / 1e6:,.1f} MB, " if report.total_bytes else ""
        rate = f", {report.bytes_per_second / 1e6:,.1f} MB/s" if report.bytes_per_second else ""
        left = f", about {report.seconds_left:,.0f} s left in this pass" if report.seconds_left is not None else ""
        lines.append(f"{report.phase}: {share}{report.documents:,} documents{rate}{left}")
    return "\n".join(lines)


def _warned(report: Report) -> str:
    return f", {report.warnings} warnings" if report.warnings else ""
