"""The stage that gives every document a vector: what is stored, for whom, and what is computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import embedding
from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.scorers.embed import Embed, EmbedStageParams
from curate.stage import TEXT, Context


def applied(texts: list[str], **settings: Any) -> pa.RecordBatch:
    return Embed(EmbedStageParams(**settings), Context("embed")).apply(None, pa.record_batch([pa.array(texts)], names=[TEXT]))


def test_vectors_are_those_of_the_library_in_either_precision() -> None:
    texts = ["one two three", "four"]
    exact, _ = embedding.vectors(pa.array(texts), ngram=2, dim=384)
    full, half = (np.array(applied(texts, dtype=d)["vector"].to_pylist()) for d in ("float32", "float16"))
    assert (full == exact).all()
    assert (half == exact.astype(np.float16)).all()


def test_a_document_without_a_word_has_a_reason_and_no_vector() -> None:
    found = applied(["", "word", "\n "])
    assert found["vector"].is_null().to_pylist() == [True, False, True]
    assert found["reason"].to_pylist() == ["no word", None, "no word"]


def run(tmp_path: Path, *stages: Any, name: str = "run") -> curate.Outcome:
    recipe = {"corpus": {"paths": [str(tmp_path / "pool.parquet")]}, "stages": list(stages)}
    return curate.run(recipe, run=tmp_path / name, workers=1, publish=False)


def test_a_run_keeps_vectors_out_of_the_wide_table_and_computes_them_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"document {i} of the sea" for i in range(50)] + [""]}), tmp_path / "pool.parquet")
    run(tmp_path, {"embed": {"dim": 16}})
    columns = OpenRun(tmp_path / "run").arrow("SELECT * FROM docs").schema.names
    assert "embed_vector" not in columns
    assert OpenRun(tmp_path / "run").arrow("SELECT count(*) AS n FROM docs WHERE embed_reason = 'no word'")["n"].to_pylist() == [1]
    stored = sorted((tmp_path / "run" / "store").rglob("measures/*.parquet"))
    assert len(stored) >= 2  # of the first pass and of embed
    before = {f: f.stat().st_mtime_ns for f in stored}
    run(tmp_path, {"embed": {"dim": 16}}, {"length": {"min_bytes": 1}})
    assert {f: f.stat().st_mtime_ns for f in before} == before


@pytest.mark.parametrize("settings", [{"dim": 7}, {"dim": 5000}, {"ngram": 0}, {"ngram": 65}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"expected {next(iter(settings))} from"):
        EmbedStageParams(**settings)


def test_a_column_instead_of_the_text() -> None:
    stage = Embed(Embed.Params(column="prompt", dim=16), Context("e"))
    assert stage.reads() == ["prompt"]
    found = stage.apply(None, pa.record_batch([pa.array(["some words", None])], names=["prompt"]))
    assert found.column("vector").to_pylist() == applied(["some words", ""], dim=16).column("vector").to_pylist()
    assert found.column("reason").to_pylist() == [None, applied([""], dim=16).column("reason")[0].as_py()]
