"""The fast ZIP-FIT stage through whole runs: exact where it says so, near elsewhere, the same however the pool is cut."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import api
from curate.errors import ConfigError, DataError
from curate.scorers.zipfit_fast import ZipfitFast, ZipfitFastParams, mean_by_length, rank_correlation
from curate.stage import Context, Target

CODE = ["def ", "return ", "for i in range(", "):\n    ", "self.", "import ", "if x is None", " = [", "]\n", "print(", "x + y", "lambda "]
PROSE = ["the ", "of ", "and then ", "a house ", "by the sea ", "which was ", "never ", "known to ", "her ", "story ", "began ", ". "]


def document(draw: random.Random) -> str:
    """Code, prose, or some of both, of 3 to 120 pieces."""
    code = draw.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    return "".join(draw.choice(CODE if draw.random() < code else PROSE) + draw.choice("abcdefgh") for _ in range(draw.randint(3, 120)))


DRAW = random.Random(11)
POOL = [document(DRAW) for _ in range(700)]
GUIDE = ["".join(DRAW.choices(CODE, k=30)) for _ in range(12)]


def write(path: Path, texts: Sequence[str]) -> Path:
    path.write_bytes(b"\n".join(msgspec.json.encode({"text": t}) for t in texts))
    return path


def scored(folder: Path, scorer: str, pool: Sequence[Sequence[str]] | None = None, guides: Any = None, **more: Any) -> pa.Table:
    settings, workers = more.pop("settings", {}), more.pop("workers", 1)
    folder.mkdir(exist_ok=True)
    files = [write(folder / f"pool{i}.jsonl", texts) for i, texts in enumerate(pool or [POOL])]
    targets = {name: write(folder / f"{name}.jsonl", texts) for name, texts in (guides or {"code": GUIDE}).items()}
    api.score(scorer, files, targets=targets, out=folder / "out.parquet", settings=settings, workers=workers, **more)
    return pq.read_table(folder / "out.parquet")


def by_identity(table: pa.Table) -> dict[str, tuple[float | None, bool | None]]:
    columns = (table[n].to_pylist() for n in ("curate_identity", "zipfit_fast", "zipfit_fast_exact"))
    return {identity: (score, exact) for identity, score, exact in zip(*columns, strict=True)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """zipfit's scores of the pool, zipfit_fast's, and which of these are exact."""
    folder = tmp_path_factory.mktemp("both")
    exact = scored(folder / "exact", "zipfit")["zipfit"].to_numpy()
    fast = scored(folder / "fast", "zipfit_fast", settings={"sample": 300, "rescore": "20%"})
    return exact, fast["zipfit_fast"].to_numpy(), fast["zipfit_fast_exact"].to_numpy()


def test_what_is_called_exact_is_zipfits_number(both: tuple[np.ndarray, ...]) -> None:
    exact, fast, is_exact = both
    assert (exact[is_exact] == fast[is_exact]).all()
    assert (exact[~is_exact] != fast[~is_exact]).any()
    assert 300 < is_exact.sum() < 500


def test_fitted_scores_rank_as_exact_ones_do(both: tuple[np.ndarray, ...]) -> None:
    exact, fast, is_exact = both
    assert rank_correlation(exact[~is_exact], fast[~is_exact]) > 0.95


def test_the_top_is_the_exact_top(both: tuple[np.ndarray, ...]) -> None:
    exact, fast, _ = both
    assert set(np.argsort(-exact)[:35]) == set(np.argsort(-fast)[:35])


def test_a_pool_no_larger_than_the_sample_is_scored_exactly(tmp_path: Path) -> None:
    pool = [[*POOL[:60], ""]]
    fast, exact = scored(tmp_path / "f", "zipfit_fast", pool), scored(tmp_path / "e", "zipfit", pool)
    assert fast["zipfit_fast"].to_pylist() == exact["zipfit"].to_pylist()
    assert fast["zipfit_fast_exact"].to_pylist() == [True] * 60 + [None]
    assert fast["zipfit_fast_reason"].to_pylist() == [None] * 60 + ["empty text"]


def test_the_cut_the_order_and_the_workers_change_no_bit(tmp_path: Path) -> None:
    settings = {"sample": 200, "rescore": 50}
    whole = by_identity(scored(tmp_path / "a", "zipfit_fast", settings=settings))
    shuffled = random.Random(1).sample(POOL, len(POOL))
    cut = [shuffled[:10], shuffled[10:400], [""], shuffled[400:]]
    parts = by_identity(scored(tmp_path / "b", "zipfit_fast", cut, settings=settings, workers=2))
    assert {k: v for k, v in parts.items() if v[0] is not None} == whole


def test_copies_share_their_score_and_whether_it_is_exact(tmp_path: Path) -> None:
    found = scored(tmp_path, "zipfit_fast", [POOL, POOL[:350]], settings={"sample": 200, "rescore": None})
    scores, exact = found["zipfit_fast"].to_pylist(), found["zipfit_fast_exact"].to_pylist()
    assert scores[700:] == scores[:350]
    assert exact[700:] == exact[:350]
    assert 200 < sum(exact) == 200 + sum(exact[:350])


def test_the_seed_draws_another_sample(tmp_path: Path) -> None:
    settings = {"sample": 150, "rescore": None}
    first, second = (scored(tmp_path / str(s), "zipfit_fast", settings=settings, seed=s)["zipfit_fast_exact"].to_pylist() for s in (0, 1))
    assert sum(first) == sum(second) == 150
    assert first != second


def test_several_targets_have_a_column_each(tmp_path: Path) -> None:
    guides = {"code": GUIDE, "prose": ["".join(random.Random(3).choices(PROSE, k=40)) for _ in range(5)]}
    settings = {"sample": 150, "rescore": "5%"}
    found = scored(tmp_path, "zipfit_fast", guides=guides, settings=settings)
    assert [n for n in found.schema.names if n.startswith("zipfit_fast")] == [
        "zipfit_fast_code", "zipfit_fast_prose", "zipfit_fast_exact", "zipfit_fast_reason",
    ]  # fmt: skip
    exact = scored(tmp_path / "exact", "zipfit", guides=guides)
    where = found["zipfit_fast_exact"].to_numpy()
    for name in guides:
        assert (found[f"zipfit_fast_{name}"].to_numpy()[where] == exact[f"zipfit_{name}"].to_numpy()[where]).all()
        best = np.argsort(-exact[f"zipfit_{name}"].to_numpy())[:5]
        assert where[best].all()


def run(folder: Path, pool: Sequence[str], stage: dict[str, Any]) -> api.Result:
    recipe = {
        "name": "fast",
        "corpus": {"paths": [str(write(folder / "pool.jsonl", pool))]},
        "targets": {"code": {"guide": [str(write(folder / "code.jsonl", GUIDE))]}},
        "stages": [{"zipfit_fast": stage}, {"select": {"by": "zipfit_fast", "how": "top_k", "budget": 20}}],
    }
    return api.run(recipe, run=folder / "run", workers=1)


def test_a_run_says_how_near_the_fitted_scores_are_and_keeps_profiles_to_itself(tmp_path: Path) -> None:
    done = run(tmp_path, POOL, {"sample": 300})
    said = [w for w in done.outcome.warnings if w.startswith("zipfit_fast:")]
    assert len(said) == 2
    assert "rank correlation of fitted and exact scores, over 300 documents each left out of its fit: 0.9" in said[0]
    assert "of 700 scores are exact, the others fitted to those of 300 documents" in said[1]
    assert not [n for n in done.arrow("SELECT * FROM docs").schema.names if "profile" in n]


def test_a_moved_rescore_reads_no_text_again_but_what_it_scores(tmp_path: Path) -> None:
    run(tmp_path, POOL, {"sample": 300, "rescore": None})
    again = run(tmp_path, POOL, {"sample": 300, "rescore": "10%"})
    assert again.outcome.computed_parts == 0


def test_a_moved_setting_moves_what_is_chosen_by_it(tmp_path: Path) -> None:
    run(tmp_path, POOL, {"sample": 200})
    moved = run(tmp_path, POOL, {"sample": 200, "length_correction": "residual"})
    (tmp_path / "fresh").mkdir()
    fresh = run(tmp_path / "fresh", POOL, {"sample": 200, "length_correction": "residual"})
    chosen = "SELECT curate_identity FROM selected ORDER BY 1"
    assert moved.arrow(chosen).equals(fresh.arrow(chosen))


def test_a_poor_fit_is_a_warning(tmp_path: Path) -> None:
    draw = random.Random(2)
    noise = ["".join(chr(draw.randint(0x4E00, 0x9FFF)) for _ in range(draw.randint(60, 70))) for _ in range(200)]
    said = [w for w in run(tmp_path, noise, {"sample": 100}).outcome.warnings if w.startswith("zipfit_fast: warning")]
    assert len(said) == 1
    assert "below 0.95, so use zipfit, or a larger sample" in said[0]


def test_settings_that_mean_nothing_are_refused() -> None:
    for settings, words in [
        ({"level": 0}, "level 0 stores"),
        ({"max_targets": 0}, "max_targets of 1 or more"),
        ({"sample": 50}, "a sample of 100 to"),
        ({"rescore": "3MB"}, "a share or a number of documents"),
        ({"rescore": "much"}, "expected a budget"),
    ]:
        with pytest.raises(ConfigError, match=words):
            ZipfitFastParams(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a target"):
        ZipfitFast(ZipfitFastParams(), Context("zipfit_fast"))
    stage = ZipfitFast(ZipfitFastParams(), Context("zipfit_fast", targets=(Target("a"),)))
    with pytest.raises(DataError, match="zipfit_fast: the guide of target 'a' holds no text"):
        stage.close(None, {"a": pa.chunked_array([pa.array([], pa.string())])})


def test_the_mean_by_length_by_hand() -> None:
    # two lengths, two groups: means 0.5 at 99 bytes, 0.1 at 9999; half way in the logarithm is 999
    sizes, scores = np.repeat([99, 9999], 8), np.array([0.4, 0.6] * 4 + [0.0, 0.2] * 4)
    found = mean_by_length(sizes, scores, np.array([0, 99, 999, 9999, 10**6]))
    np.testing.assert_allclose(found, [0.5, 0.5, 0.3, 0.1, 0.1])
    assert mean_by_length(np.array([5]), np.array([0.25]), np.array([1, 9])).tolist() == [0.25, 0.25]


def test_a_residual_is_the_score_less_the_mean_of_its_length(tmp_path: Path, both: tuple[np.ndarray, ...]) -> None:
    exact = both[0]
    settings = {"sample": 700, "length_correction": "residual"}
    found = scored(tmp_path, "zipfit_fast", settings=settings)
    size = found["curate_bytes"].to_numpy()
    np.testing.assert_allclose(found["zipfit_fast"].to_numpy(), exact - mean_by_length(size, exact, size), rtol=0, atol=1e-12)
    assert abs(rank_correlation(found["zipfit_fast"].to_numpy(), size.astype(float))) < 0.1 < abs(rank_correlation(exact, size.astype(float)))


def test_the_best_residuals_are_the_ones_that_are_scored_exactly(tmp_path: Path) -> None:
    settings = {"sample": 200, "rescore": 70, "length_correction": "residual"}
    found = scored(tmp_path, "zipfit_fast", settings=settings)
    best = np.argsort(-found["zipfit_fast"].to_numpy())[:20]
    assert found["zipfit_fast_exact"].to_numpy()[best].all()


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 30])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(np.array([0.0, 1, 1, 5]), np.array([1.0, 2, 3, 4])) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation(np.ones(3), np.arange(3.0)) == 0
