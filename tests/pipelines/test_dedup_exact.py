from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from curate import documents
from curate.errors import ConfigError
from curate.frame import Frame
from curate.pipelines.dedup_exact import DedupExact, DedupExactParams
from curate.rowhash import of_rows
from curate.stage import BYTES, IDENTITY, TEXT, TEXT_HASH, Context

Row = dict[str, Any]
USER = pa.schema([("text", pa.string()), ("rank", pa.float64()), ("stars", pa.int64()), ("note", pa.string())])


def rows_of(texts: Sequence[str], **columns: list[Any]) -> list[Row]:
    base: list[Row] = [{"id": f"i{k}", "text": t, "rank": None, "stars": None, "note": None} for k, t in enumerate(texts)]
    return [row | {name: values[k] for name, values in columns.items()} for k, row in enumerate(base)]


def ask(rows: list[Row], tmp_path: Path, *, threads: int = 1, **settings: Any) -> list[Row]:
    """What the stage says of each row: keep, reason, of, copies."""
    user = pa.Table.from_pylist(rows, USER)
    hashes = documents.text_hashes(user["text"].combine_chunks())
    table = user.append_column("doc", pa.array(range(len(rows)), pa.int64()))
    table = table.append_column(IDENTITY, pa.array([r["id"] for r in rows], pa.string()))
    table = table.append_column(BYTES, pa.array([len(r["text"].encode()) for r in rows], pa.int64())).append_column(TEXT_HASH, hashes)
    stage = DedupExact(msgspec.convert(settings, DedupExactParams), Context("dedup_exact", columns=table.schema))
    if "apply" in stage.verbs():
        batch = pa.record_batch([user["text"].combine_chunks()], names=[TEXT])
        table = table.append_column("dedup_exact_hash", stage.apply(None, batch).column("hash"))
    table = table.select(["doc", *stage.finish_reads()])

    def row_hashes(docs: pa.ChunkedArray) -> pa.Table:
        return pa.table({"doc": docs, "row_hash": pa.array(of_rows(user.take(docs)), pa.string())})

    frame = Frame(table.schema, table.to_batches(max_chunksize=5), row_hashes, scratch=tmp_path, threads=threads)
    try:
        said = stage.finish(frame).read_all()
    finally:
        frame.close()
    assert said["doc"].to_pylist() == list(range(len(rows)))
    assert said.schema.names[1:] == stage.finish_fields().names
    found: list[Row] = said.drop_columns(["doc"]).to_pylist()
    return found


def kept(rows: list[Row], tmp_path: Path, **settings: Any) -> list[str]:
    return [r["id"] for r, s in zip(rows, ask(rows, tmp_path, **settings), strict=True) if s["keep"]]


def test_the_least_identity_is_kept_and_named_at_the_others(tmp_path: Path) -> None:
    rows = rows_of(["x", "y", "x", "x"], id=["c", "d", "a", "b"])
    assert ask(rows, tmp_path) == [
        {"keep": False, "reason": "copy of another document", "of": "a", "copies": 3},
        {"keep": True, "reason": None, "of": None, "copies": 1},
        {"keep": True, "reason": None, "of": None, "copies": 3},
        {"keep": False, "reason": "copy of another document", "of": "a", "copies": 3},
    ]


def test_a_priority_comes_before_the_identity_and_null_comes_last(tmp_path: Path) -> None:
    rows = rows_of(["x"] * 4, rank=[None, math.nan, 2.0, 1.0])
    assert kept(rows, tmp_path, priority="rank") == ["i3"]
    assert kept(rows[:3], tmp_path, priority="rank") == ["i2"]
    assert kept(rows[:2], tmp_path, priority="rank") == ["i0"]


def test_the_best_is_by_a_column_and_no_number_is_never_best(tmp_path: Path) -> None:
    rows = rows_of(["x"] * 4, rank=[math.nan, 3.0, 9.0, None], stars=[1, 2, 2, 9])
    assert kept(rows, tmp_path, keep="best", by="rank") == ["i2"]
    assert kept(rows, tmp_path, keep="best", by="rank", order="asc") == ["i1"]
    assert kept(rows[:3], tmp_path, keep="best", by="stars") == ["i1"]  # a tie goes to the least identity


def test_the_longest_of_texts_that_differ_in_white_space_is_kept(tmp_path: Path) -> None:
    rows = rows_of(["a b", "a  b", " a b", "a\tb"])
    assert kept(rows, tmp_path, normalize=["space"], keep="longest") == ["i1"]
    assert kept(rows, tmp_path, keep="longest") == ["i0", "i1", "i2", "i3"]


def test_the_first_is_the_first_in_input_order(tmp_path: Path) -> None:
    assert kept(rows_of(["x", "x", "x"], id=["c", "a", "b"]), tmp_path, keep="first") == ["c"]


