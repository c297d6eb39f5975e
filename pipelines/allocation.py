"""Sharing a budget: over groups, or over targets that take turns or have quotas. Plain integers, no documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

#: A ranked list: (document, its size in the budget's unit, the value it was ranked by), best first.
Ranked = Sequence[tuple[int, int, float]]
#: What was taken: (document, value, which list it came from), in the order taken.
Picks = list[tuple[int, float, int]]
#: What tempered weights are computed in: decimal digits are the same on every machine, a power of doubles is not.
_DIGITS = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_EVEN, traps=[])
_WEIGHT_UNITS = 10**40


def balanced(sizes: Mapping[str | None, int], limit: int) -> dict[str | None, int]:
    """Give every group the same, what small ones cannot use going to the others; units that do not divide go by name.

    >>> balanced({"a": 2, "b": 10, "c": 10}, 12)
    {'a': 2, 'b': 5, 'c': 5}
    """
    level, left = 0, limit
    waiting = sorted(sizes.values())
    for position, size in enumerate(waiting):  # raise the level to each size in turn, while there is enough for all
        step = min(size - level, left // (len(waiting) - position))
        level += step
        left -= step * (len(waiting) - position)
        if level < size:
            break
    given = {group: min(size, level) for group, size in sizes.items()}
    for group in sorted(sizes, key=_by_name):
        if left and given[group] < sizes[group]:
            given[group] += 1
            left -= 1
    return given


def _by_name(group: str | None) -> tuple[bool, str]:
    return group is not None, group or ""  # the documents without a group first


def shared(shares: Mapping[str, float], groups: Sequence[str | None], limit: int) -> dict[str | None, int]:
    """Each group's share of the limit, rounded down; a group that is not named, or a null one, gets nothing."""
    return {g: int(_exactly(shares.get(g, 0.0)) * limit) if g is not None else 0 for g in groups}


def _exactly(number: float | Fraction) -> Fraction:
    """The number as it was written: 0.29 of 100 is 29, which the binary 0.28999... would make 28."""
    return Fraction(str(number))


def by_weight(weights: Mapping[str, float | int | Fraction], limit: int) -> dict[str, int]:
    """The limit shared by weights to the last unit: each part rounded down, what is left to the largest remainders, then by name.

    >>> by_weight({"a": 1, "b": 1, "c": 1}, 100)
    {'a': 34, 'b': 33, 'c': 33}
    """
    exact = {name: _exactly(weight) for name, weight in weights.items()}
    total = sum(exact.values())
    if not total:
        return dict.fromkeys(weights, 0)
    quotas = {name: limit * weight / total for name, weight in exact.items()}
    given = {name: int(quota) for name, quota in quotas.items()}
    order = sorted(quotas, key=lambda name: (given[name] - quotas[name], name))
    for name in order[: limit - sum(given.values())]:
        given[name] += 1
    return given


def most_by_weight(weights: Mapping[str, float | int | Fraction], sizes: Mapping[str, int]) -> int:
    """A limit that `by_weight` can share with no part above its size: the least size x total / weight, rounded down."""
    exact = {name: _exactly(weight) for name, weight in weights.items()}
    total = sum(exact.values())
    return min((int(sizes.get(name, 0) * total / weight) for name, weight in exact.items() if weight), default=0)


def tempered(sizes: Mapping[str, int], temperature: float) -> dict[str, int]:
    """Weights p^(1/temperature), p the part of the largest size, in units of 1e-40; 1 is proportional, above it flatter.

    >>> tempered({"a": 100, "b": 25}, 2)["b"] * 2 == tempered({"a": 100, "b": 25}, 2)["a"]
    True
    """
    largest = max(sizes.values(), default=0)
    power = _DIGITS.divide(Decimal(1), Decimal(str(temperature)))
    found = {}
    for name, size in sizes.items():
        part = _DIGITS.power(_DIGITS.divide(Decimal(size), Decimal(largest)), power) if size else Decimal(0)
        found[name] = int(_DIGITS.multiply(part, Decimal(_WEIGHT_UNITS)).to_integral_value(context=_DIGITS))
    return found


def capped(sizes: Mapping[str, int], cap: float) -> dict[str, int]:
    """The most that each source gives: cap x its size, rounded down; a cap above 1 is in epochs."""
    return {name: int(size * _exactly(cap)) for name, size in sizes.items()}


def unimax(most: Mapping[str, int], limit: int) -> dict[str, int]:
    """UniMax (Chung et al. 2023): the one that can give least first, each the same part of what is left, but no more than it can.

    >>> unimax({"a": 10, "b": 100, "c": 1000}, 300)
    {'a': 10, 'b': 100, 'c': 190}
    """
    left, given = limit, {}
    order = sorted(most, key=lambda name: (most[name], name))
    for position, name in enumerate(order):
        given[name] = min(left // (len(order) - position), most[name])
        left -= given[name]
    return given


def round_robin(lists: Sequence[Ranked], limit: int) -> Picks:
    """Targets take turns at their best document not yet taken; the first that would exceed the limit ends it."""
    places = [0] * len(lists)
    taken: set[int] = set()
    picks: Picks = []
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


def quota(lists: Sequence[Ranked], limit: int, weights: Sequence[float]) -> Picks:
    """Each target in turn fills its share of the limit from what earlier ones left; the last has all that remains.

    Shares are rounded down. A target stops before the document that would exceed its share.
    """
    taken: set[int] = set()
    picks: Picks = []
    parts = [_exactly(weight) for weight in weights]
    left = limit
    for target, ranked in enumerate(lists):
        last = target == len(lists) - 1
        share = left if last else int(limit * parts[target] / sum(parts))
        used = 0
        for doc, size, value in ranked:
            if doc in taken:
                continue
            if used + size > share:
                break
            used += size
            taken.add(doc)
            picks.append((doc, value, target))
        left -= used
    return picks
