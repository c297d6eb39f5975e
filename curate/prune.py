"""`curate prune`: remove what nothing refers to, from a run folder and from the store that it uses.

What is referred to is what the ledgers of all runs of the store list, the states that they froze, the references
in their locks, and the current publication. Token shards go with the publication that they were made of; models stay. A file is removed in one step; a folder is first renamed out of the way,
so that nothing half removed ever stands under a final name. Killed at any moment, what is left runs and verifies.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from curate import ledger, sharing
from curate.corpus import SourceFile
from curate.errors import ConfigError, CurateError, DataError
from curate.reference import KNOWN
from curate.shards import read_manifest
from curate.store import read_sealed

#: What a store's own folders are called; whatever else lies beside them is not ours to remove.
_KEY = re.compile(r"[0-9a-f]{32}\Z")
#: What a prune speaks of, in this order.
KINDS = ("store files", "publications", "token shards", "wide tables", "leftovers")


@dataclass
class Removed:
    """What of one kind was, or would be, removed."""

    kind: str
    paths: list[Path] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


@dataclass
class Pruned:
    """What a prune did, or would do; `runs` are those whose references were counted."""

    folder: Path
    store: Path
    runs: list[Path]
    dry_run: bool
    removed: list[Removed]

    @property
    def bytes(self) -> int:
        """Of all kinds."""
        return sum(found.bytes for found in self.removed)


def prune(folder: Path | str, *, dry_run: bool = False, keep: int = 1, forget: Sequence[Path | str] = ()) -> Pruned:
    """Remove what no run refers to; `keep` publications stay, the current one and then the newest.

    `forget` names runs of a shared store whose folders are gone. Raises RunHeldError where a run of the store works,
    and DataError where what one of them refers to cannot be known; then nothing was removed.
    """
    folder = Path(folder).resolve()
    if keep < 1:
        raise ConfigError(f"--keep: expected at least 1, the current publication, got {keep}")
    if not folder.is_dir():
        raise ConfigError(f"expected a run folder, got {folder}; curate run makes one")
    first = ledger.read(folder)
    if first is None:
        raise DataError(f"no run of {folder} has finished, so what it refers to cannot be known; run its recipe to the end first")
    store = first.store.resolve()
    with sharing.alone(folder, store) as lease:
        for gone in forget:
            sharing.forget(store, Path(gone).resolve())
        runs = sorted({folder, *sharing.tenants(store)})
        referred: set[Path] = set()
        compared: list[Any] = []
        for run in runs:
            book = sharing.references(store, run)
            referred |= {book.path(entry).resolve() for entry in book.entries}
            referred |= _frozen(run, store)
            compared += _compared_with(run)
        found = {kind: Removed(kind) for kind in KINDS}
        for path in (*_unreferred(store, referred), *_forgotten(store, compared)):
            _add(found["store files"], path)
        for path in _children(store / "tmp"):
            _add(found["leftovers"], path)
        for path in _old_publications(folder, referred, keep):
            _add(found["publications"], path)
        gone_too = {path.name for path in found["publications"].paths}
        for path in _old_tokens(folder, gone_too):
            _add(found["token shards"], path)
        for path in _others(folder / ".docs", referred, folder / "docs"):
            _add(found["wide tables"], path)
        if not dry_run:
            for kind in ("publications", "token shards", "wide tables", "leftovers", "store files"):
                for number, path in enumerate(found[kind].paths):
                    _remove(path, lease.staging / f"pruned-{kind.replace(' ', '-')}-{number}")
            _remove_empty(store)
    return Pruned(folder, store, runs, dry_run, [found[kind] for kind in KINDS])


def _frozen(run: Path, store: Path) -> set[Path]:
    """The states that a run froze: it goes back to one when its settings do."""
    found = set()
    for file in sorted((run / "frozen").glob("*.json")):
        try:
            key, name, _ = read_sealed(file, tuple[str, str, str])
        except DataError as error:
            raise DataError(f"it cannot be known which state {file} keeps: {error}") from error
        found.add(store / key / "state" / name)
    return found


def _unreferred(store: Path, referred: set[Path]) -> Iterator[Path]:
    for top in _children(store):
        if _KEY.match(top.name) and top.is_dir() and not top.is_symlink():
            for base, _, names in os.walk(top):
                yield from (Path(base, name) for name in sorted(names) if Path(base, name) not in referred)


def _compared_with(run: Path) -> list[Any]:
    """The files of each reference that a run's stages are held `against`, as its lock has them: path, size and content."""
    file = run / "recipe.lock.json"
    try:
        named = msgspec.json.decode(file.read_bytes())["against"]
        return [files for references in named.values() for _, _, files in references]
    except (OSError, msgspec.MsgspecError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"it cannot be known what the run {run} was held against: {file} cannot be read ({error}); run its recipe again") from error


def _forgotten(store: Path, compared: list[Any]) -> Iterator[Path]:
    """What the store remembers of the files of references that no run is held against, or not as they were."""
    for path in _children(store / KNOWN):
        if path.suffix == ".json" and _KEY.match(path.stem):
            try:
                files = [[f.path, f.size, f.content] for f in read_sealed(path, list[SourceFile])]
            except DataError:  # a run takes it for nothing, too
                files = None
            if files not in compared:
                yield path


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _others(parent: Path, referred: set[Path], link: Path) -> list[Path]:
    """The folders in `parent` that hold nothing referred to and that `link` does not point at."""
    current = link.resolve() if link.is_symlink() else None
    holding = {path.parent for path in referred} | {above for path in referred for above in path.parents}
    return [path for path in _children(parent) if path != current and path not in holding]


def _old_publications(folder: Path, referred: set[Path], keep: int) -> list[Path]:
    """All but the current publication and the newest of the others, `keep` in all; what is half-made counts as nothing."""
    others = _others(folder / "mixtures", referred, folder / "mixture")
    whole = sorted((path for path in others if (path / "manifest.json").exists()), key=lambda path: (-(path / "manifest.json").stat().st_mtime_ns, path.name))
    return sorted(set(others) - set(whole[: keep - 1]))


def _old_tokens(folder: Path, removed: set[str]) -> list[Path]:
    """Token shards of a publication that is gone or goes; those that cannot be read are left to `curate verify`."""
    there = {path.name for path in _children(folder / "mixtures")} - removed
    old = []
    for path in _children(folder / "tokens"):
        try:
            if not path.name.startswith(".") and read_manifest(path).made_of not in there:
                old.append(path)
        except CurateError:
            continue
    return old


def _add(found: Removed, path: Path) -> None:
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(base, name) for base, _, names in os.walk(path) for name in names]
    found.paths.append(path)
    found.files += len(files)
    found.bytes += sum(file.lstat().st_size for file in files)


def _remove(path: Path, aside: Path) -> None:
    """Remove a file in one step; a folder by another name, under which no run finds it."""
    if path.is_dir() and not path.is_symlink():
        os.replace(path, aside)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(store: Path) -> None:
    """Remove the folders of a store that nothing is left in."""
    for top in _children(store):
        if _KEY.match(top.name) and top.is_dir() and not top.is_symlink():
            for base, _, _ in os.walk(top, topdown=False):
                if not os.listdir(base):
                    os.rmdir(base)
