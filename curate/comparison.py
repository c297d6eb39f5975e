"""What a comparison of selections found: its verdicts, all its trials, and both as tables for SQL (`arms`, `trials`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from curate.verdict import Verdict


@dataclass(frozen=True)
class Arm:
    """One trial: what one model was trained on, and what it was worth on a target's test."""

    name: str
    documents: int
    bytes: int
    bits_per_byte: float


@dataclass(frozen=True)
class Reduction:
    """KL reduction in nats of the selection, and of random subsets with as many n-grams."""

    selection: float
    random_mean: float
    random_least: float
    random_most: float


@dataclass(frozen=True)
class TargetVerdict:
    """The answer for one target: `verdict` is the first arm's, `verdicts` has every arm's, `arms` all trials."""

    target: str
    verdict: Verdict
    arms: list[Arm]
    kl: Reduction
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    primary: bool = True


@dataclass(frozen=True)
class Comparison:
    """All targets' answers; `budget_bytes` is what every arm may hold, `arm_bytes` what each selection has before that."""

    judge: str
    budget_bytes: int
    selection_bytes: int
    eligible_documents: int
    selection_seconds: float
    judge_seconds: float
    targets: list[TargetVerdict] = field(default_factory=list)
    arm_bytes: dict[str, int] = field(default_factory=dict)


def arms_table(found: Comparison) -> pa.Table:
    """A row for each arm and target: what it holds, its difference from random and the verdict."""
    held_by = {(t.target, a.name.rsplit(" ", 1)[0]): a for t in found.targets for a in reversed(t.arms)}
    rows = []
    for item in found.targets:
        for name, v in item.verdicts.items():
            arm = held_by[item.target, name]
            rows.append({
                "arm": name, "target": item.target, "primary": item.primary, "judge": found.judge, "chosen_bytes": found.arm_bytes.get(name), "budget_bytes": found.budget_bytes,
                "documents": arm.documents, "bytes": arm.bytes, "bits_per_byte": v.selection_bits_per_byte, "random_bits_per_byte": v.random_bits_per_byte,
                "random_sd": v.random_sd, "difference": v.difference, "low": v.low, "high": v.high, "p_value": v.p_value,
                "adjusted_p_value": v.adjusted_p_value, "verdict": v.word if item.primary else None,
            })  # fmt: skip
    kinds = {"primary": pa.bool_(), "chosen_bytes": pa.int64(), "budget_bytes": pa.int64(), "documents": pa.int64(), "bytes": pa.int64()}
    texts = ("arm", "target", "judge", "verdict")
    return pa.Table.from_pylist(rows, pa.schema([(n, pa.string() if n in texts else kinds.get(n, pa.float64())) for n in rows[0]]))


def trials_table(found: Comparison) -> pa.Table:
    """A row for each trained model and target, random draws included; none is left out."""
    rows = [
        {"arm": a.name.rsplit(" ", 1)[0], "trial": int(a.name.rsplit(" ", 1)[1]) if " " in a.name else 0, "target": t.target, "documents": a.documents,
         "bytes": a.bytes, "bits_per_byte": a.bits_per_byte}
        for t in found.targets for a in t.arms
    ]  # fmt: skip
    schema = pa.schema([("arm", pa.string()), ("trial", pa.int64()), ("target", pa.string()), ("documents", pa.int64()), ("bytes", pa.int64()), ("bits_per_byte", pa.float64())])
    return pa.Table.from_pylist(rows, schema)
