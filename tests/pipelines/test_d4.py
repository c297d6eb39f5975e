"""D4 in a run: both shares, the second clustering, and another cut of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.pipelines.d4 import D4Params


def table(folder: Path, rows: np.ndarray, files: int, **settings: Any) -> list[dict[str, Any]]:
    folder.mkdir()
    listed = [{"id": f"d{i:03d}", "text": f"text {i}", "v": row.tolist()} for i, row in enumerate(rows)]
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("v", pa.list_(pa.float32()))])
    for i in range(files):
        pq.write_table(pa.Table.from_pylist(listed[i::files], schema), folder / f"p{i}.parquet")
    recipe = {"corpus": {"paths": [str(folder / "*.parquet")], "id": "id"}, "stages": [{"d4": {"vector": "v", **settings}}]}
    curate.run(recipe, run=folder / "run", workers=1, publish=False)
    found: list[dict[str, Any]] = OpenRun(folder / "run").arrow("SELECT id, d4_keep AS keep, d4_reason AS reason, d4_near AS near, d4_centroid_similarity AS c FROM docs ORDER BY id").to_pylist()
    return found


def test_duplicates_go_first_then_what_is_nearest_its_new_centroid(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    rows = random.normal(size=(40, 8))
    rows[30:] = rows[:10]  # ten equal ones: with keep_dedup 0.75 one of each pair goes, and nothing else
    found = table(tmp_path / "a", rows, 1, clusters=1, keep_prototypes=0.5)
    gone = [r for r in found if r["reason"] == "semantic duplicate of another document"]
    assert len(gone) == 10
    assert {(int(r["id"][1:]) % 30, int(r["near"][1:]) % 30) for r in gone} == {(i, i) for i in range(10)}
    left = [r for r in found if r["c"] is not None]
    assert len(left) == 30
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    centre = units[[int(r["id"][1:]) for r in left]].sum(axis=0)
    nearest = sorted(left, key=lambda r: float(units[int(r["id"][1:])] @ centre))
    assert {r["id"] for r in nearest[:15]} == {r["id"] for r in found if r["keep"]}
    assert {r["reason"] for r in nearest[15:]} == {"near its centroid"}
    assert found == table(tmp_path / "b", rows, 4, clusters=1, keep_prototypes=0.5)


def test_shares_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected keep_dedup above 0"):
        D4Params(keep_dedup=0.0)
    with pytest.raises(ConfigError, match="expected keep_prototypes above 0"):
        D4Params(keep_prototypes=1.5)


def test_a_share_is_what_was_written_and_not_what_is_left_of_it_in_binary(tmp_path: Path) -> None:
    rows = np.random.default_rng(7).normal(size=(100, 8))  # 0.57 * 100 is 56.99999999999999
    found = table(tmp_path / "pool", rows, 1, clusters=1, keep_dedup=0.57, keep_prototypes=1.0)
    assert sum(r["keep"] for r in found) == 57


def test_the_warning_comes_where_what_is_like_no_other_was_dropped_and_only_there(tmp_path: Path) -> None:
    rows = np.eye(8)  # all at right angles: nothing is like another
    for keep, warned in ((1.0, False), (0.5, True)):
        folder = tmp_path / str(keep)
        table(folder, rows, 1, clusters=1, keep_dedup=keep)
        assert ("that are like no other" in (folder / "run" / "events.jsonl").read_text()) is warned
