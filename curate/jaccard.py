"""True Jaccard indices of word 5-grams: who is a near-duplicate of whom, exactly, for some 100,000 texts.

Sets of integers stand for documents, an inverted index finds the pairs that can matter, and each pair is
verified on the sets themselves. Nothing is sketched and nothing is hashed, so what this says about a target
(`curate split`) needs no error bars.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.errors import ConfigError, InternalError

_WORDS = re.compile(r"\w+")
# Prefix lengths come from ceil(threshold * size) in floating point; rounding down by this much lengthens a
# prefix by at most one gram, which costs a candidate and never loses a pair.
_SLACK = 1e-9
# First guesses at the nearest pair are looked for among grams that at most this many documents hold.
_RARE_DOCUMENTS = 16

Ints = npt.NDArray[np.int64]


# ---------------------------------------------------------------------------------------------------------
# Grams: documents as sorted sets of integers


@dataclass(frozen=True)
class _GramSets:
    """Document i holds the grams `grams[starts[i]:starts[i + 1]]`, each once, rarest first.

    A gram is a rank: 0 .. len(holders) - 1 in ascending order of the number of documents that hold it
    (`holders`), so that the first grams of a document are the ones that tell it apart.
    """

    grams: Ints
    starts: Ints
    holders: Ints

    @property
    def sizes(self) -> Ints:
        sizes: Ints = np.diff(self.starts)
        return sizes


def _rank_pairs(left: Ints, right: Ints) -> Ints:
    """Number the distinct pairs 0, 1, ...; exact as long as both sides are below 2**32."""
    rank: Ints = np.unique((left << 32) | right, return_inverse=True)[1].reshape(-1)
    return rank


def _gram_sets(texts: Sequence[str], shingle_words: int) -> _GramSets:
    """Return the sets of word grams of `texts`; integers stand for grams one to one, nothing is hashed."""
    vocabulary: dict[str, int] = {}
    words: list[int] = []
    lengths = np.empty(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        # A document without a single word is compared by its text, as one word that no other text can form.
        found = _WORDS.findall(text.lower()) or ["\0" + text.strip()]
        words.extend([vocabulary.setdefault(word, len(vocabulary)) for word in found])
        lengths[i] = len(found)
    word = np.array(words, dtype=np.int64)
    del words
    if len(word) >= 2**32:
        raise ConfigError(f"expected a target of fewer than 2**32 words, got {len(word)}; split it in pieces")

    # Words that end a document are padded by 0, words themselves count from 1: a short document's one gram
    # is its words and then padding, and so differs from every gram of full length.
    ends = np.cumsum(lengths)
    full = lengths >= shingle_words
    room = np.repeat(ends, lengths) - np.arange(len(word))  # words from here to the document's end
    padded = np.concatenate([word + 1, np.zeros(shingle_words, dtype=np.int64)])
    gram = padded[: len(word)]
    for k in range(1, shingle_words):
        gram = _rank_pairs(gram, np.where(room > k, padded[k : k + len(word)], 0))

    first = np.zeros(len(word), dtype=bool)
    first[(ends - lengths)] = True
    counts = np.where(np.repeat(full, lengths), room >= shingle_words, first)
    document = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)[counts]
    return _rarest_first(document, gram[counts], len(texts))


def _rarest_first(document: Ints, gram: Ints, documents: int) -> _GramSets:
    """Make sets of (document, gram) pairs, which may repeat, and renumber grams by how few hold them."""
    kinds = int(gram.max()) + 1 if len(gram) else 0
    pairs = _distinct(document * max(kinds, 1) + gram)
    document, gram = pairs // max(kinds, 1), pairs % max(kinds, 1)
    holders = np.bincount(gram, minlength=kinds)
    by_rarity = np.argsort(holders, kind="stable")
    rank = np.empty(kinds, dtype=np.int64)
    rank[by_rarity] = np.arange(kinds)
    ordered = np.sort(document * max(kinds, 1) + rank[gram])
    starts = np.searchsorted(ordered, np.arange(documents + 1, dtype=np.int64) * max(kinds, 1))
    return _GramSets(ordered % max(kinds, 1), starts.astype(np.int64), holders[by_rarity].astype(np.int64))


def _distinct(values: Ints) -> Ints:
    """Return the distinct values, ascending; np.unique goes through a hash table and is five times slower."""
    if len(values) < 2:
        return values
    values = np.sort(values)
    first = np.empty(len(values), dtype=bool)
    first[0] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def _ranges(starts: Ints, stops: Ints) -> Ints:
    """Concatenate arange(starts[i], stops[i]) for all i."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    if not len(ends) or not ends[-1]:
        return np.empty(0, dtype=np.int64)
    ranges: Ints = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return ranges


