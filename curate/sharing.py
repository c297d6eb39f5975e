"""Runs that share a store: who they are, so that pruning counts the references of each.

    STORE/runs/<digest of the run folder>.json      {"run": "/absolute/path/of/the/run/folder"}

A run writes its name there before it uses a store outside its own folder, and then looks whether the store is being
pruned. Pruning takes the store's lease first and reads the names afterwards. Whichever comes second sees the other.
A store inside a run folder has that run's name by its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from curate import ledger
from curate.errors import ConfigError, DataError, RunHeldError
from curate.lease import Lease, held, holder_of
from curate.ledger import Ledger
from curate.store import digest, write_bytes

REGISTER = "runs"


class Tenant(msgspec.Struct, frozen=True):
    """A run that uses a store of others."""

    run: str


def register(store: Path, folder: Path, scratch: Path) -> None:
    """Write a run's name into the store that it uses; RunHeldError where the store is being pruned."""
    if owner(store) == folder:
        return
    name = _name(store, folder)
    if not name.exists():
        write_bytes(name, msgspec.json.encode(Tenant(str(folder))) + b"\n", scratch)
    other = holder_of(store)
    if other is not None:
        raise RunHeldError(f"the store {store} is being pruned by {other.described()}; run again when it is done")


def forget(store: Path, folder: Path) -> None:
    """Take a run whose folder is gone out of the register; ConfigError where it is not in it, or not gone."""
    name = _name(store, folder)
    if not name.exists():
        known = ", ".join(str(run) for run in tenants(store)) or "none"
        raise ConfigError(f"--forget: the store {store} knows no run {folder}; it knows {known}")
    if (folder / ledger.NAME).exists():
        raise ConfigError(f"--forget: the run {folder} still stands there; delete its folder first, and then it can be forgotten")
    name.unlink()


def owner(store: Path) -> Path | None:
    """The run folder that a store lies in, by its place."""
    return store.parent if store.name == "store" else None


def tenants(store: Path) -> list[Path]:
    """All runs that use a store, the one that it lies in included, sorted."""
    found = set()
    home = owner(store)
    if home is not None and any((home / name).exists() for name in ("recipe.lock.json", ledger.NAME, ".lease")):
        found.add(home)
    for file in (store / REGISTER).glob("*.json"):
        try:
            found.add(Path(msgspec.json.decode(file.read_bytes(), type=Tenant).run))
        except msgspec.MsgspecError as error:
            raise DataError(
                f"{file} is damaged ({error}), so it cannot be known which run uses the store {store}; start a run of each folder that shares "
                "it again, which registers it, and delete this file"
            ) from error
    return sorted(found)


def references(store: Path, folder: Path) -> Ledger:
    """The ledger of a run that uses a store; DataError where what it refers to cannot be known."""
    remedy = f"run its recipe again, or if the run is to be given up, delete its folder and take it out of the register: --forget {folder}"
    if not folder.is_dir():
        raise DataError(f"the store {store} is shared by the run {folder}, whose folder is gone; put it back, or take the run out of the register: --forget {folder}")
    try:
        found = ledger.read(folder)
    except DataError as error:
        raise DataError(f"the store {store} is shared by the run {folder}, whose ledger cannot be read: {error}; {remedy}") from error
    if found is None:
        raise DataError(f"the store {store} is shared by the run {folder}, which has not finished yet; {remedy}")
    return found


@contextmanager
def alone(folder: Path, store: Path) -> Iterator[Lease]:
    """Hold a run, its store, and every run that shares the store; yields the run's lease. RunHeldError if one works.

    No run can begin to use the store inside the block: one that is registered finds its folder held, a new one the
    store.
    """
    with ExitStack() as stack:
        lease = stack.enter_context(held(folder))
        if store.is_dir():
            stack.enter_context(held(store))
            for tenant in tenants(store):
                if tenant != folder and tenant.is_dir():
                    stack.enter_context(held(tenant))
        yield lease


def _name(store: Path, folder: Path) -> Path:
    return store / REGISTER / f"{digest(str(folder))}.json"
