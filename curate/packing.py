"""Documents of tokens laid into sequences of one length; plain integers, no tokens.

    lengths [5, 3, 2, 9], limit 8, best_fit    | 9: first 8 | 5 3 | 9: last 1, 2 |    three sequences, documents in order inside
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Packing = Literal["best_fit", "concat", "one"]


@dataclass(frozen=True)
class Pieces:
    """Where each piece of a document lies, sorted by sequence and place: int64 arrays of one length.

    `document` is its number, `first` the piece's first token inside it, `length` its tokens, `sequence` and `start` its place.
    """

    document: Ints
    first: Ints
    length: Ints
    sequence: Ints
    start: Ints
    sequences: int


def pack(lengths: npt.ArrayLike, limit: int, how: Packing = "best_fit", groups: npt.ArrayLike | None = None) -> Pieces:
    """Lay documents of `lengths` tokens (0 or more; those of 0 have no piece) into sequences of `limit` tokens.

    best_fit  a document longer than a sequence is cut into full pieces and a rest; the pieces, longest first, go where they
              leave the least room (best-fit decreasing; of equal ones the one that came first)
    concat    one behind the other, cut wherever a sequence is full
    one       each in a sequence of its own, the longer cut as for best_fit

    Sequences are in the order of the first of their pieces, pieces inside in the order of the documents. `groups` are whole
    numbers, ascending: best_fit then packs each group on its own, in their order; the others keep to the order anyway.
    """
    sizes = np.asarray(lengths, np.int64)
    if groups is not None and how == "best_fit":
        return _each(sizes, limit, np.asarray(groups, np.int64))
    if how == "concat":
        return _concatenated(sizes, limit)
    document, first, length = _cut(sizes, limit)
    bins = np.arange(len(length)) if how == "one" else _best_fit(length, limit)
    return _placed(document, first, length, bins)


def _each(sizes: Ints, limit: int, groups: Ints) -> Pieces:
    """Group by group, each behind the one before it."""
    bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(sizes)] if len(sizes) else [0]
    parts, behind = [pack(sizes[:0], limit)], 0
    for begin, end in pairwise(bounds):
        found = pack(sizes[begin:end], limit)
        parts.append(Pieces(found.document + begin, found.first, found.length, found.sequence + behind, found.start, found.sequences))
        behind += found.sequences
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("document", "first", "length", "sequence", "start")]
    return Pieces(columns[0], columns[1], columns[2], columns[3], columns[4], behind)


def _cut(sizes: Ints, limit: int) -> tuple[Ints, Ints, Ints]:
    counts = -(-sizes // limit)
    document = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = number * limit
    return document, first, np.minimum(sizes[document] - first, limit)


def _best_fit(length: Ints, limit: int) -> Ints:
    """The bin of each piece. Which rooms are there is one integer, a bit for each size, so the tightest is its lowest bit."""
    bins = np.empty(len(length), np.int64)
    order = np.argsort(-length, kind="stable")
    full = int((length == limit).sum())
    bins[order[:full]] = np.arange(full)
    rooms: dict[int, list[int]] = {}
    there, opened = 0, full
    for piece, size in zip(order[full:].tolist(), length[order[full:]].tolist(), strict=True):
        fitting = there >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            stack = rooms[room]
            chosen = stack.pop()
            if not stack:
                there ^= 1 << room
        else:
            room, chosen = limit, opened
            opened += 1
        bins[piece] = chosen
        left = room - size
        if left:
            rooms.setdefault(left, []).append(chosen)
            there |= 1 << left
    return bins


def _placed(document: Ints, first: Ints, length: Ints, bins: Ints) -> Pieces:
    count = int(bins.max()) + 1 if len(bins) else 0
    lead = np.full(count, len(bins), np.int64)
    np.minimum.at(lead, bins, np.arange(len(bins)))
    rank = np.empty(count, np.int64)
    rank[np.argsort(lead, kind="stable")] = np.arange(count)
    sequence = rank[bins]
    order = np.argsort(sequence, kind="stable")
    document, first, length, sequence = document[order], first[order], length[order], sequence[order]
    return Pieces(document, first, length, sequence, _starts(sequence, length), count)


def _starts(sequence: Ints, length: Ints) -> Ints:
    """Each piece's place: the tokens before it in its sequence."""
    before = np.cumsum(length) - length
    opens = np.r_[True, sequence[1:] != sequence[:-1]] if len(sequence) else np.empty(0, bool)
    base: npt.NDArray[Any] = before[np.flatnonzero(opens)]
    return before - base[np.cumsum(opens) - 1] if len(sequence) else before


def _concatenated(sizes: Ints, limit: int) -> Pieces:
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    begins = ends - sizes
    cuts = np.unique(np.concatenate([begins[sizes > 0], np.arange(0, total, limit)]))
    document = np.searchsorted(ends, cuts, side="right")
    length = np.diff(np.append(cuts, total))
    return Pieces(document, cuts - begins[document], length, cuts // limit, cuts % limit, -(-total // limit))
