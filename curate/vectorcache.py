"""Vectors that were computed before, by the hash of a text and what made them: a text is embedded once, in whatever run.

One SQLite file for each model and setting in a folder that the user names; several processes may use it at once. It holds
at most `most` bytes of vectors: the ones put in first go first. Losing the file loses time, nothing else. A row ends with a
checksum of its hash and its vector, and one that does not match is computed again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from curate.errors import DataError

Float32 = npt.NDArray[np.float32]

#: Hashes that are asked for in one query.
_ASKED = 500


class VectorCache:
    """Vectors float32[dim] by a text's 16-byte hash."""

    def __init__(self, file: Path, dim: int, *, most: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._dim, self._rows = dim, max(1, most // (4 * dim))
        self._file = file
        self._db = sqlite3.connect(file, timeout=60.0, isolation_level=None)
        with self._readable():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute("CREATE TABLE IF NOT EXISTS vectors (number INTEGER PRIMARY KEY, hash BLOB UNIQUE, vector BLOB)")

    def vectors(self, hashes: Sequence[bytes], compute: Callable[[list[int]], Float32]) -> Float32:
        """The vectors of texts by their hashes; `compute` gets the places of those not known, each text once."""
        with self._readable():
            known = self._known(list(dict.fromkeys(hashes)))
        missing: dict[bytes, int] = {}
        for place, digest in enumerate(hashes):
            if digest not in known:
                missing.setdefault(digest, place)
        if missing:
            made = compute(list(missing.values()))
            fresh = {digest: np.ascontiguousarray(row, np.float32) for digest, row in zip(missing, made, strict=True)}
            with self._readable():
                self._put(fresh)
            known |= fresh
        return np.stack([known[h] for h in hashes]) if hashes else np.empty((0, self._dim), np.float32)

    def _known(self, hashes: list[bytes]) -> dict[bytes, Float32]:
        found: dict[bytes, Float32] = {}
        for at in range(0, len(hashes), _ASKED):
            some = hashes[at : at + _ASKED]
            marks = ",".join("?" * len(some))
            for digest, row in self._db.execute(f"SELECT hash, vector FROM vectors WHERE hash IN ({marks})", some):
                vector = row[: 4 * self._dim]
                if row == _sealed(digest, vector):
                    found[digest] = np.frombuffer(vector, np.float32)
        return found

    def _put(self, fresh: dict[bytes, Float32]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO vectors (hash, vector) VALUES (?, ?)", [(h, _sealed(h, v.tobytes())) for h, v in fresh.items()])
        self._db.execute("DELETE FROM vectors WHERE number <= (SELECT max(number) FROM vectors) - ?", [self._rows])
        self._db.execute("COMMIT")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a full disk and the like are not the file's fault
                raise
            self._db.close()
            raise DataError(f"the cache of vectors {self._file} is damaged ({error}); delete it, and its vectors are computed again") from error

    def close(self) -> None:
        self._db.close()


def _sealed(digest: bytes, vector: bytes) -> bytes:
    """A vector and its checksum, as a row holds them."""
    return vector + xxhash.xxh3_64_digest(digest + vector)
