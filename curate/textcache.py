"""What was computed of a text before, by the hash of the text and what made it: a text is paid for once, in whatever run.

One SQLite file for each model and setting in a folder that the user names; several processes may use it at once. It holds
at most `most` bytes of values: the ones put in first go first. Losing the file loses time, nothing else. A row ends with a
checksum of its hash and its value, and one that does not match is computed again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import xxhash

from curate.errors import DataError

#: Hashes that are asked for in one query.
_ASKED = 500
_CHECKSUM = 8
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS texts (number INTEGER PRIMARY KEY, hash BLOB UNIQUE, value BLOB);
CREATE TABLE IF NOT EXISTS held (bytes INTEGER);
INSERT INTO held SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM held);
CREATE TRIGGER IF NOT EXISTS more AFTER INSERT ON texts BEGIN UPDATE held SET bytes = bytes + length(NEW.value) - {_CHECKSUM}; END;
CREATE TRIGGER IF NOT EXISTS less AFTER DELETE ON texts BEGIN UPDATE held SET bytes = bytes - length(OLD.value) + {_CHECKSUM}; END;
"""


class TextCache:
    """Values, bytes of any length, by a text's hash. `what` they are, for messages."""

    def __init__(self, file: Path, what: str, *, most: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._what, self._most = file, what, most
        self._db = sqlite3.connect(file, timeout=60.0, isolation_level=None)
        with self._readable():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute("PRAGMA recursive_triggers=ON")  # a row that is replaced is deleted first, and counted so
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    def values(self, hashes: Sequence[bytes], compute: Callable[[list[int]], Sequence[bytes]]) -> list[bytes]:
        """The values of texts by their hashes; `compute` gets the places of those not known, each text once."""
        with self._readable():
            known = self._known(list(dict.fromkeys(hashes)))
        missing: dict[bytes, int] = {}
        for place, digest in enumerate(hashes):
            if digest not in known:
                missing.setdefault(digest, place)
        if missing:
            fresh = dict(zip(missing, compute(list(missing.values())), strict=True))
            with self._readable():
                self._put(fresh)
            known |= fresh
        return [known[h] for h in hashes]

    def _known(self, hashes: list[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for at in range(0, len(hashes), _ASKED):
            some = hashes[at : at + _ASKED]
            marks = ",".join("?" * len(some))
            for digest, row in self._db.execute(f"SELECT hash, value FROM texts WHERE hash IN ({marks})", some):
                value = row[:-_CHECKSUM]
                if row == _sealed(digest, value):
                    found[digest] = value
        return found

    def _put(self, fresh: dict[bytes, bytes]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO texts (hash, value) VALUES (?, ?)", [(h, _sealed(h, v)) for h, v in fresh.items()])
        while self._db.execute("SELECT bytes FROM held").fetchone()[0] > self._most:
            self._db.execute("DELETE FROM texts WHERE number = (SELECT min(number) FROM texts)")
        self._db.execute("COMMIT")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a full disk and the like are not the file's fault
                raise
            self._db.close()
            raise DataError(f"the cache of {self._what} {self._file} is damaged ({error}); delete it, and they are computed again") from error

    def close(self) -> None:
        self._db.close()


def _sealed(digest: bytes, value: bytes) -> bytes:
    """A value and its checksum, as a row holds them."""
    return value + xxhash.xxh3_64_digest(digest + value)
