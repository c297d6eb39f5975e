"""Selection written down once more, slowly: Python lists, sorted by plain tuples. And a way to ask the real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from curate import randomness
from curate.frame import Frame
from curate.pipelines.select import Select, SelectParams
from curate.rowhash import of_rows
from curate.stage import BYTES, IDENTITY, KEY, WORDS, Context, Target, measure

Row = dict[str, Any]
SIZES = {"documents": None, "bytes": BYTES, "words": WORDS}


class Answer:
    """What a selection said: identities best first, every document's reason, score and target, and the notes."""

    def __init__(self, rows: Sequence[Row], decided: pa.Table, notes: Sequence[str]) -> None:
        said = decided.to_pylist()
        assert [r["doc"] for r in said] == sorted(r["doc"] for r in rows)
        names = {r["doc"]: r[IDENTITY] for r in rows}
        kept = sorted((r for r in said if r["keep"]), key=lambda r: r["rank"])
        assert [r["rank"] for r in kept] == list(range(1, len(kept) + 1))
        assert all((r["reason"] is None) == r["keep"] and (r["rank"] is not None) == r["keep"] for r in said)
        self.docs = [r["doc"] for r in kept]
        self.chosen = [names[r["doc"]] for r in kept]
        self.reasons = {names[r["doc"]]: r["reason"] for r in said}
        self.scores = {names[r["doc"]]: r["score"] for r in said}
        self.targets = [r["target"] for r in kept] if "target" in decided.schema.names else []
        self.notes = list(notes)


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The frame's columns: the rows' own, and the key of each identity."""
    table = pa.Table.from_pylist(list(rows), pa.schema([("doc", pa.int64()), *schema]))
    keys = randomness.keys_of(table[IDENTITY].combine_chunks())
    return table.append_column(pa.field(KEY, pa.uint64()), pa.array(keys))


def ask(
    rows: Sequence[Row], schema: pa.Schema, scratch: Path, *, seed: int = 7, targets: Sequence[Target] = (), threads: int = 1,
    base: Path | str = "", label: str = "select", **settings: Any,
) -> Answer:  # fmt: skip
    """Let the real stage decide over rows, each with `doc`, identity, bytes and words."""
    table = table_of(rows, schema)
    context = Context(label, seed, tuple(targets), str(base), "source" if "source" in schema.names else None, table.drop_columns(["doc"]).schema)
    stage = Select(msgspec.convert(settings, SelectParams), context)
    reads = stage.finish_reads()
    places = {doc: i for i, doc in enumerate(table["doc"].to_pylist())}

    def hashes(docs: pa.ChunkedArray) -> pa.Table:
        picked = table.drop_columns(["doc"]).take(pa.array([places[d] for d in docs.to_pylist()], pa.int64()))
        return pa.table({"doc": docs, "row_hash": pa.array(of_rows(picked), pa.string())})

    shown = table.select(["doc", *reads])
    batches = [stage.prepare(b) for b in shown.combine_chunks().to_batches(max_chunksize=7)]
    frame = Frame(stage.prepared(shown.schema), batches, hashes, scratch=scratch, threads=threads)
    try:
        return Answer(rows, stage.finish(frame).read_all(), stage.notes())
    finally:
        frame.close()


SCHEMA = pa.schema(
    [(IDENTITY, pa.string()), (BYTES, pa.int64()), (WORDS, pa.int64()), ("score", pa.float64()), ("source", pa.string()),
     measure("w", pa.float64(), means="log_weight", larger_is_better=True),
     measure("v_a", pa.float64(), means="log_weight"), measure("v_b", pa.float64(), means="log_weight")]
)  # fmt: skip


def random_rows(rng: np.random.Generator, count: int) -> list[Row]:
    """Rows full of what goes wrong: ties, nulls, NaN, infinities, negative zeros, empty and huge documents, no group."""
    odd = [None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, 2.0]

    def number() -> float | None:
        return odd[rng.integers(len(odd))] if rng.random() < 0.4 else float(np.round(rng.normal() * 3, 1))

    def row(i: int) -> Row:
        size = int(rng.choice([0, 1, 5, 10, 10, 50, 1000]))
        return {
            "doc": int(i), IDENTITY: f"id{rng.integers(10**9):09d}-{i}", BYTES: size, WORDS: size // 3, "score": number(), "w": number(),
            "v_a": number(), "v_b": number(), "source": [None, "a", "b", "c"][rng.integers(4)],
        }  # fmt: skip

    return [row(i) for i in range(count)]


def missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def amount(written: int | str | None, total: int) -> int | None:
    """A budget by hand; only the forms that the tests use."""
    if written is None:
        return None
    text = str(written)
    if text.endswith("%"):
        return math.floor(Fraction(Decimal(text[:-1])) * total / 100)
    return int(text.removesuffix("words").removesuffix("B"))


def unit(written: int | str | None) -> str:
    text = str(written)
    return "words" if text.endswith("words") else "bytes" if text.endswith("B") else "documents"


def twin(
    rows: Sequence[Row], settings: Mapping[str, Any], *, seed: int = 7, weights: Mapping[str, float] | None = None,
    where: Callable[[Row], bool | None] | None = None, label: str = "select",
) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """The identities that must be chosen, best first, and the reason of every other."""
    s = dict(settings)
    how, combine, by = s.get("how", "top_k"), s.get("combine"), s.get("by")
    columns = ([f"{by}_{t}" for t in weights or {}] if combine else [by]) if by else []
    sign = -1.0 if s.get("order") == "asc" else 1.0
    reasons: dict[str, str] = {}
    fit: list[tuple[Row, list[float]]] = []
    for row in rows:
        scores = [row[c] for c in columns]
        if where and not where(row):
            reasons[row[IDENTITY]] = "not where"
        elif any(missing(x) for x in scores):
            reasons[row[IDENTITY]] = "no score"
        else:
            if combine == "max":
                scores = [max(scores) if sign > 0 else min(scores)]
            elif combine == "mean":
                scores = [sum(scores) / len(scores)]
            if any(missing(x) for x in scores):
                reasons[row[IDENTITY]] = "no score"
            elif how == "threshold" and not (s.get("min", -math.inf) <= scores[0] <= s.get("max", math.inf)):
                reasons[row[IDENTITY]] = "outside the threshold"
            else:
                fit.append((row, scores))
    values = _values(fit, s, sign, seed, label, [str(c) for c in columns])
    measure_of = SIZES[unit(s.get("budget"))]
    sizes = {row[IDENTITY]: (1 if measure_of is None else row[measure_of]) for row, _ in fit}
    groups = {row[IDENTITY]: (row[s["group_by"]] if s.get("group_by") else row["source"] if how == "random_balanced" else None) for row, _ in fit}
    limit = amount(s.get("budget"), len(fit))
    lists = [sorted(column, key=lambda i: (-column[i], i)) for column in values]
    if combine in ("round_robin", "quota"):
        assert limit is not None
        assert weights is not None
        chosen = _by_targets(combine, lists, sizes, limit, list(weights.values()))
    elif how == "random_balanced":
        chosen = _per_group(lists[0], sizes, groups, _water(sizes, groups, limit or 0))
    elif s.get("share") is not None:
        exact = {g: Fraction(str(p)) for g, p in s["share"].items()}
        chosen = _per_group(lists[0], sizes, groups, {g: math.floor(exact.get(g, 0) * (limit or 0)) for g in set(groups.values())})
    elif s.get("group_by"):
        chosen = _bounded(lists[0], sizes, groups, s, limit)
    else:
        chosen = _prefix(lists[0], sizes, limit)
    for name in sizes:
        if name not in chosen:
            unnamed = s.get("share") is not None and not s["share"].get(groups[name] or "", 0)
            reasons[name] = "no share for its group" if unnamed else "below the cut"
    return chosen, reasons


def _values(fit: list[tuple[Row, list[float]]], s: Mapping[str, Any], sign: float, seed: int, label: str, columns: list[str]) -> list[dict[str, float]]:
    how = s.get("how", "top_k")
    names = pa.array([row[IDENTITY] for row, _ in fit], pa.string())
    keys = randomness.keys_of(names)
    if how in ("random", "random_balanced"):
        draw = randomness.uniform(keys, randomness.stream(seed, "select", label, "0"))
        return [dict(zip(names.to_pylist(), draw.tolist(), strict=True))]
    found = []
    for i in range(len(fit[0][1]) if fit else 1):
        scores = [sign * x[i] for _, x in fit]
        if how == "resample":
            noise = randomness.gumbel(keys, randomness.stream(seed, "select", label, str(i))).tolist()
            if columns[0][0] not in "wv":
                finite = [x for x in scores if math.isfinite(x)]
                mean = math.fsum(finite) / len(finite) if finite else 0.0
                sd = math.sqrt(math.fsum((x - mean) ** 2 for x in finite) / len(finite)) if finite else 0.0
                scores = [x if math.isinf(x) else (x - mean) / sd if sd else 0.0 for x in scores]
            scores = [x / s.get("temperature", 1.0) + n for x, n in zip(scores, noise, strict=True)]
        found.append({row[IDENTITY]: x for (row, _), x in zip(fit, scores, strict=True)})
    return found


def _prefix(order: Sequence[str], sizes: Mapping[str, int], limit: int | None) -> list[str]:
    taken: list[str] = []
    used = 0
    for name in order:
        if limit is not None and used + sizes[name] > limit:
            break
        used += sizes[name]
        taken.append(name)
    return taken


def _per_group(order: Sequence[str], sizes: Mapping[str, int], groups: Mapping[str, Any], limits: Mapping[Any, int]) -> list[str]:
    taken = {n for g in set(groups.values()) for n in _prefix([x for x in order if groups[x] == g], sizes, limits[g])}
    return [n for n in order if n in taken]


def _water(sizes: Mapping[str, int], groups: Mapping[str, Any], limit: int) -> dict[Any, int]:
    """One unit to each group in turn, the nameless first, until nothing is left or all are full."""
    full = {g: sum(sizes[n] for n in sizes if groups[n] == g) for g in set(groups.values())}
    order = sorted(full, key=lambda g: (g is not None, g or ""))
    given = dict.fromkeys(full, 0)
    while limit and any(given[g] < full[g] for g in full):
        for g in order:
            if limit and given[g] < full[g]:
                given[g] += 1
                limit -= 1
    return given


def _bounded(order: Sequence[str], sizes: Mapping[str, int], groups: Mapping[str, Any], s: Mapping[str, Any], limit: int | None) -> list[str]:
    def bound(value: Any, group: Any, default: int) -> int:
        written = value.get(group) if isinstance(value, Mapping) else value
        total = sum(sizes[n] for n in sizes if groups[n] == group)
        found = amount(written, total)
        return default if found is None else found

    allowed, first = set(), set()
    for g in set(groups.values()):
        own = [n for n in order if groups[n] == g]
        allowed |= set(_prefix(own, sizes, bound(s.get("ceiling"), g, 10**9)))
        first |= set(_prefix(own, sizes, bound(s.get("floor"), g, 0)))
    rest = [n for n in order if n in allowed and n not in first]
    left = None if limit is None else limit - sum(sizes[n] for n in first)
    taken = first | set(_prefix(rest, sizes, left))
    return [n for n in order if n in taken]


def _by_targets(combine: str, lists: Sequence[Sequence[str]], sizes: Mapping[str, int], limit: int, weights: Sequence[float]) -> list[str]:
    taken: list[str] = []

    def used() -> int:
        return sum(sizes[n] for n in taken)

    if combine == "round_robin":
        turn = 0
        while len(taken) < len(lists[0]):
            best = next(n for n in lists[turn % len(lists)] if n not in taken)
            if used() + sizes[best] > limit:
                break
            taken.append(best)
            turn += 1
        return taken
    total = sum(Fraction(str(w)) for w in weights)
    for i, order in enumerate(lists):
        share = limit - used() if i == len(lists) - 1 else math.floor(limit * Fraction(str(weights[i])) / total)
        taken += _prefix([n for n in order if n not in taken], sizes, share)
    return taken
