"""Who may work in a run folder: numbered leases with heartbeats, and publishing that only the newest holder can do.

    RUN/.lease/00000007.json      who holds the folder, or that it is free again; the highest number is the lease
    RUN/.lease/00000007.beat      a counter that the holder raises while it lives
    RUN/.lease/00000007.making/   what this holder has half-made; it is renamed from here to its final name
    RUN/.lease/<name>.claims/     who does what, where many work at one run (joining.py)

A lease is taken by creating the next number, which exactly one process can do. On one machine the holder is dead if
its process is gone. Of another machine nothing but the counter is seen: it is dead when the counter has stood still
for the lease's length by the observer's own clock; clocks of two machines are never compared.

A holder that was only suspended may wake up after its lease was taken. It cannot publish: whoever takes a lease first
renames the `.making` folders of all earlier ones away, so that every later rename out of them fails. A check before a
step would leave a moment between the check and the step; this leaves none. (The idea is a fencing token, as in Gray
and Cheriton's leases, SOSP 1989, with the file system as the one that refuses.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from curate.errors import ConfigError, CurateError, RunHeldError, interrupted, machine_error

FOLDER = ".lease"
#: Seconds without a heartbeat after which a holder on another machine counts as dead.
LEASE_SECONDS = 60.0
#: Heartbeats in a lease: one that is late, or ten, must not look like death.
BEATS = 12
#: Seconds between two looks at a lease that is waited for.
LOOK_SECONDS = 0.2


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that works in a run folder, as others can recognise it."""

    host: str  # for people
    machine: str  # where the process number means something: this boot of a host, this namespace of processes
    process: int
    started: int  # when the process started, in the system's ticks since its boot; 0 where that is not known
    since: float  # seconds since 1970 by the holder's clock, for people
    nonce: str
    lease_seconds: float
    joined: str = ""  # the work that others may join (curate run --join); empty: nobody may
    free: bool = False  # given back
    outcome: str = ""  # of one that was given back: finished, failed, interrupted
    error: str = ""
    exit_code: int = 0

    def described(self) -> str:
        """How to name it in a message."""
        return f"process {self.process} on {self.host} since {stamp(self.since)}"


def stamp(seconds: float) -> str:
    """A moment, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def lease_seconds() -> float:
    """How long this process's leases last without a heartbeat: CURATE_LEASE_SECONDS, or a minute."""
    given = os.environ.get("CURATE_LEASE_SECONDS", "")
    try:
        seconds = float(given or LEASE_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"expected CURATE_LEASE_SECONDS to be a number of seconds, got {given!r}")
    return seconds


