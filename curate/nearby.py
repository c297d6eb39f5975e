"""Near-duplicates of a few texts in a large corpus: exact, in one pass, in the workers.

The few are turned into sets of shingles (minhash.shingle_sets) and inverted: shingle -> which of them hold it. Each
document of the corpus is cut the same way. |A and B| >= t |A or B| >= t |A| must hold for a pair at Jaccard index t, so
a document of which less than t is known to the inverted index at all is passed over without a further look. Nothing is
sketched, so nothing at or above the threshold is missed. Cost: a sorted set and a search in the index per document.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import minhash
from curate.corpus import Layout, Part, read_part
from curate.minhash import MinhashSpec
from curate.stage import TEXT
from curate.store import read_table

Int64 = npt.NDArray[np.int64]
Uint64 = npt.NDArray[np.uint64]

SPEC = MinhashSpec()
FOUND = pa.schema([("doc", pa.int64()), ("of", pa.int64()), ("jaccard", pa.float64())])


@dataclass(frozen=True)
class Index:
    """Texts by their shingles: `shingles` ascending, each once; that at i is of the texts `holders[starts[i]:starts[i + 1]]`."""

    shingles: Uint64
    starts: Int64
    holders: Int64
    sizes: Int64


def index(texts: pa.ChunkedArray | pa.Array) -> Index:
    """Invert texts; a text is named by its place among them."""
    values, starts = minhash.shingle_sets(texts, SPEC)
    sizes = np.diff(starts)
    holders = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    order = np.argsort(values, kind="stable")
    shingles, first = np.unique(values[order], return_index=True)
    return Index(shingles, np.r_[first, len(values)].astype(np.int64), holders[order], sizes.astype(np.int64))


@dataclass(frozen=True)
class NearTask:
    """A part whose texts are to be compared with those in the file `texts` (a column `text`)."""

    layout: Layout
    part: Part
    texts: Path
    threshold: float

    def described(self) -> str:
        """What to call this task in an error."""
        return f"part {self.part.number} ({self.part.file})"


_INDEX: dict[str, Index] = {}


def near_part(task: NearTask) -> pa.Table:
    """The documents of a part that are near one of the texts: `doc`, which text, the Jaccard index; the nearest each."""
    name = str(task.texts)
    if name not in _INDEX:
        _INDEX.clear()
        _INDEX[name] = index(read_table(task.texts)["text"])
    tables, at = [], task.part.number << 32
    for batch in read_part(task.layout, task.part):
        tables.append(near(batch.column(TEXT), _INDEX[name], task.threshold, at))
        at += batch.num_rows
    return pa.concat_tables(tables) if tables else FOUND.empty_table()


def near(texts: pa.Array, known: Index, threshold: float, first: int = 0) -> pa.Table:
    """Each text whose Jaccard index with one of `known` is at least `threshold` (above 0), with the nearest of them."""
    values, starts = minhash.shingle_sets(texts, SPEC)
    place = np.minimum(np.searchsorted(known.shingles, values), max(len(known.shingles) - 1, 0))
    hit = known.shingles[place] == values if len(known.shingles) else np.zeros(len(values), bool)
    hits = np.r_[0, np.cumsum(hit)]
    sizes = np.diff(starts)
    shared = hits[starts[1:]] - hits[starts[:-1]]
    found: list[tuple[int, int, float]] = []
    for row in np.flatnonzero((shared > 0) & (shared >= threshold * sizes - 1e-9)).tolist():
        inside = slice(int(starts[row]), int(starts[row + 1]))
        of = place[inside][hit[inside]]
        holders = np.concatenate([known.holders[known.starts[i] : known.starts[i + 1]] for i in of.tolist()])
        both = np.bincount(holders, minlength=len(known.sizes))
        jaccard = both / (known.sizes + int(sizes[row]) - both)
        best = int(jaccard.argmax())
        if jaccard[best] >= threshold:
            found.append((first + row, best, float(jaccard[best])))
    columns = list(zip(*found, strict=True)) if found else [(), (), ()]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, FOUND, strict=True)], schema=FOUND)
