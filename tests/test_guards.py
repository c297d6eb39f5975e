"""Guards: each warns where it should, with its number and its switch, and is silent where all is as it is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_folders import STAGES, recipe_for, run, small_rows, write_rows

from curate.errors import ConfigError

LENGTHS = '''
import msgspec
import pyarrow as pa
import pyarrow.compute as pc


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sign: float = -1.0


class Bytes:
    """What a compressor that forgets to divide by the length ranks by: the length."""

    version = 1
    Params = Params

    def __init__(self, params, context):
        self.params = params

    def reads(self):
        return ["curate_bytes"]

    def fields(self):
        return pa.schema([("value", pa.float64())])

    def apply(self, state, batch):
        return pa.record_batch([pc.multiply(pc.cast(batch.column(0), pa.float64()), self.params.sign)], names=["value"])
'''


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """2,400 different documents of 14 to some 2,400 words."""
    rows = [{"id": f"d{i:04d}", "source": "web", "text": f"document {i} " + "word " * (12 + (i * 7919) % 2400)} for i in range(2400)]
    write_rows(tmp_path / "pool" / "a.parquet", rows, row_group=500)
    (tmp_path / "lengths.py").write_text(LENGTHS)
    return tmp_path


def warned(pool: Path, stages: list[dict[str, Any]], **more: Any) -> list[str]:
    result = run(recipe_for(pool, stages=stages, **{"target": False, **more}), pool / "run")
    card = (pool / "run" / "mixture" / "README.md").read_text()
    found = [text for text in result.outcome.warnings if "guards:" in text]
    for text in found:
        assert text in card
    assert ("## Warnings" in card) == bool(found)
    return found


def test_a_stage_that_drops_nearly_all_is_told_with_its_reason(pool: Path) -> None:
    [text] = warned(pool, [{"length": {"max_bytes": 500}}])
    dropped = sum(len(f"document {i} " + "word " * (12 + (i * 7919) % 2400)) > 500 for i in range(2400))
    assert dropped > 0.95 * 2400
    assert f"length dropped {dropped:,} of the 2,400 documents that it saw ({dropped / 2400:.1%}), {dropped:,} of them for 'more than 500 bytes'" in text
    assert "guards: {max_drop: null}" in text
    assert warned(pool, [{"length": {"max_bytes": 500}}], guards={"max_drop": None}) == []
    assert warned(pool, [{"length": {"max_bytes": 500}}], guards={"max_drop": 0.99}) == []


def test_the_share_is_of_what_the_stage_saw_and_not_of_the_pool(pool: Path) -> None:
    stages = [{"length": {"max_bytes": 3000}}, {"length": {"max_bytes": 100, "as": "second"}}]
    assert any(text.startswith("second dropped") for text in warned(pool, stages))
    assert not any(text.startswith("length dropped") for text in warned(pool, stages))


def test_a_selection_drops_what_it_drops_on_purpose(pool: Path) -> None:
    assert warned(pool, [{"select": {"how": "random", "budget": 30}}]) == []


def test_a_stage_that_drops_nothing_where_it_usually_does_is_told(pool: Path) -> None:
    [text] = warned(pool, [{"length": {"min_bytes": 1}}])
    assert "length dropped none of the 2,400 documents that it saw; likely its bounds lie beyond the pool's lengths" in text
    assert [t.split()[0] for t in warned(pool, [{"dedup_exact": {}}])] == ["dedup_exact"]
    assert warned(pool, [{"dedup_exact": {}}], guards={"no_drop_documents": None}) == []
    assert warned(pool, [{"dedup_exact": {}}], guards={"no_drop_documents": 2400}) == []


def test_nothing_to_drop_after_a_stage_of_its_kind_is_no_news(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "source": "web", "text": f"document {i // 2} of a pool in which each stands twice"} for i in range(4000)]
    write_rows(tmp_path / "pool" / "a.parquet", rows)
    assert warned(tmp_path, [{"dedup_exact": {}}, {"dedup_exact": {"as": "again"}}]) == []


def test_a_selection_whose_best_are_its_shortest_is_told(pool: Path) -> None:
    lengths = f"{pool / 'lengths.py'}:Bytes"
    stages: list[dict[str, Any]] = [{lengths: {"as": "bad"}}, {"select": {"by": "bad", "budget": "10%"}}]
    [text] = warned(pool, stages)
    assert "24 of the 24 best documents of select are among the shortest tenth that it chose from" in text
    assert "guards: {shortest_best: null}" in text
    assert warned(pool, stages, guards={"shortest_best": None}) == []
    longest: list[dict[str, Any]] = [{lengths: {"as": "good", "sign": 1.0}}, stages[1] | {"select": {"by": "good", "budget": "10%"}}]
    assert warned(pool, longest) == []
    targets = {"short": {"guide": [str(write_rows(pool / "guide.jsonl", [{"text": f"short {i}"} for i in range(9)]))]}}
    assert warned(pool, stages, targets=targets) == []  # short ones are what is asked for


def test_of_documents_of_one_length_none_is_short(tmp_path: Path) -> None:
    rows = [{"id": f"d{i:04d}", "source": "web", "text": f"document {i:04d}"} for i in range(2400)]
    write_rows(tmp_path / "pool" / "a.parquet", rows)
    (tmp_path / "lengths.py").write_text(LENGTHS)
    stages: list[dict[str, Any]] = [{f"{tmp_path / 'lengths.py'}:Bytes": {"as": "bad"}}, {"select": {"by": "bad", "budget": "10%"}}]
    assert warned(tmp_path, stages) == []


def test_an_ordinary_run_has_nothing_to_warn_of(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "a.parquet", small_rows())
    result = run(recipe_for(tmp_path, stages=STAGES), tmp_path / "run")
    assert not any("guards:" in text for text in result.outcome.warnings)


@pytest.mark.parametrize("guards", [{"max_drop": 0}, {"max_drop": 1.5}, {"shortest_best": -1}, {"no_drop_documents": 0}, {"max_dropp": 1}])
def test_settings_that_cannot_be_meant_are_refused(pool: Path, guards: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="guards"):
        warned(pool, [], guards=guards)
