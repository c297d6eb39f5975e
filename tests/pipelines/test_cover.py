"""Choosing for coverage in a run: budgets, reasons, ties, and that no order of the input shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import curate
from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.pipelines.cover import CoverParams

X12 = np.random.default_rng(0).standard_normal((12, 4))
SCORES = np.array([[0.9, 0.8, 0.7, 0.1, 0.2], [0.95, 0.3, 0.6, 0.5, 0.4], [0.2, 0.85, 0.1, 0.3, 0.75]])


def picked(folder: Path, rows: np.ndarray, *, files: int = 1, **settings: Any) -> list[int]:
    """The documents of a run, numbered as the rows, in order of rank."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [{"id": f"d{i:03d}", "text": f"text {i}", "v": row.tolist(), "q": float(i + 1)} for i, row in enumerate(rows)]
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("v", pa.list_(pa.float32())), ("q", pa.float64())])
    for i in range(files):
        pq.write_table(pa.Table.from_pylist(listed[::-1][i::files] if files > 1 else listed, schema), folder / f"p{i}.parquet")
    recipe = {"corpus": {"paths": [str(folder / "*.parquet")], "id": "id"}, "stages": [{"cover": {"vector": "v", **settings}}]}
    curate.run(recipe, run=folder / "run", workers=1, publish=False)
    found = OpenRun(folder / "run").arrow("SELECT id, cover_keep, cover_reason, cover_rank FROM docs ORDER BY cover_rank").to_pylist()
    assert all(r["cover_keep"] == (r["cover_reason"] is None) == (r["cover_rank"] is not None) for r in found)
    return [int(r["id"][1:]) for r in found if r["cover_keep"]]


def test_facility_location_gives_the_golden_set_in_any_order_of_the_input(tmp_path: Path) -> None:
    assert picked(tmp_path / "a", X12, how="facility_location", budget=5) == [9, 7, 8, 6, 2]
    assert picked(tmp_path / "b", X12, how="facility_location", budget=5, files=3) == [9, 7, 8, 6, 2]


def test_round_robin_and_global_max_disagree_as_the_references_do(tmp_path: Path) -> None:
    assert picked(tmp_path / "s", SCORES.T, how="round_robin", taken="spend", similarity="v", budget=3) == [0, 1, 2]
    assert picked(tmp_path / "n", SCORES.T, how="round_robin", similarity="v", budget=3) == [0, 2, 1]
    assert picked(tmp_path / "g", SCORES.T, how="global_max", similarity="v", budget=3) == [0, 1, 4]


@pytest.mark.parametrize("how", ["k_center", "dpp", "cluster_balanced"])
def test_a_budget_is_filled_and_the_same_for_another_cut(tmp_path: Path, how: str) -> None:
    first = picked(tmp_path / "a", X12, how=how, budget="25%")
    assert len(first) == 3
    assert first == picked(tmp_path / "b", X12, how=how, budget="25%", files=2)
    assert len(picked(tmp_path / "c", X12, how=how, budget="14B")) == 2  # a text has six or seven bytes


def test_clusters_get_the_same_and_by_says_who(tmp_path: Path) -> None:
    rows = np.concatenate([np.tile([1.0, 0.0], (20, 1)), np.tile([0.0, 1.0], (4, 1))]) + np.linspace(0, 0.01, 24)[:, None]
    found = picked(tmp_path, rows, how="cluster_balanced", budget=6, clusters=2, by="q")
    assert sorted(found) == [17, 18, 19, 21, 22, 23]


def test_candidates_are_the_best_by_a_column(tmp_path: Path) -> None:
    assert set(picked(tmp_path, X12, how="k_center", budget=4, candidates=4, by="q")) == {8, 9, 10, 11}


def test_settings_that_contradict_each_other_are_refused() -> None:
    for settings, said in (({"how": "global_max", "by": "q"}, "leave by out"), ({"how": "dpp", "taken": "spend"}, "round_robin"),
                           ({"how": "dpp", "clusters": 2}, "cluster_balanced"), ({"how": "dpp", "candidates": 0}, "candidates of 1")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            CoverParams(budget=3, **settings)  # type: ignore[arg-type]


def test_where_all_have_one_quality_dpp_begins_with_the_least_identity(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 384))  # lengths of 1 but for rounding
    assert picked(tmp_path, rows, how="dpp", budget=1) == [0]


def test_a_budget_in_tokens_is_added_up_from_the_column_that_counts_them(tmp_path: Path) -> None:
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "a"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "words.json"))
    listed = [{"id": f"d{i}", "text": " ".join(["a"] * (i + 1)), "v": row.tolist(), "q": float(i)} for i, row in enumerate(X12[:6])]
    pq.write_table(pa.Table.from_pylist(listed), tmp_path / "pool.parquet")
    cover = {"how": "k_center", "vector": "v", "by": "q", "candidates": 2, "budget": "11tokens"}
    stages: list[dict[str, Any]] = [{"token_count": {"tokenizer": str(tmp_path / "words.json")}}, {"cover": cover}]
    recipe = {"corpus": {"paths": [str(tmp_path / "pool.parquet")], "id": "id"}, "stages": stages}
    curate.run(recipe, run=tmp_path / "run", workers=1, publish=False)  # the candidates have six and five tokens
    assert OpenRun(tmp_path / "run").arrow("SELECT id FROM docs WHERE cover_keep ORDER BY cover_rank")["id"].to_pylist() == ["d5", "d4"]
    cover["budget"] = "10tokens"
    curate.run(recipe, run=tmp_path / "less", workers=1, publish=False)
    assert OpenRun(tmp_path / "less").arrow("SELECT id FROM docs WHERE cover_keep")["id"].to_pylist() == ["d5"]
    with pytest.raises(ConfigError, match="put one before this stage: - token_count"):
        curate.run({**recipe, "stages": stages[1:]}, run=tmp_path / "none", workers=1, publish=False)
