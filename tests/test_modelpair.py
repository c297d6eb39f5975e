"""The pair of models: who was trained on what, packing by hand, and a score that finds the target."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from run_folders import docs, recipe_for, run, texts_read, write_rows

from curate import documents, language_model, modelpair
from curate.errors import DataError
from curate.trainspec import TrainSpec

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
SEA = ["ship", "sea", "wave", "harbour", "sail", "storm", "anchor", "tide"]
SUMS = ["one", "two", "plus", "four", "equals", "seven", "times", "minus"]


def sentence(draw: random.Random, words: list[str]) -> str:
    return " ".join(draw.choice(words) for _ in range(12))


def pair(**more: Any) -> modelpair.Pair:
    spec = {"epochs": 4.0, "batch_tokens": 4 * 32, "micro_batch": 4, "learning_rate": 0.01, **modelpair.FIXED, "config": SIZE}
    tune = {"epochs": 10.0, "batch_tokens": 4 * 32, "learning_rate": 0.005, **modelpair.FIXED}
    return modelpair.Pair(**({"seed": 3, "vocabulary": 300, "length": 32, "prior": msgspec.convert(spec, TrainSpec), "conditional": tune} | more))


def rows(texts: list[str]) -> list[tuple[bytes, str]]:
    return list(zip(documents.text_hashes(pa.array(texts)).to_pylist(), texts, strict=True))


@pytest.fixture(scope="module")
def pool() -> list[str]:
    draw = random.Random(4)
    return [sentence(draw, SEA if i % 4 else SUMS) for i in range(120)]


@pytest.fixture(scope="module")
def trained(pool: list[str]) -> pa.Table:
    draw = random.Random(9)
    return pair().train(rows(pool), {"maths": [sentence(draw, SUMS) for _ in range(24)]})


def models(table: pa.Table, folder: Path) -> dict[tuple[int, str], language_model.LanguageModel]:
    names = [(fold, name) for fold in (0, 1) for name in (modelpair.PRIOR, "maths")]
    return {key: language_model.LanguageModel(modelpair.unpack(table, *key, folder / f"{key[0]}{key[1]}"), "cpu", "fp32") for key in names}


def loss(model: language_model.LanguageModel, texts: list[str]) -> float:
    found = model.losses([([], tokens) for tokens in model.tokens(texts)])
    return sum(float(f.nll.sum()) for f in found) / sum(len(f.nll) for f in found)


def test_packing_by_hand() -> None:
    assert list(modelpair.pack([("a", [1, 2, 3]), ("b", []), ("c", [4, 5, 6, 7, 8])], 0, 6)) == [
        [("a", [0, 1, 2, 3]), ("c", [0, 4])], [("c", [4, 5, 6, 7, 8])],
    ]  # fmt: skip
    assert list(modelpair.pack([("a", [1, 2, 3, 4]), ("b", [5])], 0, 6)) == [[("a", [0, 1, 2, 3, 4])], [("b", [0, 5])]]


def test_every_token_is_learned_once() -> None:
    draw = random.Random(1)
    texts = [(str(i), [draw.randrange(1, 99) for _ in range(draw.randrange(0, 40))]) for i in range(50)]
    packed = list(modelpair.pack(texts, 0, 16))
    assert all(sum(len(tokens) for _, tokens in sequence) <= 16 for sequence in packed)
    found: dict[str, list[int]] = {}
    for sequence in packed:
        for name, tokens in sequence:
            before = found.setdefault(name, [])
            assert not before or before[-1] == tokens[0]
            before.extend(tokens[1:] if before else tokens)
    assert found == {name: [0, *tokens] for name, tokens in texts if tokens}


def test_the_conditional_is_nearer_to_the_target_and_the_prior_is_not(trained: pa.Table, tmp_path: Path) -> None:
    draw, found = random.Random(77), models(trained, tmp_path)
    sums, sea = [sentence(draw, SUMS) for _ in range(20)], [sentence(draw, SEA) for _ in range(20)]
    for fold in (0, 1):
        prior, conditional = found[fold, modelpair.PRIOR], found[fold, "maths"]
        assert loss(prior, sums) - loss(conditional, sums) > 0.1
        assert loss(prior, sea) - loss(conditional, sea) < 0


def test_a_document_is_scored_by_a_prior_that_saw_the_other_half_only(tmp_path: Path) -> None:
    draw = random.Random(6)
    # by hand: what has an even hash is of the sea, the rest are sums
    sample = [row for row in rows([sentence(draw, words) for _ in range(160) for words in (SEA, SUMS)]) if (row[0][0] & 1 == 0) == (row[1].split()[0] in SEA)]
    found = models(pair().train(sample, {"maths": ["one plus one"]}), tmp_path)
    for fold, mine, other in ((0, SEA, SUMS), (1, SUMS, SEA)):
        prior = found[fold, modelpair.PRIOR]
        assert loss(prior, [sentence(draw, mine) for _ in range(20)]) > 1.5 * loss(prior, [sentence(draw, other) for _ in range(20)])
    assert modelpair.fold_of(pa.array([b"\x00" * 16, b"\x01" * 16, b"\xfe" * 16], pa.binary(16))).tolist() == [0, 1, 0]


def test_the_same_sample_in_any_order_makes_the_same_models(pool: list[str], trained: pa.Table) -> None:
    draw = random.Random(9)
    guide = [sentence(draw, SUMS) for _ in range(24)]
    random.Random(2).shuffle(guide)
    assert pair().train(rows(pool)[::-1], {"maths": guide}).equals(trained)


def test_a_half_without_a_text_is_refused() -> None:
    with pytest.raises(DataError, match="one holds no text"):
        pair().train([(b"\x00" * 16, "one text")], {"maths": ["two"]})


def test_a_run_chooses_what_the_target_is_like(tmp_path: Path) -> None:
    draw = random.Random(5)
    write_rows(tmp_path / "pool" / "0.parquet", [{"id": f"d{i}", "text": sentence(draw, SUMS if i % 5 == 0 else SEA), "source": "sums" if i % 5 == 0 else "sea"} for i in range(150)])
    write_rows(tmp_path / "guide.parquet", [{"text": sentence(draw, SUMS)} for _ in range(30)])
    stage = {"sample": 100, "vocabulary": 300, "sequence_length": 32, "train": {"config": SIZE, "epochs": 6, "learning_rate": 0.01}, "tune": {"epochs": 12, "learning_rate": 0.005}}
    recipe = recipe_for(tmp_path, stages=[{"color_filter": stage}, {"select": {"by": "color_filter", "budget": 20}}], target=False)
    recipe["targets"] = {"maths": {"guide": [str(tmp_path / "guide.parquet")]}}
    found = run(recipe, tmp_path / "run", workers=2)
    kept = found.sql("SELECT source, count(*) AS n FROM selected GROUP BY source").to_dicts()
    assert kept == [{"source": "sums", "n": 20}]
    before = docs(tmp_path / "run")["color_filter"].to_pylist()
    recipe["stages"][1]["select"]["budget"] = 10
    run(recipe, tmp_path / "run")
    assert "color_filter" not in "".join(texts_read(tmp_path / "run"))
    again = run(recipe, tmp_path / "again", workers=1)
    assert docs(tmp_path / "again")["color_filter"].to_pylist() == pytest.approx(before, rel=1e-4, abs=1e-4)
    assert again.sql("SELECT count(*) AS n FROM selected")["n"][0] == 10
