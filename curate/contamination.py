"""What documents share with evaluation items: n-grams of words, weighted by how rare they are in the pool.

    index = Index(items)                        items: a string array
    seen = index.count(documents)               int64[G]: documents that hold each of the items' n-grams
    found = index.weigh(seen, len(documents), flag=0.2).match(documents)

Words are what is left of a text after NFKC, lower case, and taking every character that is no letter, digit, mark or
underscore for a separator; a character of a script without spaces is a word. Texts that differ in case, punctuation,
white space or width only are the same words. The passes are native/contamination.c's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import _native, minhash, ngrams
from curate.errors import ConfigError

Int64 = npt.NDArray[np.int64]
Uint64 = npt.NDArray[np.uint64]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_NGRAM = 64
#: A gram's weight is an integer, in these parts of a nat: sums do not depend on the order of their terms.
UNIT = 1 << 20
_MULTIPLIER, _LONG = np.uint64(0x243F6A8885A308D3), np.uint64(0xBE5466CF34E90C6C)  # C0 and C5 of native/mix64.h
#: Characters whose words NFKC does not change wherever they stand together: texts of these alone, nine of ten, are not normalised.
_STABLE = (
    r"\x00-\x{a7}\x{a9}\x{ab}-\x{ae}\x{b0}\x{b1}\x{b6}\x{b7}\x{bb}\x{bf}-\x{131}\x{134}-\x{13e}\x{141}-\x{148}\x{14a}-\x{17e}"
    r"\x{391}-\x{3a1}\x{3a3}-\x{3a9}\x{3b1}-\x{3c9}\x{400}-\x{45f}\x{621}-\x{64a}\x{2000}-\x{2016}\x{2018}-\x{203d}\x{2040}-\x{206f}"
    r"\x{20ac}\x{3001}-\x{3020}\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}"
)
_MAY_CHANGE = f"[^{_STABLE}]"
#: Found pairs that a call of the kernel has room for, beside one for each item.
_ROOM = 65_536


def normalized(text: pa.Array) -> pa.Array:
    """The texts in NFKC, at least those whose words it changes; null stays null."""
    with ngrams.Blame(0):
        text.validate()
        if not (pa.types.is_string(text.type) or pa.types.is_large_string(text.type)):
            raise ConfigError(f"text column: expected a string or large_string array, got {text.type}")
        changes = pc.fill_null(pc.match_substring_regex(text, _MAY_CHANGE), False)
        if not pc.any(changes).as_py():
            return text
        return pc.replace_with_mask(text, changes, pc.utf8_normalize(text.filter(changes), form="NFKC"))


def terms(text: pa.Array) -> tuple[Uint64, Int64]:
    """Hashes of the words of normalised texts, uint64[words of all]; ends int64[n]: text i's stop at ends[i]."""
    size = text.nbytes  # of a slice, what it holds; offsets and the bitmap are in it too
    values, ends = np.empty(size // 2 + len(text) + 80, np.uint64), np.empty(len(text), np.int64)
    with ngrams.Blame(0):
        _native.contamination_terms(text, ngrams.simd(), values, ends)
    return values[: ends[-1] if len(ends) else 0], ends


@dataclass(frozen=True)
class Found:
    """What documents share with items, a pair a place, by document and item; and of every document its words.

    `row`, `item` int64[n]; `containment` float64[n], 0..1: the share, by weight, of the item's different short n-grams
    that the document holds; `overlap` float64[n], 0..1: of its long ones (of an item shorter than one: 1 where all its
    words stand there in a row, else 0); `exact` bool[n]: the document's words are the item's and no others; `start`,
    `stop` int64[n]: the longest run of shared short n-grams, in bytes of the normalised, lower-cased text.
    `words` int64[documents] (-1 for null), `whole` uint64[documents]: a hash of all of them.
    """

    row: Int64
    item: Int64
    containment: Float64
    overlap: Float64
    exact: Bools
    start: Int64
    stop: Int64
    words: Int64
    whole: Uint64


class Index:
    """The n-grams of items (string array; null has no words): `sizes` int64[I] their words, `checkable` bool[I].

    An item is checkable with `min_words` words or more; with more than half of its characters in a script without
    spaces, where a word is a character, with `min_characters` of them. The others are in no n-gram's list.
    """

    def __init__(self, items: pa.Array, *, few: int = 5, many: int = 13, min_words: int = 5, min_characters: int = 10) -> None:
        check_sizes(few, many, min_words, min_characters)
        self.few, self.many = few, many
        text = normalized(items)
        self.terms, ends = terms(text)
        self.term_starts: Int64 = np.concatenate([[0], ends]).astype(np.int64)
        self.sizes: Int64 = np.diff(self.term_starts)
        self.checkable: Bools = self.sizes >= np.where(minhash.unspaced(text) > 0.5, min_characters, min_words)
        self.whole = np.array([_key(self.terms[a:b]) for a, b in zip(self.term_starts[:-1], ends, strict=True)], np.uint64)
        self._postings()
        self._table()

    def _postings(self) -> None:
        grams, owners, long = [], [], []
        for n, salt in ((self.few, np.uint64(0)), (self.many, _LONG)):
            keys, owner = self._grams(n)
            grams.append(keys ^ salt)
            owners.append(owner)
            long.append(np.full(len(keys), n == self.many))
        keys, owner = np.concatenate(grams), np.concatenate(owners)
        order = np.lexsort((owner, keys))
        keys, owner, is_long = keys[order], owner[order], np.concatenate(long)[order]
        new = np.ones(len(keys), bool)
        new[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
        keys, owner, is_long = keys[new], owner[new], is_long[new]
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        places = np.flatnonzero(first)
        #: uint64[G], ascending; G is also what `count` gives
        self.grams: Uint64 = np.ascontiguousarray(keys[places])
        self.is_long: Bools = is_long[places]
        self.starts: Int64 = np.append(places, len(keys)).astype(np.int64)
        self.items = np.ascontiguousarray(owner, np.int32)

    def _grams(self, n: int) -> tuple[Uint64, Int64]:
        """Keys of all n-grams of the checkable items, and whose they are."""
        usable = np.where(self.checkable, np.maximum(self.sizes - n + 1, 0), 0)
        owner = np.repeat(np.arange(len(self.sizes)), usable)
        inside = np.arange(len(owner)) - np.repeat(np.cumsum(usable) - usable, usable)
        place = self.term_starts[:-1][owner] + inside
        keys = np.zeros(len(owner), np.uint64)
        with np.errstate(over="ignore"):
            for i in range(n):
                keys = keys * _MULTIPLIER + self.terms[place + i]
        return keys, owner

    def _table(self) -> None:
        slots = 1 << max(4, (2 * len(self.grams)).bit_length())
        self._bits = max(10, (8 * len(self.grams)).bit_length())
        self._keys, self._ids = np.zeros(slots, np.uint64), np.full(slots, -1, np.int32)
        self._filter = np.zeros(1 << (self._bits - 3), np.uint8)
        _native.contamination_enter(self.grams, self._keys, self._ids, self._filter, self._bits)
        nothing = np.zeros(len(self.grams), np.int64)
        self._counting = self.handle(nothing, np.zeros(len(self.sizes), np.int64))

    def handle(self, weights: Int64, least: Int64) -> object:
        """The arrays, checked once, as the kernel takes them."""
        return _native.contamination_index(
            self.few, self.many, self._keys, self._ids, self._filter, self._bits, self.starts, weights, self.items,
            self.term_starts, self.terms, least,
        )  # fmt: skip

    def count(self, text: pa.Array) -> Int64:
        """int64[G]: how many of the texts hold each n-gram of the items."""
        documents = np.zeros(len(self.grams), np.int64)
        with ngrams.Blame(0):
            _native.contamination_count(normalized(text), self._counting, ngrams.simd(), documents)
        return documents

    def weigh(self, documents: Int64, of: int, *, flag: float) -> Weighed:
        """The index with each n-gram weighing ln(1 + N / (1 + n)), where n of the pool's N documents hold it.

        Pairs with a containment of `flag` or more are told of, and all that share a long n-gram.
        """
        weights = np.rint(np.log1p(of / (1.0 + documents)) * UNIT).astype(np.int64)
        return Weighed(self, np.maximum(weights, 1), flag)


class Weighed:
    """An index that knows what its n-grams weigh; `match` holds texts against it."""

    def __init__(self, index: Index, weights: Int64, flag: float) -> None:
        self.index = index
        gram = np.repeat(np.arange(len(index.grams)), np.diff(index.starts))
        self._totals = []
        for wanted in (~index.is_long, index.is_long):
            total = np.zeros(len(index.sizes), np.int64)
            chosen = wanted[gram]
            np.add.at(total, index.items[chosen], weights[gram[chosen]])
            self._totals.append(total)
        least = np.maximum(np.ceil(flag * self._totals[0]).astype(np.int64), 1)
        self._handle = index.handle(weights, least)

    def match(self, text: pa.Array) -> Found:
        """Hold texts (string or large_string) against the items."""
        index = self.index
        text = normalized(text)
        words, whole = np.empty(len(text), np.int64), np.empty(len(text), np.uint64)
        room = np.empty((len(index.sizes) + _ROOM, 6), np.int64)
        pieces, row = [np.empty((0, 6), np.int64)], 0
        with ngrams.Blame(0):
            while row < len(text):
                row, n = _native.contamination_match(text, self._handle, ngrams.simd(), row, words, whole, room)
                pieces.append(room[:n].copy())
        found = np.concatenate(pieces)
        rows, item = found[:, 0], found[:, 1]
        few, many = (total[item] for total in self._totals)
        overlap = np.where(many > 0, found[:, 3] / np.maximum(many, 1), found[:, 3])
        exact = (words[rows] == index.sizes[item]) & (whole[rows] == index.whole[item])
        return Found(rows, item, found[:, 2] / few, overlap.astype(np.float64), exact, found[:, 4], found[:, 5], words, whole)


def passages(text: pa.Array, found: Found, most: int = 300) -> Iterator[str]:
    """The shared passage of each pair, as it was compared: normalised and lower-cased; at most `most` characters."""
    before, lower = -1, b""
    text = normalized(text.take(pa.array(np.unique(found.row))))
    place = {row: i for i, row in enumerate(np.unique(found.row).tolist())}
    for row, start, stop in zip(found.row.tolist(), found.start.tolist(), found.stop.tolist(), strict=True):
        if row != before:
            before, lower = row, text[place[row]].as_py().lower().encode()
        passage = lower[start:stop].decode(errors="replace")
        yield passage if len(passage) <= most else passage[:most] + "…"


def check_sizes(few: int, many: int, min_words: int, min_characters: int) -> None:
    """Raise ConfigError for n-grams that cannot be, or items that are checkable without one."""
    if not 1 <= few < many <= MAX_NGRAM:
        raise ConfigError(f"expected 1 <= containment_ngram < ngram <= {MAX_NGRAM}, got {few} and {many}")
    for name, value in (("min_words", min_words), ("min_characters", min_characters)):
        if value < few:
            raise ConfigError(f"expected {name} of at least containment_ngram ({few}), for a shorter item has no such n-gram, got {value}")


def _key(values: Uint64) -> np.uint64:
    key: Any = 0
    for value in values.tolist():
        key = (key * int(_MULTIPLIER) + value) & (2**64 - 1)
    return np.uint64(key)
