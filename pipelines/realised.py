"""What came of a mixture, beside what was asked: by source over all stages, and stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: A realised share that differs from the one asked for by more than this is warned of.
FAR = 0.01


@dataclass
class Share:
    """What a source has, what was asked of it and what it gave, in the budget's unit; in how many documents, taken how often."""

    there: int
    asked: int = 0
    taken: int = 0
    documents: int = 0
    copies: int = 0


@dataclass
class Taken:
    """What a mixture asks and gives: by source over all stages, and by stage."""

    whole: dict[str, Share]
    stages: list[dict[str, Share]] = field(default_factory=list)


def told(taken: Taken, unit: str, replayed: Sequence[Sequence[str]], *, staged: bool) -> tuple[list[str], list[str]]:
    """A line on the whole and one on each source (of each stage, where there are several), and the sources that are far off.

    `replayed`: for each stage the sources of its replay.
    """
    lines, far = [_sum(taken.whole, unit)], []
    for number, (shares, again) in enumerate(zip(taken.stages, replayed, strict=True), 1):
        stage = f"stage {number}, " if staged else ""
        if staged:
            lines.append(f"stage {number}: {_sum(shares, unit)}")
        asked, got = sum(s.asked for s in shares.values()), sum(s.taken for s in shares.values())
        if again:
            pool = [shares[name] for name in again if name in shares]
            lines.append(f"{stage}replay of {', '.join(again)}: asked {_part(sum(s.asked for s in pool), asked)}, took {_part(sum(s.taken for s in pool), got)}")
        for name, s in shares.items():
            short = f", {s.asked - s.taken:,} short" if s.asked > s.taken else ""
            lines.append(f"{stage}{name}: asked {_part(s.asked, asked)}, took {_part(s.taken, got)} in {s.documents:,} documents{_often(s)}{short}; {s.there:,} there")
            if abs((s.asked / asked if asked else 0.0) - (s.taken / got if got else 0.0)) > FAR:
                far.append(f"{stage}{name}")
    return lines, far


def _sum(shares: Mapping[str, Share], unit: str) -> str:
    documents, copies = sum(s.documents for s in shares.values()), sum(s.copies for s in shares.values())
    often = f", taken {copies:,} times" if copies > documents else ""
    return f"{sum(s.taken for s in shares.values()):,} of {sum(s.asked for s in shares.values()):,} {unit} in {documents:,} documents{often}"


def _part(amount: int, whole: int) -> str:
    return f"{amount:,} ({amount / whole if whole else 0.0:.2%})"


def _often(share: Share) -> str:
    """How often a source's documents are taken, where that is more than once."""
    if share.copies == share.documents or not share.there:
        return ""
    return f", taken {share.copies:,} times ({share.taken / share.there:.2f} epochs)"