@pytest.mark.parametrize(
    ("normalize", "groups"),
    [
        ([], [["Straße"], ["straße"], ["cafe\u0301"], ["caf\u00e9"], [" a\u00a0b\n"], ["a b"], ["A  B"], [""], [" "]]),
        (["case"], [["Straße", "straße"], ["cafe\u0301"], ["caf\u00e9"], [" a\u00a0b\n"], ["a b"], ["A  B"], [""], [" "]]),
        (["nfc"], [["Straße"], ["straße"], ["cafe\u0301", "caf\u00e9"], [" a\u00a0b\n"], ["a b"], ["A  B"], [""], [" "]]),
        (["space"], [["Straße"], ["straße"], ["cafe\u0301"], ["caf\u00e9"], [" a\u00a0b\n", "a b"], ["A  B"], ["", " "]]),
        (["nfc", "case", "space"], [["Straße", "straße"], ["cafe\u0301", "caf\u00e9"], [" a\u00a0b\n", "a b", "A  B"], ["", " "]]),
    ],
)  # fmt: skip
def test_normalising_joins_what_it_says_and_no_more(normalize: list[str], groups: list[list[str]], tmp_path: Path) -> None:
    texts = [t for group in groups for t in group]
    said = ask(rows_of(texts), tmp_path, normalize=normalize)
    expected = [len(group) for group in groups for _ in group]
    assert [s["copies"] for s in said] == expected
    assert sum(s["keep"] for s in said) == len(groups)


def test_copies_without_ids_are_told_apart_by_their_whole_rows(tmp_path: Path) -> None:
    rows = rows_of(["same"] * 6, id=["h"] * 6, note=["p", "q", None, "s", "t", "u"])
    survivors = set()
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]):
        moved = [rows[i] for i in order]
        said = ask(moved, tmp_path)
        assert sum(s["keep"] for s in said) == 1
        survivors.add(next(str(r["note"]) for r, s in zip(moved, said, strict=True) if s["keep"]))
    assert len(survivors) == 1


def test_rows_that_are_equal_altogether_leave_one(tmp_path: Path) -> None:
    assert [s["keep"] for s in ask(rows_of(["x"] * 3, id=["h"] * 3), tmp_path)] == [True, False, False]


def test_an_empty_pool_and_one_document(tmp_path: Path) -> None:
    assert ask([], tmp_path) == []
    assert ask(rows_of([""]), tmp_path) == [{"keep": True, "reason": None, "of": None, "copies": 1}]


def test_random_pools_equal_a_dictionary_whatever_the_order_and_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for trial in range(8):
        count = int(rng.integers(1, 200))
        texts = [f"t{k}" for k in rng.integers(0, count // 2 + 1, count)]
        ranks = [None if k == 0 else float(k) for k in rng.integers(0, 4, count)]
        rows = rows_of(texts, rank=ranks, id=[f"i{k}" for k in rng.permutation(count)])
        best: dict[str, Row] = {}
        for row in rows:
            key = (row["rank"] is None, -(row["rank"] or 0), row["id"])
            if row["text"] not in best or key < best[row["text"]]["key"]:
                best[row["text"]] = row | {"key": key}
        moved = [rows[i] for i in rng.permutation(count)]
        said = ask(moved, tmp_path, keep="best", by="rank", threads=1 + 3 * (trial % 2))
        for row, verdict in zip(moved, said, strict=True):
            winner = best[row["text"]]["id"]
            assert verdict["keep"] == (row["id"] == winner)
            assert verdict["of"] == (None if verdict["keep"] else winner)
            assert verdict["copies"] == texts.count(row["text"])


def test_composed_and_decomposed_texts_that_differ_only_so_are_one(tmp_path: Path) -> None:
    text = "Ǻngström ﬁ 한국어 — ñ"
    rows = rows_of([unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)])
    assert len(kept(rows, tmp_path, normalize=["nfc"])) == 1
    assert len(kept(rows, tmp_path)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"keep": "best"}, "go together"), ({"by": "stars"}, "go together"), ({"keep": "first", "priority": "rank"}, "would not be looked at")],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, msgspec.ValidationError), match=message):
        msgspec.convert(settings, DedupExactParams)


def test_a_column_is_compared_in_the_texts_stead() -> None:
    stage = DedupExact(DedupExactParams(column="prompt"), Context("d"))
    assert (stage.verbs(), stage.reads()) == (("apply", "finish"), ["prompt"])
    found = stage.apply(None, pa.record_batch([pa.array(["a", None, "", 3 * "x"])], names=["prompt"])).column("hash")
    assert found.to_pylist() == documents.text_hashes(pa.array(["a", "", "", "xxx"])).to_pylist()
    numbers = stage.apply(None, pa.record_batch([pa.array([7, None])], names=["prompt"])).column("hash")
    assert numbers.to_pylist() == documents.text_hashes(pa.array(["7", ""])).to_pylist()
    with pytest.raises(ConfigError, match="leave column out, or against"):
        DedupExactParams(column="prompt", against=["runs/before"])
