"""Decontamination: documents of the pool that hold items of evaluation sets, named, and dropped or flagged.

Every text is held against the questions and the answers of every set (curate.contamination says what words are):

    exact         the document's words are the item's
    13-grams      share of the item's 13-grams that the document holds; an item of fewer words stands there whole or not
    containment   share of the item's 5-grams that the document holds, wherever in it they stand

Shares are weighted by rarity in this pool, ln(1 + N / (1 + n)), where n of its N documents hold the n-gram: what
many documents share says little. The n are counted in a pass of their own, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import contamination, evalsets
from curate.contamination import Found, Index, Weighed
from curate.errors import ConfigError, DataError
from curate.evalsets import EvalSet, Items
from curate.registry import register
from curate.stage import TEXT, VALUE, Context, measure

#: A row of a set that a document holds something of, and what told of it first: exact, ngram, containment.
MATCH = pa.struct([("set", pa.string()), ("row", pa.int64()), ("how", pa.string())])
#: What may tell of an item, the surest first.
HOW = ("exact", "ngram", "containment")
#: Where a state names the sets' content.
_SETS = b"curate.sets"


class DecontaminateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sets` are evaluation sets by name; `flag` and `drop` are shares of an item, 0..1, from which on it is told of
    and its document dropped (null: documents are only flagged). Words count from `min_words` on, characters of an
    unspaced script from `min_characters` on; shorter items are not checkable, and counted."""

    sets: dict[str, EvalSet]
    ngram: int = 13
    containment_ngram: int = 5
    min_words: int = 5
    min_characters: int = 10
    flag: float = 0.15
    drop: float | None = 0.5

    def __post_init__(self) -> None:
        if not self.sets:
            raise ConfigError("decontaminate needs sets: {gsm8k: {files: [gsm8k_test.jsonl], question: question, answer: answer}}")
        contamination.check_sizes(self.containment_ngram, self.ngram, self.min_words, self.min_characters)
        if not 0 < self.flag <= 1:
            raise ConfigError(f"expected flag of more than 0 and at most 1, a share of an item, got {self.flag}")
        if self.drop is not None and not self.flag <= self.drop <= 1:
            raise ConfigError(f"expected drop from flag ({self.flag}) to 1 (null drops nothing), got {self.drop}")


class Audit(NamedTuple):
    """What a card says of a set: its rows, how many have a side that can be checked, and a hash of its content."""

    rows: int
    checkable: int
    fingerprint: str


