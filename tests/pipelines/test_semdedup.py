"""SemDeDup in a run: what is stored, what a moved eps computes again, and that no order of the input shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.catalog import OpenRun
from curate.errors import ConfigError, DataError
from curate.pipelines.semdedup import SemdedupParams

Rows = list[dict[str, Any]]


def pool(count: int = 60, dim: int = 6, seed: int = 5) -> Rows:
    """Vectors of which each third is near another, some are equal, one is null and one has no direction."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, dim)).astype(np.float32)
    for i in range(1, count, 3):
        rows[i] = rows[i - 1] + random.normal(size=dim) * (0.02 if i % 2 else 0)
    listed: Rows = [{"id": f"d{i:03d}", "text": f"text {i}", "v": row.tolist()} for i, row in enumerate(rows)]
    listed[7]["v"] = None
    listed[8]["v"] = [0.0] * dim
    return listed


SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("v", pa.list_(pa.float32()))])


def run(folder: Path, rows: Rows, *, files: int = 1, workers: int = 1, name: str = "run", schema: pa.Schema = SCHEMA, **settings: Any) -> Rows:
    (folder / "pool").mkdir(parents=True, exist_ok=True)
    for i in range(files):
        pq.write_table(pa.Table.from_pylist(rows[i::files], schema), folder / "pool" / f"p{i}.parquet")
    recipe = {"corpus": {"paths": [str(folder / "pool")], "id": "id"}, "stages": [{"semdedup": {"vector": "v", **settings}}]}
    curate.run(recipe, run=folder / name, workers=workers, publish=False)
    return table(folder / name)


def table(run_folder: Path) -> Rows:
    found: Rows = OpenRun(run_folder).arrow(
        "SELECT id, semdedup_keep AS keep, semdedup_reason AS reason, semdedup_similarity AS similarity, semdedup_near AS near, semdedup_cluster AS cluster FROM docs ORDER BY id"
    ).to_pylist()
    return found


def cosine(a: Any, b: Any) -> float:
    x, y = np.array(a, float), np.array(b, float)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def test_the_document_that_blocks_is_named_and_its_cosine_is_the_similarity(tmp_path: Path) -> None:
    rows = pool()
    by_id = {r["id"]: r["v"] for r in rows}
    found = run(tmp_path, rows, eps=0.01)
    dropped = [r for r in found if not r["keep"]]
    assert len(dropped) >= 18  # the twenty that were made near another, but for those that met the null and the zero
    for row in found:
        if row["near"] is not None:
            assert row["similarity"] == pytest.approx(cosine(by_id[row["id"]], by_id[row["near"]]), abs=1e-12)
        assert row["keep"] == (row["similarity"] is None or row["similarity"] <= 1 - 0.01)
        assert row["reason"] == (None if row["keep"] else "semantic duplicate of another document")
    assert [(r["keep"], r["similarity"], r["near"]) for r in found if r["id"] in ("d007", "d008")] == [(True, None, None)] * 2


@pytest.mark.parametrize("clusters", [None, 5])
def test_neither_order_nor_files_nor_workers_show(tmp_path: Path, clusters: int | None) -> None:
    rows = pool()
    settings = {"clusters": clusters} if clusters else {}
    first = run(tmp_path / "a", rows, **settings)
    again = run(tmp_path / "b", rows[::-1], files=4, workers=2, **settings)
    assert first == again
    assert len({r["cluster"] for r in first if r["cluster"] is not None}) == (clusters or 1)


def test_every_number_type_and_kind_of_list_gives_the_same(tmp_path: Path) -> None:
    rows = pool()
    for row in rows:
        row["v"] = None if row["v"] is None else np.array(row["v"], np.float16).tolist()
    kinds = [pa.list_(pa.float32()), pa.list_(pa.float16(), 6), pa.large_list(pa.float64())]
    found = [run(tmp_path / str(i), rows, schema=pa.schema([*list(SCHEMA)[:2], ("v", kind)])) for i, kind in enumerate(kinds)]
    assert found[0] == found[1] == found[2]