# ---------------------------------------------------------------------------------------------------------
# Clusters


def near_duplicate_clusters(
    texts: Sequence[str], *, threshold: float = 0.5, shingle_words: int = 5
) -> list[int]:
    r"""Join documents whose word 5-grams have a Jaccard index of `threshold` or more, transitively.

    Returns one cluster per text, named by the least index in it. Words are the lower-cased runs of `\w`; a
    document of fewer than `shingle_words` words has one gram, all its words; one without any word is compared
    by its text. Every joined pair was verified on the sets themselves, and no pair is missed.

    Prefix filtering (Bayardo, Ma, Srikant 2007; Xiao et al. 2008): with grams in one global order, rarest
    first, two sets can only reach the threshold if they share one of their first few grams, so phrases that
    everything holds are looked at only in documents made of little else. `threshold` is in (0, 1]; memory is
    about 120 bytes a word.

    >>> near_duplicate_clusters(["one two three four five six", "One two three four five six!", "one two"])
    [0, 0, 2]
    """
    check_threshold(threshold, shingle_words)
    first_copy: dict[str, int] = {}
    copy_of = [first_copy.setdefault(text, i) for i, text in enumerate(texts)]
    distinct = list(first_copy.values())
    parent = _join_similar(_gram_sets([texts[i] for i in distinct], shingle_words), threshold)
    # Distinct texts stand in ascending order of their first copy, so the least distinct index is the least.
    cluster = {index: distinct[root_of(parent, place)] for place, index in enumerate(distinct)}
    return [cluster[index] for index in copy_of]


def check_threshold(threshold: float, shingle_words: int) -> None:
    """Raise ConfigError unless 0 < threshold <= 1 and there is a word in a shingle."""
    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"threshold: expected a Jaccard index above 0 and at most 1, got {threshold!r}")
    if shingle_words < 1:
        raise ConfigError(f"shingle_words: expected 1 or more words, got {shingle_words!r}")


def root_of(parent: Ints, i: int) -> int:
    """Return the least member of i's cluster, and point the way there straight at it."""
    top = i
    while parent[top] != top:
        top = int(parent[top])
    while parent[i] != top:
        parent[i], i = top, int(parent[i])
    return top


