"""Sharing a budget: equally over groups, or over targets that take turns or have quotas. Plain integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

#: A ranked list: (document, its size in the budget's unit, the value it was ranked by), best first.
Ranked = Sequence[tuple[int, int, float]]


def balanced(sizes: Mapping[str | None, int], limit: int) -> dict[str | None, int]:
    """Give every group the same, what small ones cannot use going to the others; units that do not divide go by name.

    >>> balanced({"a": 2, "b": 10, "c": 10}, 12)
    {'a': 2, 'b': 5, 'c': 5}
    """
    order = sorted(sizes, key=lambda g: (sizes[g], g is not None, str(g)))
    given: dict[str | None, int] = {}
    left = limit
    for position, group in enumerate(order):
        given[group] = min(sizes[group], left // (len(order) - position))
        left -= given[group]
    for group in sorted(sizes, key=lambda g: (g is not None, str(g))):
        if left and given[group] < sizes[group]:
            given[group] += 1
            left -= 1
    return given


def round_robin(lists: Sequence[Ranked], limit: int) -> list[tuple[int, float, int]]:
    """Targets take turns at their best document not yet taken; a turn that would exceed the limit ends it.

    Returns (document, value, target) in the order taken.
    """
    places = [0] * len(lists)
    taken: set[int] = set()
    picks: list[tuple[int, float, int]] = []
    used = 0
    while True:
        before = len(picks)
        for target, ranked in enumerate(lists):
            while places[target] < len(ranked) and ranked[places[target]][0] in taken:
                places[target] += 1
            if places[target] == len(ranked):
                continue
            doc, size, value = ranked[places[target]]
            if used + size > limit:
                return picks
            used += size
            taken.add(doc)
            picks.append((doc, value, target))
        if len(picks) == before:
            return picks


def quota(lists: Sequence[Ranked], limit: int, weights: Sequence[float]) -> list[tuple[int, float, int]]:
    """Each target fills its share of the limit in turn, without what earlier ones took; the last gets the remainder."""
    taken: set[int] = set()
    picks: list[tuple[int, float, int]] = []
    parts = [Fraction(str(weight)) for weight in weights]
    shares = [int(limit * part / sum(parts)) for part in parts]
    shares[-1] = limit - sum(shares[:-1])
    for target, ranked in enumerate(lists):
        used = 0
        for doc, size, value in ranked:
            if doc in taken:
                continue
            if used + size > shares[target]:
                break
            used += size
            taken.add(doc)
            picks.append((doc, value, target))
    return picks