def test_a_moved_eps_finds_nothing_again_and_gives_what_a_fresh_run_gives(tmp_path: Path) -> None:
    rows = pool()
    run(tmp_path, rows, eps=0.0001)
    finished = {f: f.stat().st_mtime_ns for f in (tmp_path / "run" / "store").rglob("finish/*/*.parquet")}
    assert finished
    moved = run(tmp_path, rows, eps=0.5)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run" / "store").rglob("finish/*/*.parquet")} == finished
    assert moved == run(tmp_path, rows, eps=0.5, name="fresh")
    assert run(tmp_path, rows, eps=0.0001) == run(tmp_path, rows, eps=0.0001, name="fresh2")


def test_a_chain_is_one_by_the_reference_and_two_by_the_greedy_rule(tmp_path: Path) -> None:
    angles = {"a": 20.0, "b": 10.0, "c": 0.0, **{f"m{i}": -40.0 for i in range(5)}}  # five equal ones hold the centroid near them
    rows = [{"id": i, "text": i, "v": [float(np.cos(np.radians(d))), float(np.sin(np.radians(d)))]} for i, d in angles.items()]
    kept = {rule: [r["id"] for r in run(tmp_path, rows, name=rule, eps=0.02, rule=rule) if r["keep"]] for rule in ("earlier", "greedy")}
    assert kept == {"earlier": ["a", "m0"], "greedy": ["a", "c", "m0"]}


def test_a_stage_behind_sees_what_was_kept(tmp_path: Path) -> None:
    rows = pool()
    run(tmp_path, rows, eps=0.01)
    recipe = {"corpus": {"paths": [str(tmp_path / "pool")], "id": "id"},
              "stages": [{"semdedup": {"vector": "v", "eps": 0.01}}, {"semdedup": {"vector": "v", "eps": 0.01, "as": "again"}}]}  # fmt: skip
    curate.run(recipe, run=tmp_path / "two", workers=1, publish=False)
    left = OpenRun(tmp_path / "two").arrow("SELECT count(*) AS n, count(again_keep) AS shown FROM docs WHERE NOT semdedup_keep")
    assert left["n"][0].as_py() > 0
    assert left["shown"][0].as_py() == 0


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected eps from 0 to 1"):
        SemdedupParams(eps=1.5)
    with pytest.raises(ConfigError, match="expected clusters of 1 or more"):
        SemdedupParams(clusters=0)
    with pytest.raises(ConfigError, match="expected iterations of 1 or more"):
        SemdedupParams(iterations=0)
    with pytest.raises(ConfigError, match="expected vectors in the column 'text'"):
        run(tmp_path / "t", pool(), name="t", **{"vector": "text"})  # a text is no vector
    rows = pool()
    rows[3]["v"] = [1.0]
    with pytest.raises(DataError, match="expected vectors of one length in the column 'v', got 6 and 1"):
        run(tmp_path / "l", rows)


def test_a_pool_without_a_vector_is_kept(tmp_path: Path) -> None:
    found = run(tmp_path, [{"id": "a", "text": "x", "v": None}])
    assert found == [{"id": "a", "keep": True, "reason": None, "similarity": None, "near": None, "cluster": None}]


def test_behind_embed_equal_words_are_duplicates(tmp_path: Path) -> None:
    texts = ["the red sea and the ships upon it", "The  red sea and the ships upon it", "a recipe for bread with rye"]
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": texts}), tmp_path / "pool.parquet")
    recipe = {"corpus": {"paths": [str(tmp_path / "pool.parquet")], "id": "id"}, "stages": [{"embed": {"dim": 64}}, {"semdedup": {}}]}
    curate.run(recipe, run=tmp_path / "run", workers=1, publish=False)
    assert [r["keep"] for r in table(tmp_path / "run")] == [True, False, True]
    assert table(tmp_path / "run")[1]["near"] == "a"