def _join_similar(sets: _GramSets, threshold: float) -> Ints:
    """Return a union-find forest over the documents, roots being the least indices.

    Documents are taken from small to large and each asks only the ones before it. The asker must look up its
    |x| - ceil(t |x|) + 1 rarest grams; since the asked y is the smaller, |y| - ceil(2 t / (1 + t) |y|) + 1 of
    its grams need to stand in the index (half as many at t = 0.5).

    A thousand copies of a form would still meet each other a million times. So each gram remembers whether
    all that have shown it are of one cluster (`home`); one of them is asked first, and when it is near, the
    gram has nothing more to tell.
    """
    order = np.argsort(sets.sizes, kind="stable")
    sizes = sets.sizes[order]
    ask = sizes - np.ceil(threshold * sizes - _SLACK).astype(np.int64) + 1
    shown = sizes - np.ceil(2 * threshold / (1 + threshold) * sizes - _SLACK).astype(np.int64) + 1
    smallest = np.searchsorted(sizes, np.ceil(threshold * sizes - _SLACK))
    index = _postings(sets, order, shown)
    filled = np.zeros(len(sets.holders), dtype=np.int64)  # how many of a gram's postings came before
    home = np.full(len(sets.holders), -1, dtype=np.int64)  # a member of the one cluster, -1 for several
    forest = _Forest(sets, threshold)
    for place in range(len(order)):
        document = int(order[place])
        begin = int(sets.starts[document])
        asked = sets.grams[begin : begin + int(ask[place])]
        asked = asked[filled[asked] > 0]
        if len(asked):
            homes = home[asked]
            single = np.flatnonzero(homes >= 0)
            if len(single):
                firsts = np.unique(forest.roots(homes[single]), return_index=True)[1]
                last = index.starts[asked[single[firsts]]] + filled[asked[single[firsts]]] - 1
                forest.join_near(document, _distinct(order[index.places[last]]))
                told = np.zeros(len(asked), dtype=bool)
                told[single] = forest.roots(homes[single]) == forest.root(document)
                asked = asked[~told]
            met = index.places[_ranges(index.starts[asked], index.starts[asked] + filled[asked])]
            met = _distinct(met[met >= smallest[place]])
            forest.join_near(document, order[met])
        shows = sets.grams[begin : begin + int(shown[place])]
        mine = forest.root(document)
        new = filled[shows] == 0
        home[shows[new]] = document
        old = shows[~new]
        old = old[home[old] >= 0]
        if len(old):
            home[old[forest.roots(home[old]) != mine]] = -1
        filled[shows] += 1
    return forest.parent


class _Forest:
    """Clusters as a union-find forest whose roots are the least members, and the test that joins them."""

    def __init__(self, sets: _GramSets, threshold: float) -> None:
        self.sets = sets
        self.sizes = sets.sizes
        self.threshold = threshold
        self.parent: Ints = np.arange(len(self.sizes), dtype=np.int64)
        self.marked = np.zeros(len(sets.holders), dtype=bool)

    def root(self, i: int) -> int:
        return root_of(self.parent, i)

    def roots(self, members: Ints) -> Ints:
        """Return `root` of each of `members`, and point them straight at it."""
        top = self.parent[members]
        while True:
            above = self.parent[top]
            if np.array_equal(above, top):
                break
            top = above
        self.parent[members] = top
        return top

    def join_near(self, document: int, others: Ints) -> None:
        """Join `document` with the clusters of those of `others` that are near it.

        First one of each cluster is asked, then those of the clusters that it did not speak for.
        """
        roots = self.roots(others)
        foreign = roots != self.root(document)
        others, roots = others[foreign], roots[foreign]
        first = np.unique(roots, return_index=True)[1]
        self._join_verified(document, others[first])
        rest = np.delete(others, first)
        self._join_verified(document, rest[self.roots(rest) != self.root(document)])

    def _join_verified(self, document: int, others: Ints) -> None:
        if not len(others):
            return
        own = self.sets.grams[self.sets.starts[document] : self.sets.starts[document + 1]]
        self.marked[own] = True
        shared = _shared(self.sets, others, self.marked)
        self.marked[own] = False
        union = len(own) + self.sizes[others] - shared
        for other in others[shared / union >= self.threshold]:
            a, b = self.root(document), self.root(int(other))
            self.parent[max(a, b)] = min(a, b)


def _shared(sets: _GramSets, documents: Ints, marked: npt.NDArray[np.bool_]) -> Ints:
    """Count, for each of `documents` (at least one, none without grams), the grams that are marked."""
    begin, end = sets.starts[documents], sets.starts[documents + 1]
    hits = marked[sets.grams[_ranges(begin, end)]].astype(np.int64)
    counts: Ints = np.add.reduceat(hits, np.cumsum(end - begin) - (end - begin))
    return counts


