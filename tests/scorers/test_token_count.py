"""Tokens counted by hand, budgets in tokens through a run, and what is counted again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import ConfigError
from curate.scorers.token_count import TokenCount, TokenCountParams
from curate.stage import TEXT, Context

FILE = Path(__file__).parent.parent.parent / "docs" / "examples" / "words_tokenizer.json"


def test_words_and_signs_are_counted() -> None:
    stage = TokenCount(TokenCountParams(tokenizer=str(FILE)), Context("token_count"))
    texts = pa.array(["skipped", "one two", "", "one, é中 two!", "skipped"]).slice(1, 3)
    assert stage.apply(None, pa.record_batch([texts], names=[TEXT])).column(0).to_pylist() == [2, 0, 5]


def test_the_key_is_the_files_content_and_not_its_place(tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path / "tokenizer.json")
    here, there = (TokenCount(TokenCountParams(tokenizer=str(f)), Context("t")).extra_key() for f in (FILE, tmp_path))
    assert here == there
    (tmp_path / "tokenizer.json").write_text(FILE.read_text().replace('"two"', '"three"'))
    assert TokenCount(TokenCountParams(tokenizer=str(tmp_path)), Context("t")).extra_key() != here


def test_a_tokenizer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a tokenizer\.json"):
        TokenCount(TokenCountParams(tokenizer="nowhere"), Context("t"))


def test_a_budget_in_tokens_is_kept_and_another_budget_counts_nothing_again(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": ["one two one", "one two", "one"], "score": [3.0, 2.0, 1.0]})
    pq.write_table(table, tmp_path / "pool.parquet")

    def chosen(budget: str) -> list[str]:
        stages = [{"token_count": {"tokenizer": str(FILE)}}, {"select": {"by": "score", "budget": budget}}]
        recipe = {"corpus": {"paths": [str(tmp_path / "pool.parquet")], "id": "id"}, "stages": stages}
        found = curate.run(recipe, run=tmp_path / "run", workers=1)
        ids: list[str] = found.sql("SELECT id FROM docs WHERE curate_keep ORDER BY id")["id"].to_list()
        return ids

    assert chosen("5tokens") == ["a", "b"]
    counted = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "run" / "store").glob("*/measures/*.parquet")}
    assert chosen("4tokens") == ["a"]
    assert counted == {f.name: f.stat().st_mtime_ns for f in (tmp_path / "run" / "store").glob("*/measures/*.parquet")}
