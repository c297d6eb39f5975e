"""What a mixture, or a stage of its schedule, asks of each source: a budget shared by weights, with a part for replay.

Plain numbers in the budget's unit, no documents. A source can give its size as many times as its epochs say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import msgspec

from curate import budget
from curate.errors import ConfigError
from curate.params import did_you_mean
from curate.pipelines import allocation

_SHARE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*\Z", re.ASCII)
#: Sources that a refusal names.
NAMED = 10


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of a mixture, from 0 to 1 or written as 10%, that comes from a general pool: one source, or several by their size."""

    source: str | list[str]
    share: float | str

    @property
    def sources(self) -> list[str]:
        """The sources of the pool, each once."""
        return [self.source] if isinstance(self.source, str) else list(dict.fromkeys(self.source))

    @property
    def part(self) -> Fraction:
        """The share, exactly as it was written; ConfigError where it is none between 0 and 1."""
        match = _SHARE.match(self.share) if isinstance(self.share, str) else None
        if isinstance(self.share, str) and match is None:
            raise ConfigError(f"replay.share: expected a share such as 10% or 0.1, got {self.share!r}")
        part = Fraction(match.group(1)) / 100 if match else Fraction(str(self.share)) if math.isfinite(float(self.share)) else Fraction(-1)
        if not 0 < part < 1:
            raise ConfigError(f"replay.share: expected a share above 0% and below 100%, got {self.share!r}")
        return part


class Portion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of what: the whole of a mixture, or one stage of its schedule (docs/mix.md)."""

    budget: int | str | dict[str, int | str]
    weights: dict[str, float] | Literal["proportional", "temperature", "unimax"] | None = None
    temperature: float | None = None
    cap: float | None = None
    replay: Replay | None = None

    def unit(self) -> str:
        """The unit of its budget, or of all its budgets. ConfigError for settings that say nothing together."""
        if isinstance(self.budget, Mapping):
            self._check_budgets(self.budget)
        elif self.weights is None:
            budget.parse(self.budget)
            raise ConfigError("mix needs weights: {SOURCE: WEIGHT, ...}, proportional, temperature or unimax; or a budget for each source: budget: {SOURCE: AMOUNT, ...}")
        if isinstance(self.weights, Mapping) and not (all(0 <= w < math.inf for w in self.weights.values()) and any(self.weights.values())):
            raise ConfigError(f"expected weights of 0 or more, one at least above 0, got {self.weights}")
        if (self.temperature is not None) != (self.weights == "temperature"):
            raise ConfigError(f"temperature and weights: temperature go together, got temperature: {self.temperature} and weights: {self.weights}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(f"expected a temperature above 0 (1 is proportional, above it flatter), got {self.temperature}")
        if self.cap is not None and self.weights != "unimax":
            raise ConfigError(f"cap belongs to weights: unimax, not to {self.weights}")
        if self.cap is not None and not 0 < self.cap < math.inf:
            raise ConfigError(f"expected a cap above 0 (a source's share of itself; above 1, how often it is gone through), got {self.cap}")
        if self.replay is not None:
            self._check_replay(self.replay)
        return budget.parse(self.written).unit

    @property
    def written(self) -> int | str:
        """A budget as it is written, the first of several."""
        return next(iter(self.budget.values())) if isinstance(self.budget, Mapping) else self.budget

    def _check_budgets(self, budgets: Mapping[str, int | str]) -> None:
        if self.weights is not None:
            raise ConfigError("a budget for each source says what weights would; leave weights out, or give one budget")
        units = {budget.parse(written).unit for written in budgets.values()}
        if len(units) != 1:
            raise ConfigError(f"expected a budget for each source, all in one unit, got {', '.join(sorted(units)) or 'none'}: {budgets}")

    def _check_replay(self, replay: Replay) -> None:
        if isinstance(self.budget, Mapping):
            raise ConfigError("a budget for each source says what replay would; leave replay out and give the replayed source a budget")
        if not replay.sources:
            raise ConfigError("replay.source: expected the name of a source, or several, got none")
        both = [name for name in replay.sources if isinstance(self.weights, Mapping) and name in self.weights]
        if both:
            raise ConfigError(f"replay: {', '.join(both)} has a weight too, and replay.share says how much of the mixture it is; leave it out of weights")
        _ = replay.part


@dataclass(frozen=True)
class Pool:
    """By source: its size in the unit, its documents, and what it may still give. `again`: documents may be taken more than once."""

    unit: str
    sizes: Mapping[str, int]
    documents: Mapping[str, int]
    left: Mapping[str, int]
    again: bool = False


def ask(portion: Portion, pool: Pool) -> tuple[dict[str, int], list[str]]:
    """What every source is to give, in the unit, and warnings; ConfigError with the numbers where that cannot be had."""
    if isinstance(portion.budget, Mapping):
        asked = {name: budget.parse(part).of(pool.documents.get(name, 0)) for name, part in portion.budget.items()}
        return asked, _have(asked, pool, None)
    limit = budget.parse(portion.budget).of(sum(pool.documents.values()))
    general, part = _general(portion.replay, pool.sizes)
    others = {name: size for name, size in pool.sizes.items() if name not in general}
    if portion.weights == "unimax":
        parts = allocation.by_weight({"replay": part, "rest": 1 - part}, limit)
        asked = _unimax(portion, parts["rest"], others, pool) | allocation.by_weight(general, parts["replay"])
        return asked, _have(asked, pool, None)
    weights = _weights(portion, others)
    if limit and not any(weights.values()):
        raise ConfigError(f"budget: {portion.budget} is asked of sources that have nothing: no document that reached this stage has a source, a size in {pool.unit} and, where one is named, a number in the column of by")
    shared = _scaled(weights, 1 - part) | _scaled(general, part)
    asked = allocation.by_weight(shared, limit)
    return asked, _have(asked, pool, allocation.most_by_weight(shared, pool.left))


def _general(replay: Replay | None, sizes: Mapping[str, int]) -> tuple[dict[str, int], Fraction]:
    """The general pool's sources by their sizes, and its part of the mixture."""
    if replay is None:
        return {}, Fraction(0)
    found = {name: sizes.get(name, 0) for name in replay.sources}
    return (found if any(found.values()) else dict.fromkeys(found, 1)), replay.part  # of nothing there all is asked, and refused


