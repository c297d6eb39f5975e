"""`curate verify`: is everything that a finished run refers to what was written, and does it still add up?

Files are compared with the ledger; docs, funnel and publication are put together a second time from what is stored and
from the inputs (curate/recount.py). It reads and writes nothing but a scratch folder of the system's. With `repair` it
removes what is damaged, which the next run makes again, the same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from curate import ledger, sharing, status
from curate.checks import AGAIN, REPAIRED, Check, Fault, Report, Verifying
from curate.engine import LocalEngine, available_cpus
from curate.errors import ConfigError, DataError, RunHeldError
from curate.events import Events, Listener
from curate.lease import holder_of, newest
from curate.store import write_bytes


def verify(folder: Path | str, *, repair: bool = False, workers: int | None = None, listener: Listener | None = None) -> Report:
    """Check a finished run; with `repair`, remove what is damaged, holding the run and all that share its store.

    Raises ConfigError where there is no run, DataError where none has finished, RunHeldError where one works.
    """
    folder = Path(folder).resolve()
    if not (folder / "recipe.lock.json").exists() and not (folder / ledger.NAME).exists():
        raise ConfigError(f"expected a run folder, got {folder}; curate run makes one")
    if repair:
        with sharing.alone(folder, _store(folder)) as lease:
            report = _verified(folder, workers, listener)
            report.removed = _repair(report.faults, lease.staging)
            if gone := [path for path in report.removed if not path.exists()]:
                status.repaired(folder, len(gone), lease.staging)
        return report
    _refuse_if_held(folder)
    before = newest(folder)
    report = _verified(folder, workers, listener)
    _refuse_if_held(folder)
    if newest(folder) != before:
        raise RunHeldError(f"a run worked in {folder} while it was verified, so what was found may be of two states; verify it again")
    return report


def _refuse_if_held(folder: Path) -> None:
    holder = holder_of(folder)
    if holder is not None:
        raise RunHeldError(f"the run folder {folder} is held by {holder.described()}; verify it when that is done")


def _store(folder: Path) -> Path:
    """Where the run's store is, by the ledger or, where that is damaged, by its place."""
    try:
        book = ledger.read(folder)
    except DataError:
        book = None
    return book.store.resolve() if book else folder / "store"


def _repair(faults: Iterable[Fault], staging: Path) -> list[Path]:
    """Remove what is damaged, or put back what can be known; returns the paths.

    A folder is first renamed away, after the link to it was removed, so that no half of it stands under its name.
    """
    removed = []
    todo = {f.remove: f.restore for f in faults if f.remove is not None}
    for number, (path, content) in enumerate(todo.items()):
        if content is not None:
            write_bytes(path, content, staging)
        elif path.is_dir():
            for link in (path.parent.parent / "docs", path.parent.parent / "mixture"):
                if link.is_symlink() and link.resolve() == path:
                    link.unlink()
            aside = staging / f"damaged-{number}"
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        elif path.is_symlink() or path.exists():
            path.unlink()
        else:
            continue
        removed.append(path)
    return removed


def _verified(folder: Path, workers: int | None, listener: Listener | None) -> Report:
    report = Report(folder)
    try:
        book = ledger.read(folder)
    except DataError as error:
        report.checks.append(Check("ledger", False, "cannot be read, so nothing else was checked"))
        report.faults.append(Fault("ledger", str(error).split(";")[0], f"{REPAIRED}; then verify again", folder / ledger.NAME))
        return report
    if book is None:
        raise DataError(f"no run of {folder} has finished, so there is no ledger to verify it by; {AGAIN}")
    with tempfile.TemporaryDirectory(prefix="curate-verify-") as scratch, LocalEngine(workers or available_cpus()) as engine:
        Verifying(book, report, engine, Events(listener), Path(scratch)).run()
    return report
