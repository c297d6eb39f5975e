"""What documents share with items, in sets of tuples: the twin of curate.contamination and its kernel."""

from __future__ import annotations

import math
import unicodedata

from twins import UNSPACED

#: document, item -> containment, overlap, exact
Shares = dict[tuple[int, int], tuple[float, float, bool]]


def words(text: str) -> list[str]:
    """Letters, digits, marks and underscores in NFKC and lower case; a character of an unspaced script alone."""
    kept = "".join(c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in unicodedata.normalize("NFKC", text).lower())
    return UNSPACED.sub(r" \g<0> ", kept).split()


def grams(terms: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(terms[i : i + n]) for i in range(len(terms) - n + 1)}


def checkable(text: str, min_words: int, min_characters: int) -> bool:
    solid = [c for c in unicodedata.normalize("NFKC", text) if not c.isspace()]
    unspaced = sum(UNSPACED.fullmatch(c) is not None for c in solid)
    return len(words(text)) >= (min_characters if 2 * unspaced > len(solid) else min_words)


def shares(documents: list[str | None], items: list[str], *, few: int, many: int, flag: float, min_words: int, min_characters: int) -> Shares:
    """Every pair that shares `flag` of the item's n-grams of `few` words, or one of `many`."""
    pool = [words(d or "") for d in documents]
    held = {n: [grams(d, n) for d in pool] for n in (few, many)}

    def weight(gram: tuple[str, ...]) -> float:
        return math.log(1 + len(documents) / (1 + sum(gram in d for d in held[len(gram)])))

    found: Shares = {}
    for i, item in enumerate(items):
        if not checkable(item, min_words, min_characters):
            continue
        mine = words(item)
        short, long = grams(mine, few), grams(mine, many)
        for d, document in enumerate(pool):
            if documents[d] is None:
                continue
            containment = sum(map(weight, short & held[few][d])) / sum(map(weight, short))
            if long:
                overlap = sum(map(weight, long & held[many][d])) / sum(map(weight, long))
                told = overlap > 0
            else:
                overlap = float(tuple(mine) in grams(document, len(mine)))
                told = False  # a whole short item has all of its n-grams
            if told or containment >= flag:
                found[d, i] = (containment, overlap, mine == document)
    return found