@register("decontaminate")
class Decontaminate:
    """Names the evaluation item that a document holds most of; a verdict by its share."""

    version = 1
    Params = DecontaminateParams
    judge_params = ("drop",)
    unlisted = unpublished = ("matches",)

    def __init__(self, params: DecontaminateParams, context: Context) -> None:
        self.params = params
        self._label = context.label
        self._base = Path(context.base)
        evalsets.check_files(params.sets, self._base)
        self._read: tuple[Items, Index] | None = None
        self._weighed: tuple[pa.Table | None, Weighed | None] = (None, None)

    def _index(self) -> tuple[Items, Index]:
        if self._read is None:
            p = self.params
            items = evalsets.load(p.sets, self._base)
            index = Index(items.table["text"].combine_chunks(), few=p.containment_ngram, many=p.ngram, min_words=p.min_words, min_characters=p.min_characters)
            self._read = items, index
        return self._read

    def extra_key(self) -> str:
        """A changed set is another stage, whatever its files are called; they are read anew for every plan of a run."""
        self._read = None
        return self._index()[0].key()

    def audit(self) -> dict[str, Audit]:
        """What is held against the pool, by set."""
        items, index = self._index()
        checkable = items.table.filter(pa.array(index.checkable))
        rows = {name: len(set(checkable.filter(pc.equal(checkable["set"], name))["row"].to_pylist())) for name in items.rows}
        return {name: Audit(items.rows[name], rows[name], items.fingerprints[name]) for name in items.rows}

    # -- fit ------------------------------------------------------------------------------------------------------

    def fit_reads(self) -> list[str]:
        return [TEXT]

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        """gram int64: a place among the items' n-grams, -1 for all documents; documents int64: how many hold it."""
        _, index = self._index()
        counts, documents = np.zeros(len(index.grams), np.int64), 0
        for batch in batches:
            counts += index.count(batch.column(0))
            documents += batch.num_rows
        held = np.flatnonzero(counts)
        return pa.table({"gram": np.append(-1, held).astype(np.int64), "documents": np.append(documents, counts[held]).astype(np.int64)})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        table = pa.concat_tables(partials)
        grams, place = np.unique(table["gram"].to_numpy(), return_inverse=True)
        documents = np.zeros(len(grams), np.int64)
        np.add.at(documents, place, table["documents"].to_numpy())
        return pa.table({"gram": grams, "documents": documents})

    def close(self, merged: pa.Table, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """The merged counts; the schema's metadata names the sets that they are of."""
        return merged.replace_schema_metadata({_SETS: self._index()[0].key()})

    def _weights(self, state: pa.Table) -> Weighed:
        if self._weighed[0] is not state or self._weighed[1] is None:
            items, index = self._index()
            if (state.schema.metadata or {}).get(_SETS) != items.key().encode():
                raise DataError("decontaminate: the files of the sets changed while the run was at work; run the same command again")
            gram, documents = state["gram"].to_numpy(), state["documents"].to_numpy()
            counts = np.zeros(len(index.grams), np.int64)
            counts[gram[1:]] = documents[1:]  # the first is of all documents
            self._weighed = (state, index.weigh(counts, int(documents[0]), flag=self.params.flag))
        weighed = self._weighed[1]
        assert weighed is not None
        return weighed

    # -- apply ----------------------------------------------------------------------------------------------------

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """Of the item that a document holds most of, null where it holds none.

        value: the larger of overlap and containment, 1 for exact, 0 where it holds none; set, row (from 0), side: where the item stands;
        exact; overlap; containment; weak: it is shorter than an n-gram and stands there without the other side of its
        row; passage: the longest that both share, as compared. items: rows of sets that are found in the document;
        matches: each of them.
        """
        share = measure(VALUE, pa.float64(), means="share", larger_is_better=False)
        return pa.schema([
            share, ("set", pa.string()), ("row", pa.int64()), ("side", pa.string()), ("exact", pa.bool_()), ("overlap", pa.float64()),
            ("containment", pa.float64()), ("weak", pa.bool_()), ("passage", pa.string()), ("items", pa.int64()), ("matches", pa.list_(MATCH)),
        ])  # fmt: skip

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = batch.column(0)
        found = self._weights(state).match(text)
        rows: list[dict[str, Any]] = [{VALUE: 0.0, "items": 0} for _ in range(batch.num_rows)]
        for row, best in self._best(found, text):
            rows[row] = best
        return pa.record_batch([pa.array([r.get(f.name) for r in rows], f.type) for f in self.fields()], schema=self.fields())

    def _best(self, found: Found, text: pa.Array) -> Iterator[tuple[int, dict[str, Any]]]:
        items, index = self._index()
        told = items.table.take(pa.array(found.item)).select(["set", "row", "side"]).to_pylist()
        order = {name: i for i, name in enumerate(self.params.sets)}
        share = np.where(found.exact, 1.0, np.maximum(found.overlap, found.containment))
        passages = contamination.passages(text, found)
        pairs: dict[int, list[dict[str, Any]]] = {}
        for i, (item, passage) in enumerate(zip(told, passages, strict=True)):
            pairs.setdefault(int(found.row[i]), []).append({
                VALUE: float(share[i]), **item, "exact": bool(found.exact[i]), "overlap": float(found.overlap[i]),
                "containment": float(found.containment[i]), "weak": bool(index.sizes[found.item[i]] < self.params.ngram and not found.exact[i]),
                "passage": passage,
            })  # fmt: skip
        for row, mine in pairs.items():
            sides: dict[tuple[str, int], list[dict[str, Any]]] = {}
            for pair in mine:
                sides.setdefault((pair["set"], pair["row"]), []).append(pair)
            for both in sides.values():
                if len(both) > 1:  # question and answer of one row: no chance
                    for pair in both:
                        pair["weak"] = False
            best = min(mine, key=lambda p: (not p["exact"], p["weak"], -p[VALUE], order[p["set"]], p["row"], p["side"] == "answer"))
            matches = [{"set": name, "row": number, "how": HOW[min(map(_how, both))]} for (name, number), both in sides.items()]
            yield row, {**best, "items": len(sides), "matches": matches}

    # -- judge ----------------------------------------------------------------------------------------------------

    def judge_reads(self) -> list[str]:
        return [self._label, f"{self._label}_weak", f"{self._label}_set"]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        if self.params.drop is None:
            return pa.array([True] * batch.num_rows, pa.bool_()), pa.nulls(batch.num_rows, pa.string())
        value, weak, name = batch.columns
        held = pc.fill_null(pc.and_(pc.greater_equal(value, self.params.drop), pc.invert(weak)), False)
        reason = pc.if_else(held, pc.binary_join_element_wise("holds an item of", name, " "), pa.scalar(None, pa.string()))
        return pc.invert(held), reason


def _how(pair: Mapping[str, Any]) -> int:
    """The place in HOW of what told of a pair."""
    return 0 if pair["exact"] else 1 if pair["overlap"] > 0 else 2