@dataclass(frozen=True)
class _Postings:
    """Gram g is shown by the places `places[starts[g]:starts[g + 1]]`, ascending."""

    places: Ints
    starts: Ints


def _postings(sets: _GramSets, order: Ints, shown: Ints) -> _Postings:
    """Invert the first `shown[p]` grams of the document at each place p of `order`."""
    begin = sets.starts[order]
    grams = sets.grams[_ranges(begin, begin + shown)]
    places = np.repeat(np.arange(len(order), dtype=np.int64), shown)
    by_gram = np.argsort(grams, kind="stable")
    starts = np.searchsorted(grams[by_gram], np.arange(len(sets.holders) + 1))
    return _Postings(places[by_gram], starts.astype(np.int64))


def largest_jaccard_between(texts: Sequence[str], groups: Sequence[str], *, shingle_words: int = 5) -> float:
    """Return the largest Jaccard index of two documents of different groups, 0.0 where none share a gram.

    Exact, in [0, 1]. A first look at the rare grams finds a good pair; a second, by prefixes as long as that
    pair demands, finds any better one. Shares no search with `near_duplicate_clusters`, which it checks.
    """
    if len(texts) != len(groups):
        raise InternalError(f"expected one group per text, got {len(groups)} for {len(texts)} texts")
    sets = _gram_sets(texts, shingle_words)
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    group = np.array([names[name] for name in groups], dtype=np.int64)
    if len(names) < 2:
        return 0.0
    rare = int(np.searchsorted(sets.holders, _RARE_DOCUMENTS + 1))
    shared = int(np.searchsorted(sets.holders, 2))
    best = _best_across(sets, group, 0.0, shared, rare)
    return _best_across(sets, group, best, shared, len(sets.holders))


def _best_across(sets: _GramSets, group: Ints, best: float, low: int, high: int) -> float:
    """Return the largest index, not below `best`, of pairs across groups that share a gram in [low, high)."""
    sizes = sets.sizes
    everyone = np.arange(len(sizes), dtype=np.int64)
    prefix = sizes - np.ceil(best * sizes - _SLACK).astype(np.int64) + 1
    index = _postings(sets, everyone, np.minimum(prefix, sizes))
    # A gram whose showers are all of one group has no pair to offer; most grams of a cluster are such.
    holder_group, gram = group[index.places], np.repeat(np.arange(len(sets.holders)), np.diff(index.starts))
    lowest, highest = np.full(len(sets.holders), len(group)), np.full(len(sets.holders), -1)
    np.minimum.at(lowest, gram, holder_group)
    np.maximum.at(highest, gram, holder_group)
    offers = lowest < highest
    marked = np.zeros(len(sets.holders), dtype=bool)
    seen = np.zeros(len(sizes), dtype=bool)
    for document in everyone:
        begin, end = int(sets.starts[document]), int(sets.starts[document + 1])
        whole = sets.grams[begin:end]
        length = int(sizes[document] - np.ceil(best * sizes[document] - _SLACK)) + 1
        asked = whole[:length]
        asked = asked[int(np.searchsorted(asked, low)) : int(np.searchsorted(asked, high))]
        asked = asked[offers[asked]]
        met = index.places[_ranges(index.starts[asked], index.starts[asked + 1])]
        # Two sets of sizes a <= b can reach a / b at most; the pair is asked from the later document.
        reach = np.minimum(sizes[met], sizes[document]) / np.maximum(sizes[met], sizes[document])
        met = met[(met < document) & (group[met] != group[document]) & (reach > best)]
        seen[met] = True
        met = _distinct(met) if len(met) < 1000 else np.flatnonzero(seen)
        seen[met] = False
        if not len(met):
            continue
        marked[whole] = True
        shared = _shared(sets, met, marked)
        marked[whole] = False
        best = max(best, float(np.max(shared / (sizes[met] + sizes[document] - shared))))
        if best == 1.0:
            break
    return best