def machine() -> str:
    """Where this process's number means something. CURATE_HOST names it where the system's own words would not do.

    Containers of one host share its boot but not its process numbers, hence the namespace. A host that was booted
    again is another machine: what it ran is dead, but only the silence of its heartbeat proves that to all.
    """
    if named := os.environ.get("CURATE_HOST"):
        return named
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def process_start(process: int) -> int | None:
    """When a process of this machine started; None where there is none, or only its unburied remains; 0: not known."""
    try:
        words = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return None if words[0] in (b"Z", b"X") else int(words[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError, ValueError):
        pass  # it ended while we looked, or this is no Linux: ask the system
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def this_process() -> Holder:
    """This process, under a new name that no other will have."""
    return Holder(
        host=os.environ.get("CURATE_HOST") or socket.gethostname(), machine=machine(), process=os.getpid(), started=process_start(os.getpid()) or 0,
        since=time.time(), nonce=secrets.token_hex(8), lease_seconds=lease_seconds(),
    )  # fmt: skip


def lives_here(holder: Holder) -> bool | None:
    """Whether a holder's process lives; None where it is of another machine and cannot be seen."""
    if holder.machine != machine():
        return None
    started = process_start(holder.process)
    return started is not None and (started == holder.started or not started or not holder.started)


class Watch:
    """Judges from outside whether the holder of a lease is dead."""

    def __init__(self, holder: Holder | None, beat: Path) -> None:
        self.holder, self._beat = holder, beat
        self._seen, self._at = _content(beat), time.monotonic()
        self.moved = False  # the counter was seen to change
        self.seconds = holder.lease_seconds if holder else lease_seconds()

    def here(self) -> bool:
        """Whether the holder is of this machine, so that its life or death is known at once."""
        return self.holder is not None and lives_here(self.holder) is not None

    def dead(self) -> bool:
        """Whether it is, by all that this process has seen of it until now."""
        if self.holder is not None:
            lives = lives_here(self.holder)
            if lives is not None:
                return not lives
        seen = _content(self._beat)
        if seen != self._seen:
            self._seen, self._at, self.moved = seen, time.monotonic(), True
        return time.monotonic() - self._at > self.seconds


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


class Heart:
    """Raises a counter in a file from a thread of its own until it is stopped.

    The file is written in place: readers only ask whether it changed, and a torn value is a changed one. It is closed
    each time, because a network file system shows others a change no earlier.
    """

    def __init__(self, beat: Path, seconds: float) -> None:
        self._beat, self._seconds = beat, seconds
        self._stop = threading.Event()
        self._count = 0
        self._raise()
        self._thread = threading.Thread(target=self._run, name="curate-heartbeat", daemon=True)
        self._thread.start()

    def _raise(self) -> None:
        self._count += 1
        with contextlib.suppress(OSError):  # a full disk, a folder that is gone: the next beat may be heard
            self._beat.write_text(f"{self._count}\n")

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._raise()

    def stop(self) -> None:
        """Stop, and remove the counter."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._beat.unlink(missing_ok=True)


def create(path: Path, content: bytes, *, lasting: bool = True) -> bool:
    """Create a file with all its content, unless it is there; whether we did. Exactly one of many callers does.

    One that is not `lasting` may be lost with the power of the machine, and is not waited for.
    """
    temporary = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.making")
    try:
        _put(temporary, content, os.O_EXCL, lasting)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return temporary.stat().st_nlink == 2  # a network file system that asked twice was told no the second time
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV):
                raise
            return _create_in_place(path, content, lasting)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _create_in_place(path: Path, content: bytes, lasting: bool) -> bool:
    """For file systems without hard links; one who reads too early finds nothing readable and watches on."""
    try:
        _put(path, content, os.O_EXCL, lasting)
    except FileExistsError:
        return False
    return True


def _put(path: Path, content: bytes, flags: int, lasting: bool = True) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o666)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        if lasting:
            os.fsync(handle)


def read_holder(path: Path) -> Holder | None:
    """Who wrote a lease; None where that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def newest(folder: Path) -> Path | None:
    """The lease of a run folder: the file with the highest number; None where nobody ever held it."""
    try:
        found = [p for p in (folder / FOLDER).iterdir() if p.suffix == ".json" and p.stem.isdigit()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return max(found, key=lambda path: int(path.stem), default=None)


def holder_of(folder: Path) -> Holder | None:
    """Who holds a run folder as far as can be told at once; None where it is free or its holder died on this machine."""
    path = newest(folder)
    if path is None:
        return None
    holder = read_holder(path)
    if holder is None or holder.free or lives_here(holder) is False:
        return None
    return holder


class Lease:
    """The right to work in a run folder, held until it is closed; see `acquire`."""

    def __init__(self, folder: Path, path: Path, holder: Holder, made: list[Path]) -> None:
        self.folder, self.holder = folder, holder
        self.path, self._made = path, made
        #: where what is to stand in the run folder is made; a rename from here fails once the lease is another's
        self.staging = path.with_suffix(".making")
        #: what an earlier holder did, where it died with the lease
        self.taken_from: Holder | None = None
        self._heart: Heart | None = None

    def begin(self) -> bool:
        """Make the staging folder and start the heart, unless someone took a higher number meanwhile."""
        self.staging.mkdir(exist_ok=True)
        if self.lost():
            shutil.rmtree(self.staging, ignore_errors=True)
            self.path.unlink(missing_ok=True)
            return False
        self._heart = Heart(self.path.with_suffix(".beat"), self.holder.lease_seconds / BEATS)
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Take from all earlier holders what they could still publish; then remove what they left."""
        number = int(self.path.stem)
        others = [p for p in self.path.parent.iterdir() if not p.name.startswith(self.path.stem)]
        earlier = [p for p in others if not p.name.split(".")[0].isdigit() or int(p.name.split(".")[0]) < number]
        earlier = [p for p in earlier if not (self.holder.joined and p.name == f"{self.holder.joined}.claims")]
        for path in earlier:
            if path.is_dir() and path.suffix in (".making", ".claims"):
                with contextlib.suppress(FileNotFoundError):
                    path.rename(path.with_name(f"{path.stem}.{self.holder.nonce}.gone-making"))
        for path in self.path.parent.iterdir():
            # who died while it made this very number left a file of its own; one who lives tries again without it
            unborn = path.name.startswith(f"{self.path.stem}.") and path.name.endswith(".making") and path != self.staging
            if path in earlier or path.name.endswith(".gone-making") or unborn:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def lost(self) -> bool:
        """Whether the lease is another's by now."""
        found = newest(self.folder)
        holder = read_holder(found) if found == self.path and found else None
        return holder is None or holder.nonce != self.holder.nonce

    def check(self) -> None:
        """Raise a RunHeldError if the lease is another's by now."""
        if self.lost():
            path = newest(self.folder)
            other = read_holder(path) if path else None
            raise RunHeldError(
                f"this run gave no sign of life for its lease of {self.holder.lease_seconds:g} s, and the run folder {self.folder} was taken over by "
                f"{other.described() if other else 'another process'}; nothing more was published by this one"
            )

    def close(self, outcome: str = "finished", error: str = "", exit_code: int = 0) -> None:
        """Give the lease back, and say how the work ended."""
        if self._heart:
            self._heart.stop()
        shutil.rmtree(self.staging, ignore_errors=True)
        if self.lost():
            return
        free = msgspec.structs.replace(self.holder, free=True, outcome=outcome, error=error, exit_code=exit_code)
        temporary = self.path.with_suffix(".free.making")
        try:
            _put(temporary, msgspec.json.encode(free), os.O_TRUNC)
            os.replace(temporary, self.path)
        except OSError:  # a full disk: a process that is gone holds nothing either
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def take_back(self) -> None:
        """Remove the folders that we made, where nothing but the lease is in them."""
        if not self._made or [path.name for path in self.folder.iterdir()] != [FOLDER]:
            return
        for path in self.path.parent.glob(f"{self.path.stem}.*"):
            path.unlink(missing_ok=True)
        for path in (self.path.parent, *self._made):
            try:
                path.rmdir()
            except OSError:
                return  # someone else uses it by now


def acquire(folder: Path, *, wait: float = 0.0, mine: Holder | None = None, admit: Callable[[Holder], bool] | None = None) -> Lease | Holder:
    """Take the lease of a run folder, waiting up to `wait` seconds for its holder; a RunHeldError where it stays held.

    A holder on another machine that has not been seen to live is watched for a whole lease, whatever `wait` says:
    otherwise a dead one would be in the way for ever. Its next heartbeat ends that. A living holder that `admit` says
    yes to is returned in place of a lease.
    """
    mine = mine or this_process()
    deadline = time.monotonic() + wait
    watch: Watch | None = None
    watched: tuple[Path, Holder | None] | None = None
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    while True:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        path = newest(folder)
        holder = read_holder(path) if path else None
        free = path is None or (holder is not None and holder.free)
        if path is not None and not free:
            if watch is None or watched != (path, holder):
                watch, watched = Watch(holder, path.with_suffix(".beat")), (path, holder)
            if not watch.dead():
                if holder is not None and admit is not None and admit(holder):
                    return holder
                if time.monotonic() >= deadline and (watch.here() or watch.moved):
                    raise RunHeldError(_refusal(folder, holder, wait))
                time.sleep(min(LOOK_SECONDS, watch.seconds / BEATS))
                continue
        lease = take(folder, path, mine, made)
        if lease is not None:
            lease.taken_from = None if free else holder
            return lease


def take(folder: Path, after: Path | None, mine: Holder, made: list[Path]) -> Lease | None:
    """Take the number after a lease that is free or whose holder is dead; None where another process was quicker."""
    number = int(after.stem) + 1 if after else 1
    lease = Lease(folder, folder / FOLDER / f"{number:08d}.json", mine, made)
    try:
        return lease if create(lease.path, msgspec.json.encode(mine)) and lease.begin() else None
    except FileNotFoundError:
        return None  # a run that failed took the folder away


def _refusal(folder: Path, holder: Holder | None, wait: float) -> str:
    who = holder.described() if holder else "a process that cannot be read from its lease"
    waited = f" (waited {wait:g} s)" if wait else ""
    return f"the run folder {folder} is held by {who}{waited}; wait for it with --wait SECONDS, or name another with --run"


def failure(error: BaseException | None) -> tuple[Literal["finished", "failed", "interrupted"], str, int]:
    """How work ended, in words: the outcome, the message, the exit code."""
    if error is None:
        return "finished", "", 0
    if isinstance(error, KeyboardInterrupt) or interrupted(error):
        return "interrupted", "", 130
    if not isinstance(error, CurateError):
        error = machine_error(error, "the run") or error
    said = str(error) if isinstance(error, CurateError) else f"{type(error).__name__}: {error}"
    return "failed", said, int(getattr(error, "exit_code", 1))


def ended(lease: Lease, error: BaseException | None) -> None:
    """Give a lease back after a block that ended well, or with an error."""
    if error is None:
        lease.close()
        return
    lease.close(*failure(error))
    with contextlib.suppress(OSError):
        lease.take_back()


@contextlib.contextmanager
def ending(lease: Lease) -> Iterator[None]:
    """Give a lease back at the end of a block; what fails because the lease was lost says so."""
    try:
        yield
        lease.check()
    except BaseException as error:
        try:
            if isinstance(error, Exception):
                lease.check()
        except RunHeldError as lost:
            raise lost from error
        finally:
            ended(lease, error)
        raise
    ended(lease, None)


@contextlib.contextmanager
def held(folder: Path, *, wait: float = 0.0) -> Iterator[Lease]:
    """Hold a run folder for the length of a block; one that fails before it has written anything leaves no folder."""
    lease = acquire(folder, wait=wait)
    assert isinstance(lease, Lease)
    with ending(lease):
        yield lease
