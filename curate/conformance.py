"""The conformance suite: what every stage must hold, checked on awkward batches. Third parties run it on theirs.

curate conformance scorer.py:Shout --set weight=2
from curate.conformance import check_stage
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import documents, registry
from curate.errors import ConfigError, CurateError
from curate.params import Problems, build
from curate.plan import Node, NodeSpec
from curate.stage import BASE_COLUMNS, IDENTITY, KEY, REASON, TEXT, VALUE, Context, Target

#: Texts that break things: empty, white space, accents, unspaced scripts, emoji, controls, a long one, copies.
TEXTS = [
    "", " ", "plain words, and a full stop.", "def f(x):\n    return x + 1\n", "Caf\u00e9 \u2014 na\u00efve", "\u4f60\u597d\uff0c\u4e16\u754c",
    "\U0001f469\u200d\U0001f4bb", "a\x00b\x1cc\x85d", "\u0130stanbul \u03a3\u03a3", "word " * 3000, "copy", "copy", "1 2 3 4 5", "\n\n\n",
    "\u0939\u093f\u0928\u094d\u0926\u0940", "x",
]  # fmt: skip
GUIDE = ["a guide has words, and some code: return x", "another example of what is wanted"]


@dataclass(frozen=True)
class Check:
    """One check's outcome."""

    name: str
    holds: bool
    why: str = ""


def check_stage(
    stage: str, settings: Mapping[str, Any] | None = None, *, base: Path | None = None, columns: Mapping[str, pa.Array] | None = None
) -> list[Check]:
    """Run the suite on a stage (a name, FILE:CLASS or MODULE:CLASS); raises ConfigError where it cannot be built.

    `columns` are what stages before it would have added, by full name; they are repeated, or cut, to the suite's rows.
    """
    subject = _Subject(stage, dict(settings or {}), base or Path.cwd(), dict(columns or {}))
    checks = [
        subject.names, subject.pickles, subject.length_and_schema, subject.no_mutation, subject.determinism, subject.slices,
        subject.splits, subject.order, subject.large_string, subject.empty, subject.null_reason, subject.merge_is_associative,
        subject.merge_does_not_depend_on_order, subject.samples_are_named_by_row, subject.fit_sample_is_deterministic,
    ]  # fmt: skip
    return [_outcome(check) for check in checks]


def _as_if_found(item: pa.Field, key: pa.Array) -> pa.Array:
    """A column that a finish might have found, by the key of each row: numbers from 0 to 1 and nulls; of other types, nulls."""
    if not pa.types.is_floating(item.type):
        return pa.nulls(len(key), item.type)
    numbers = key.to_numpy()
    return pa.array(numbers / 2.0**64, item.type, mask=numbers % 4 == 0)


def _outcome(check: Callable[[], None]) -> Check:
    name = check.__name__.replace("_", " ")
    try:
        check()
    except AssertionError as error:
        return Check(name, False, str(error) or "it does not hold")
    except CurateError as error:
        return Check(name, False, str(error))
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")
    return Check(name, True)


