"""The selected set and the publication as rows that can be compared: identity, hash of the text, place.

    docs     a kept document that is taken twice   ->  two rows, each with what docs say of that copy
    files    two published rows                    ->  two rows, each with what stands in the file
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.copies import Amount, Copies
from curate.corpus import CorpusSpec, open_corpus, read_part
from curate.documents import text_hashes
from curate.errors import CurateError
from curate.stage import BYTES, IDENTITY, TEXT, TEXT_HASH, WORDS

#: identity and xxh3-128 of the text, and where copies have places all that is said of one: what the selected set and the
#: publication are compared by.
CHOSEN = pa.schema([(IDENTITY, pa.string()), (TEXT_HASH, pa.binary(16)), ("place", pa.list_(pa.int64()))])


def copied(kept: pa.Table, hashes: pa.Array, said: Copies | None) -> tuple[pa.Table, Amount, list[str]]:
    """The rows that a publication should have of kept documents (CHOSEN), what that adds up to, and what in docs contradicts itself."""
    times, places = np.ones(kept.num_rows, np.int64), pa.nulls(kept.num_rows, pa.list_(pa.int64()))
    wrong: list[str] = []
    if said is not None:
        lists = [kept[name].combine_chunks() for name in said.columns]
        counts = [np.asarray(pc.fill_null(pc.list_value_length(values), 0)).astype(np.int64) for values in lists]
        taken, times = np.asarray(pc.fill_null(kept[said.repeats], 0)), np.minimum.reduce(counts)
        for at in np.flatnonzero((taken != times) | (times < 1) | np.any([count != times for count in counts], axis=0))[:1].tolist():
            found = ", ".join(f"{count[at]} {name}" for name, count in zip(said.columns, counts, strict=True))
            wrong.append(f"{kept[IDENTITY][at].as_py()!r} is taken {taken[at]} times and has {found}")
        first = [pa.array([(row or [])[:n] for row, n in zip(v.to_pylist(), times.tolist(), strict=True)], v.type) for v in lists] if wrong else lists
        places = _places([pc.list_flatten(values) for values in first])
    rows = pa.array(np.repeat(np.arange(kept.num_rows), times))
    sizes = [int((np.asarray(pc.fill_null(kept[name], 0)) * times).sum()) for name in (BYTES, WORDS)]
    return pa.table([kept[IDENTITY].take(rows), hashes.take(rows), places], CHOSEN), Amount(kept.num_rows, len(rows), *sizes), wrong


def _places(columns: Sequence[pa.Array]) -> pa.Array:
    """What is said of each copy, one list a row."""
    flat = np.stack([np.asarray(pc.fill_null(values, -1)) for values in columns], axis=1)
    offsets = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat.ravel(), pa.int64()))


@dataclass(frozen=True)
class PublishedTask:
    """A published file, whose identities, text hashes and places go to `out`; `corpus` says what of a row is its text."""

    file: Path
    rows: int
    corpus: CorpusSpec
    copies: Copies | None
    out: Path

    def described(self) -> str:
        """What to call this task in an error."""
        return f"the reading of {self.file}"


@dataclass
class Published:
    """How many rows a published file has, its first and last place where it has places, and what is wrong with it, if anything is."""

    rows: int = 0
    ends: tuple[int, int] | None = None
    wrong: str = ""


def read_published(task: PublishedTask) -> Published:
    """Read a published file as a trainer does."""
    pa.set_cpu_count(1)
    found = Published()
    own = task.copies.published if task.copies else []
    with pq.ParquetWriter(task.out, CHOSEN) as out:
        try:
            corpus = open_corpus(task.corpus, task.file.parent) if task.rows else None
            for part in corpus.parts if corpus else ():
                assert corpus is not None
                for batch in read_part(corpus.layout, part, columns=[IDENTITY, *own]):
                    found.rows += batch.num_rows
                    places = _places([batch.column(name) for name in own]) if own else pa.nulls(batch.num_rows, pa.list_(pa.int64()))
                    out.write_table(pa.table([batch.column(IDENTITY), text_hashes(batch.column(TEXT)), places], CHOSEN))
                    if own and batch.num_rows:
                        _in_order(found, np.asarray(batch.column(own[0])), task.file)
        except CurateError as error:
            found.wrong = str(error)
            return found
    if found.rows != task.rows:
        found.wrong = f"{task.file} has {found.rows:,} rows, its manifest says {task.rows:,}"
    return found


def _in_order(found: Published, places: np.ndarray, file: Path) -> None:
    """Note where a batch's places begin and end; wrong where they do not ascend."""
    before = [] if found.ends is None else [found.ends[1]]
    if not found.wrong and (np.diff([*before, *places.tolist()]) <= 0).any():
        found.wrong = f"{file}: its rows are not in the order of their places"
    found.ends = (int(places[0]) if found.ends is None else found.ends[0], int(places[-1]))


def apart(chosen: Sequence[Path], published: Sequence[Path], with_text: bool, with_place: bool, scratch: Path, threads: int) -> tuple[int, list[tuple[Any, ...]]]:
    """Compare two multisets of rows: how many (identity, text, place) stand in one more often, and the first of them.

    Each of those is (identity, by how much it is more often in the selected set: negative where in the publication).
    """
    from curate.frame import connect, literal

    columns = ", ".join([IDENTITY, *([TEXT_HASH] if with_text else []), *(["place"] if with_place else [])])
    both = " UNION ALL ".join(
        f"SELECT {columns}, {sign} AS n FROM read_parquet([{', '.join(literal(str(f)) for f in files)}], hive_partitioning = false)"
        for files, sign in ((chosen, 1), (published, -1)) if files
    )  # fmt: skip
    if not both:
        return 0, []
    with connect(scratch, threads, "1GB") as con:
        con.execute(f"CREATE TABLE apart AS SELECT {columns}, sum(n)::BIGINT AS more FROM ({both}) GROUP BY ALL HAVING sum(n) <> 0")
        count = con.execute("SELECT count(*) FROM apart").fetchall()[0][0]
        return int(count), con.execute(f"SELECT {IDENTITY}, more FROM apart ORDER BY ALL LIMIT 5").fetchall()
