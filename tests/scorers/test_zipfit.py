"""The ZIP-FIT stage against the numbers of the authors' class, and each of its options where it must matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import api
from curate.errors import ConfigError, DataError
from curate.scorers.zipfit import Zipfit, ZipfitParams
from curate.stage import TEXT, Context, Target, meaning

TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog barks; the fox runs away.",
    "def add(a, b):\n    return a + b\n\n\ndef mul(a, b):\n    return a * b\n",
    "Theorem 1. For every n >= 0, n*(n+1)/2 is an integer. Proof: by induction on n.",
    "Café MÜNCHEN naïve — 你好，世界! 😀 100% snake_case x_1\r\n\tdon't",
    "",
]
GUIDE = [
    "def sub(a, b):\n    return a - b\n",
    "def div(a, b):\n    if b == 0:\n        raise ZeroDivisionError\n    return a / b\n",
    "for i in range(10):\n    print(add(i, i + 1))\n",
]
OTHER = ["The lazy dog sleeps. The fox jumps over the dog.", "A proof by induction on n."]
#: ZIP-FIT's own class with gzip at these levels; the empty text is a number there and null here.
REFERENCE = {
    1: [0.337078651685, 0.506012506013, 0.333333333333, 0.207482993197],
    6: [0.337078651685, 0.507754059478, 0.333333333333, 0.207482993197],
    9: [0.337078651685, 0.507754059478, 0.333333333333, 0.207482993197],
}


def stage(targets: Sequence[str] = ("code",), seed: int = 0, **settings: Any) -> Zipfit:
    return Zipfit(ZipfitParams(**settings), Context("zipfit", seed, tuple(Target(name) for name in targets)))


def state(zipfit: Zipfit, **guides: list[str]) -> pa.Table:
    return zipfit.close(
        None, {name: pa.chunked_array([pa.array(g, pa.string())]) for name, g in guides.items()}
    )


def scores(zipfit: Zipfit, texts: Sequence[str] = TEXTS, **guides: list[str]) -> pa.RecordBatch:
    return zipfit.apply(
        state(zipfit, **(guides or {"code": GUIDE})), pa.record_batch([pa.array(texts)], names=[TEXT])
    )


@pytest.mark.parametrize("level", REFERENCE)
def test_gzip_gives_the_references_numbers(level: int) -> None:
    found = scores(stage(level=level))
    np.testing.assert_allclose(found.column("value").to_pylist()[:4], REFERENCE[level], rtol=0, atol=1e-12)


def test_an_empty_document_is_null_with_a_reason() -> None:
    found = scores(stage())
    assert found.column("value").to_pylist()[4] is None
    assert found.column("reason").to_pylist() == [None, None, None, None, "empty text"]


def test_the_container_counts() -> None:
    gzip, raw = (scores(stage(compressor=name)).column("value").to_pylist() for name in ("gzip", "deflate"))
    # deflate: C(x) 45, C(t) 32, 69, 44, C(xt) 55, 92, 80
    by_hand = (3 - (55 - 32) / 45 - (92 - 45) / 69 - (80 - 44) / 45) / 3
    assert raw[1] == pytest.approx(by_hand, abs=1e-12)
    assert gzip[1] != raw[1]


def test_several_targets_have_a_column_each() -> None:
    zipfit = stage(targets=("code", "prose"))
    found = scores(zipfit, code=GUIDE, prose=OTHER)
    assert found.schema.names == ["code", "prose", "reason"]
    assert [meaning(zipfit.fields().field(n)) for n in ("code", "prose")] == [("score", True)] * 2
    np.testing.assert_allclose(found.column("code").to_pylist()[:4], REFERENCE[6], rtol=0, atol=1e-12)
    assert found.column("prose").to_pylist()[0] > found.column("code").to_pylist()[0]


def test_the_order_of_the_guide_does_not_show() -> None:
    zipfit = stage()
    assert state(zipfit, code=GUIDE).equals(state(zipfit, code=GUIDE[::-1]))
    assert scores(zipfit, code=GUIDE).equals(scores(zipfit, code=GUIDE[::-1]))


def test_max_targets_draws_by_seed_and_text_not_by_place() -> None:
    guide = [f"target number {i}, which is one of many" for i in range(40)]
    few = state(stage(max_targets=7), code=guide)["text"].to_pylist()
    assert len(set(few)) == 7
    assert set(few) <= set(guide)
    assert state(stage(max_targets=7), code=guide[::-1])["text"].to_pylist() == few
    assert state(stage(max_targets=7, seed=1), code=guide)["text"].to_pylist() != few
    assert set(few) < set(state(stage(max_targets=8), code=guide)["text"].to_pylist())
    assert len(state(stage(max_targets=100), code=guide)) == 40


def test_only_a_sample_depends_on_the_seed() -> None:
    assert not stage().uses_seed
    assert stage(max_targets=3).uses_seed


def test_copies_in_the_guide_count_as_often_as_they_stand() -> None:
    once, twice = (scores(stage(), code=g).column("value").to_pylist() for g in (GUIDE, [*GUIDE, GUIDE[0]]))
    # gzip: C(x) 63, C(t) 50, C(xt) 73 for the first of the guide
    assert twice[1] == pytest.approx((3 * once[1] + 1 - (73 - 50) / 63) / 4, abs=1e-12)


def test_the_librarys_version_is_part_of_the_key_where_there_is_one() -> None:
    assert stage().extra_key() == ""
    assert stage(compressor="zstd", level=3).extra_key().startswith("zstd 1.")


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="level 0 stores"):
        ZipfitParams(level=0)
    with pytest.raises(ConfigError, match="max_targets of 1 or more"):
        ZipfitParams(max_targets=0)
    with pytest.raises(ConfigError, match="needs a target"):
        Zipfit(ZipfitParams(), Context("zipfit"))
    with pytest.raises(DataError, match="holds no text"):
        state(stage(), code=[])


def test_the_command_scores_a_pool_against_a_target(tmp_path: Any) -> None:
    for name, texts in (("pool", TEXTS), ("guide", GUIDE)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(msgspec.json.encode({"text": t}) for t in texts))
    api.score(
        "zipfit",
        tmp_path / "pool.jsonl",
        targets=tmp_path / "guide.jsonl",
        out=tmp_path / "scores.parquet",
        workers=1,
    )
    found = pq.read_table(tmp_path / "scores.parquet")
    np.testing.assert_allclose(found["zipfit"].to_pylist()[:4], REFERENCE[6], rtol=0, atol=1e-12)
    assert found["zipfit_reason"].to_pylist() == [None, None, None, None, "empty text"]
