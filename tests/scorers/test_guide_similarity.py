"""The cosine with the guides' examples, by hand from the vectors of the texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import embedding
from curate.catalog import OpenRun
from curate.errors import ConfigError, DataError
from curate.scorers.embed import EmbedParams
from curate.scorers.guide_similarity import GuideSimilarity, GuideSimilarityParams
from curate.stage import TEXT, Context, Target

SEA = ["the red sea is wide", "ships upon the red sea"]
BREAD = ["a recipe for bread with rye"]
POOL = ["the red sea and its ships", "bread with rye and salt", ""]


def applied(targets: dict[str, list[str]], **settings: object) -> pa.RecordBatch:
    context = Context("guide_similarity", targets=tuple(Target(n) for n in targets))
    stage = GuideSimilarity(GuideSimilarityParams(embed=EmbedParams(dim=64), **settings), context)  # type: ignore[arg-type]
    state = stage.close(None, {n: pa.chunked_array([t]) for n, t in targets.items()})
    return stage.apply(state, pa.record_batch([pa.array(POOL)], names=[TEXT]))


def cosines(guide: list[str]) -> np.ndarray:
    rows, _ = embedding.vectors(pa.array(POOL), ngram=2, dim=64)
    others, _ = embedding.vectors(pa.array(guide), ngram=2, dim=64)
    return rows.astype(float) @ others.astype(float).T


def test_one_target_gives_the_largest_or_the_mean() -> None:
    for combine, over in (("max", np.max), ("mean", np.mean)):
        found = applied({"sea": SEA}, combine=combine)
        assert found.schema.names == ["value", "reason"]
        assert found["value"].to_pylist()[:2] == pytest.approx(over(cosines(SEA)[:2], axis=1), abs=1e-7)
        assert found["value"].to_pylist()[2] is None
        assert found["reason"].to_pylist() == [None, None, "no word"]


def test_each_gives_all_examples_of_each_target_in_an_order_of_their_own() -> None:
    found = applied({"sea": SEA, "bread": BREAD}, each=True)
    assert found.schema.names == ["sea", "bread", "each_sea", "each_bread", "reason"]
    assert sorted(found["each_sea"][0].as_py()) == pytest.approx(sorted(cosines(SEA)[0]), abs=1e-6)
    assert found["each_bread"][1].as_py() == pytest.approx(cosines(BREAD)[1], abs=1e-6)
    assert found["each_sea"][2].as_py() is None
    assert applied({"sea": SEA[::-1], "bread": BREAD}, each=True).equals(found)


def test_a_guide_without_a_word_and_a_recipe_without_targets_are_refused() -> None:
    with pytest.raises(DataError, match="no example of target 'sea' has a vector"):
        applied({"sea": ["", " "]})
    with pytest.raises(ConfigError, match="needs targets"):
        GuideSimilarity(GuideSimilarityParams(), Context("g"))


def test_in_a_run_cover_takes_turns_over_its_examples(tmp_path: Path) -> None:
    texts = [f"the red sea {i} is wide" for i in range(30)] + [f"a recipe for bread with rye {i}" for i in range(30)]
    pq.write_table(pa.table({"id": [f"d{i:02d}" for i in range(60)], "text": texts}), tmp_path / "pool.parquet")
    for name, guide in (("sea", SEA), ("bread", BREAD)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in guide * 4))
    recipe = {
        "corpus": {"paths": [str(tmp_path / "pool.parquet")], "id": "id"},
        "targets": {n: {"guide": [str(tmp_path / f"{n}.jsonl")]} for n in ("sea", "bread")},
        "stages": [{"guide_similarity": {"each": True}}, {"cover": {"how": "round_robin", "budget": 10}}],
    }
    curate.run(recipe, run=tmp_path / "run", workers=1, publish=False)
    found = OpenRun(tmp_path / "run").arrow("SELECT cover_target AS t, count(*) AS n, min(guide_similarity_sea) AS s FROM docs WHERE cover_keep GROUP BY 1 ORDER BY 1").to_pylist()
    assert [(r["t"], r["n"]) for r in found] == [("bread", 5), ("sea", 5)]
    names = OpenRun(tmp_path / "run").arrow("SELECT * FROM docs").schema.names
    assert "guide_similarity_each_sea" not in names