class _Subject:
    """The stage under test with a pool of awkward texts, a fitted state, and its columns for the whole pool."""

    def __init__(self, stage: str, settings: dict[str, Any], base: Path, columns: dict[str, pa.Array]) -> None:
        self.given = columns
        cls: Any = registry.lookup(stage, base)
        problems = Problems()
        params = build(cls.Params, settings, stage, problems)
        problems.raise_if_any(f"conformance {stage}")
        context = Context(
            str(cls.name),
            7,
            (Target("guide"),),
            str(base),
            None,
            pa.schema([("source", pa.string()), *((name, column.type) for name, column in columns.items())]),
        )
        self.spec = NodeSpec(stage, base, msgspec.to_builtins(params), context)
        self.node = Node(0, str(cls.name), self.spec)
        self.stage = self.node.stage
        self.pool = _pool(pa.array(TEXTS, pa.string()), columns)
        self._check_reads()
        self.state = self._state()

    def _check_reads(self) -> None:
        known = {*self.pool.schema.names, *self.node.columns()}
        verbs = (("apply", "reads"), ("fit", "fit_reads"), ("sample", "sample_reads"), ("sample", "sample_from"), ("judge", "judge_reads"))
        for verb, method in verbs:
            if verb in self.node.verbs:
                for name in getattr(self.stage, method, list)():
                    if name not in known:
                        raise ConfigError(
                            f"the suite gives a stage the text, {', '.join(BASE_COLUMNS)} and source; {self.node.label!r} reads {name!r}; from Python, check_stage(columns=...) gives it more"
                        )

    def _state(self) -> pa.Table | None:
        if "sample" in self.node.verbs:
            return self._trained()
        if not hasattr(self.stage, "close"):
            return None
        merged = self.stage.merge([self._partial(self.pool)]) if "fit" in self.node.verbs else None
        return self.stage.close(merged, {"guide": pa.chunked_array([GUIDE])})

    def _trained(self) -> pa.Table:
        """The state of samples of all the suite's documents."""
        bounds = self.stage.samples()
        assert bounds, "samples() names at least one sample"
        of = self._sample_of(self.pool)
        whole = pa.Table.from_batches([self.pool.select(list(self.stage.sample_reads()))])
        samples = {n: (whole if of is None else whole.filter(pc.fill_null(pc.equal(of, n), False))).slice(0, b.rows) for n, b in bounds.items()}
        return self.stage.fit_sample(samples, {"guide": pa.chunked_array([GUIDE])})

    def _sample_of(self, pool: pa.RecordBatch) -> pa.Array | None:
        asks = list(getattr(self.stage, "sample_from", list)())
        return self.stage.sample_of(pool.select(asks)) if asks else None

    def _partial(self, pool: pa.RecordBatch) -> pa.Table:
        return self.stage.fit_part(iter([pool.select(list(self.stage.fit_reads()))]))

    def _apply(self, pool: pa.RecordBatch) -> pa.Table:
        out = self.stage.apply(self.state, pool.select(list(self.stage.reads())))
        assert isinstance(out, pa.RecordBatch), f"apply must return a RecordBatch, got {type(out).__name__}"
        return pa.Table.from_batches([out])

    def names(self) -> None:
        assert isinstance(self.stage.version, int), (
            "version must be a whole number: it is raised when results change"
        )
        assert self.node.verbs, "a stage has at least one of fit_part, apply, judge, finish"
        for item in (*self.node.fields(), *self.node.finish_fields()):
            assert item.name, "a field has a name; `value` is the one that is called by the label alone"
            assert not item.name.startswith("curate_"), f"field {item.name!r}: the label makes the column's name"

    def pickles(self) -> None:
        again = pickle.loads(pickle.dumps(self.node))
        if "apply" in self.node.verbs:
            assert self._same(_columns(again.stage.apply(self.state, self.pool.select(list(self.stage.reads())))), _columns(self._apply(self.pool)))

    def length_and_schema(self) -> None:
        if "apply" in self.node.verbs:
            out = self._apply(self.pool)
            assert out.num_rows == self.pool.num_rows, f"{self.pool.num_rows} rows in, {out.num_rows} out"
            assert out.schema.names == self.stage.fields().names, (
                f"fields() says {self.stage.fields().names}, apply returned {out.schema.names}"
            )
            out.cast(self.stage.fields())
        if "judge" in self.node.verbs:
            keep, reason = self._judge(self.pool)
            assert len(keep) == len(reason) == self.pool.num_rows, (
                "judge must give a verdict and a reason for every row"
            )
            dropped = pc.invert(pc.fill_null(keep, False))
            assert pc.all(pc.equal(dropped, pc.is_valid(reason))).as_py() in (True, None), (
                "a reason for every dropped row, and none for a kept one"
            )

    def _judge(self, pool: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        columns: dict[str, Any] = {n: pool.column(n) for n in pool.schema.names}
        if "apply" in self.node.verbs:
            out = self._apply(pool)
            columns |= {self.node.column(n): out[n].combine_chunks() for n in out.schema.names}
        columns |= {self.node.column(item.name): _as_if_found(item, pool.column(KEY)) for item in self.node.finish_fields()}
        names = list(self.stage.judge_reads())
        return self.stage.judge(pa.record_batch([columns[n] for n in names], names=names))  # type: ignore[no-any-return]

    def no_mutation(self) -> None:
        before = self.pool.to_pylist()
        self._everything(self.pool)
        assert self.pool.to_pylist() == before, "the input was changed"

    def _everything(self, pool: pa.RecordBatch) -> list[Any]:
        found: list[Any] = []
        if "apply" in self.node.verbs:
            found += _columns(self._apply(pool))
        if "judge" in self.node.verbs:
            found += [_values(c) for c in self._judge(pool)]
        return found

    def _same(self, one: Any, other: Any) -> bool:
        """Equal; numbers with a fraction within the tolerance that the stage declares, where it declares one."""
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self._same, one, other))
        if isinstance(one, float) and isinstance(other, float):
            tolerance = float(getattr(self.stage, "tolerance", 0.0))
            return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
        return bool(one == other)

    def determinism(self) -> None:
        assert self._same(self._everything(self.pool), self._everything(self.pool)), "two calls gave two results"

    def slices(self) -> None:
        whole = self._everything(self.pool)
        for low, high in ((0, 1), (3, 9), (9, self.pool.num_rows), (5, 5)):
            part = self._everything(self.pool.slice(low, high - low))
            assert self._same(part, [c[low:high] for c in whole]), (
                f"rows {low}..{high} alone gave another result than among all rows"
            )

    def splits(self) -> None:
        whole = self._everything(self.pool)
        for size in (1, 4, 7):
            parts = [self._everything(self.pool.slice(at, size)) for at in range(0, self.pool.num_rows, size)]
            joined = [list(chain.from_iterable(p[i] for p in parts)) for i in range(len(whole))]
            assert self._same(joined, whole), f"batches of {size} gave another result than one batch"

    def order(self) -> None:
        shuffled = np.random.default_rng(3).permutation(self.pool.num_rows)
        whole = self._everything(self.pool)
        other = self._everything(self.pool.take(pa.array(shuffled)))
        assert self._same(other, [[c[i] for i in shuffled] for c in whole]), (
            "a row's result depends on the rows around it"
        )

    def large_string(self) -> None:
        large = _pool(pa.array(TEXTS, pa.large_string()), self.given)
        assert self._same(self._everything(large), self._everything(self.pool)), (
            "large_string gave another result than string"
        )

    def empty(self) -> None:
        none = self.pool.slice(0, 0)
        assert all(len(c) == 0 for c in self._everything(none)), "an empty batch must give empty columns"
        if "fit" in self.node.verbs:
            self.stage.merge([self._partial(none), self._partial(self.pool)])

    def null_reason(self) -> None:
        if "apply" not in self.node.verbs:
            return
        out = self._apply(self.pool)
        for item in out.schema:
            if pa.types.is_floating(item.type):
                values = out[item.name].drop_null()
                assert not pc.any(pc.is_nan(values)).as_py(), (
                    f"{item.name!r} holds NaN: a score that failed is null"
                )
        if VALUE in out.schema.names and REASON in out.schema.names:
            unsaid = pc.and_(pc.is_null(out[VALUE]), pc.is_null(out[REASON]))
            assert not pc.any(unsaid).as_py(), "a score is null without a reason"

    def merge_is_associative(self) -> None:
        if "fit" not in self.node.verbs:
            return
        a, b, c = (self._partial(self.pool.slice(i * 5, 5)) for i in range(3))
        left = self.stage.merge([self.stage.merge([a, b]), c])
        right = self.stage.merge([a, self.stage.merge([b, c])])
        assert left.equals(right), "merge([merge([a, b]), c]) differs from merge([a, merge([b, c])])"

    def merge_does_not_depend_on_order(self) -> None:
        if "fit" not in self.node.verbs:
            return
        parts = [self._partial(self.pool.slice(i * 5, 5)) for i in range(3)]
        assert self.stage.merge(parts).equals(self.stage.merge(parts[::-1])), (
            "the order of the parts changes the merged partial"
        )

    def samples_are_named_by_row(self) -> None:
        if "sample" not in self.node.verbs:
            return
        whole = self._sample_of(self.pool)
        if whole is None:
            return
        assert len(whole) == self.pool.num_rows, f"sample_of was given {self.pool.num_rows} rows and returned {len(whole)}"
        for low, high in ((0, 1), (3, 9), (5, 5)):
            alone = self._sample_of(self.pool.slice(low, high - low))
            assert alone is not None
            assert alone.to_pylist() == whole.to_pylist()[low:high], "sample_of gives rows alone another sample than among all rows"

    def fit_sample_is_deterministic(self) -> None:
        if "sample" in self.node.verbs:
            assert self.state is not None
            assert self._trained().equals(self.state), "two trainings on one sample gave two states"