def _weights(portion: Portion, sizes: Mapping[str, int]) -> Mapping[str, float | int]:
    if isinstance(portion.weights, Mapping):
        return portion.weights
    return sizes if portion.weights == "proportional" else allocation.tempered(sizes, portion.temperature or 1.0)


def _scaled(weights: Mapping[str, float | int], total: Fraction) -> dict[str, Fraction]:
    """The weights, of the sum `total`."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    whole = sum(exact.values())
    return {name: weight * total / whole if whole else Fraction(0) for name, weight in exact.items()}


def _unimax(portion: Portion, limit: int, sizes: Mapping[str, int], pool: Pool) -> dict[str, int]:
    capped = sizes if portion.cap is None else allocation.capped(sizes, portion.cap)
    most = {name: pool.left[name] if portion.cap is None else min(capped[name], pool.left[name]) for name in sizes}
    asked = allocation.unimax(most, limit)
    if sum(asked.values()) < limit:
        bound = f"a cap of {portion.cap:g}" if portion.cap is not None else "max_epochs" if pool.again else "taking each document once"
        raise ConfigError(
            f"budget: {portion.budget} is more than there is: the sources have {sum(sizes.values()):,} {pool.unit}, of which {bound} leaves {sum(most.values()):,}"
            f"{'' if pool.again else ', and no document is taken twice'}; lower the budget or raise {'max_epochs' if portion.cap is None else 'cap'}"
        )
    return asked


def _have(asked: Mapping[str, int], pool: Pool, most: int | None) -> list[str]:
    """Refuse what sources do not have; else warn of those that have nothing and are asked for nothing."""
    lacking = [name for name, amount in asked.items() if amount > pool.left.get(name, 0)]
    if not lacking:
        return [f"warning: the source {name!r} has no document that reached this stage{did_you_mean(name, pool.sizes)}" for name in sorted(asked.keys() - pool.sizes.keys())]
    said = "; ".join(f"{name!r}: {asked[name]:,} {pool.unit} asked, {_there(name, pool)}" for name in lacking[:NAMED])
    more = f" and {len(lacking) - NAMED} more sources" if len(lacking) > NAMED else ""
    strange = next((did_you_mean(name, pool.sizes) for name in lacking if name not in pool.sizes), "")
    way = f"; with these weights {most:,} {pool.unit} can be had" if most is not None else ""
    rule = "max_epochs says how often a document may be taken" if pool.again else "no document is taken twice"
    raise ConfigError(f"mix: more is asked of sources than they have, and {rule}: {said}{more}{strange}{way}; lower the budget, change the weights or raise max_epochs")


def _there(name: str, pool: Pool) -> str:
    """What a source has, and where that is not what it may still give, both."""
    size, left = pool.sizes.get(name, 0), pool.left.get(name, 0)
    return f"{size:,} there" if size == left else f"{left:,} to be had of the {size:,} there"