def _columns(batch: Any) -> list[Any]:
    return [_values(column) for column in batch.columns]

    def samples_are_named_by_row(self) -> None:
        if "sample" not in self.node.verbs or self._sample_of(self.pool) is None:
            return
        whole = _values(self._sample_of(self.pool))
        assert len(whole) == self.pool.num_rows, f"sample_of was given {self.pool.num_rows} rows and returned {len(whole)}"
        for low, high in ((0, 1), (3, 9), (5, 5)):
            assert _values(self._sample_of(self.pool.slice(low, high - low))) == whole[low:high], (
                "sample_of gives rows alone another sample than among all rows"
            )

    def fit_sample_is_deterministic(self) -> None:
        if "sample" in self.node.verbs:
            assert self.state is not None
            assert self._trained().equals(self.state), "two trainings on one sample gave two states"


def _values(column: Any) -> list[Any]:
    return column.to_pylist()  # type: ignore[no-any-return]


def _pool(text: pa.Array, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """The texts with the base columns that the first pass would give them, and more columns."""
    params = documents.DocumentsParams(
        text="text", view="all", text_columns=["text"], id=None, quarantine=False
    )
    base = documents.Documents(params, Context("documents")).apply(
        None, pa.record_batch([text, pa.nulls(len(text), pa.string())], names=[TEXT, "__bad__"])
    )
    names = [n for n in base.schema.names if n in BASE_COLUMNS]
    source = pa.array([f"source {i % 3}" for i in range(len(text))])
    more = [column.take(pa.array([i % len(column) for i in range(len(text))])) for column in columns.values()]
    return pa.record_batch([text, *[base.column(n) for n in names], source, *more], names=[TEXT, *names, "source", *columns])


__all__ = ["IDENTITY", "Check", "check_stage"]
