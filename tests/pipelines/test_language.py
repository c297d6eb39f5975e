"""Languages of documents and paragraphs, and the verdict, through the stage and through the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fasttext_models import two_languages
from hypothesis import given
from hypothesis import strategies as st
from run_folders import call, counts, docs, recipe_for, run, texts_read, write_recipe, write_rows

from curate.errors import ConfigError
from curate.pipelines.language import Language, LanguageParams, head, paragraphs
from curate.stage import TEXT, Context

ENGLISH = "The ship left the harbour before the sun was up, and nobody saw it go."
GERMAN = "Das Schiff verließ den Hafen, bevor die Sonne aufging, und niemand sah es fahren."
CHINESE = "太阳升起之前，船就离开了港口，没有人看见它离开。"


def stage(base: Path | str = "", **settings: Any) -> Language:
    return Language(LanguageParams(**settings), Context("language", base=str(base)))


def applied(texts: list[str], **settings: Any) -> pa.RecordBatch:
    return stage(**settings).apply(None, pa.record_batch([pa.array(texts)], names=[TEXT]))


def test_paragraphs_by_hand() -> None:
    assert paragraphs("é one\ntwo\n\n  \n three \n") == [(0, 10, "é one\ntwo"), (16, 21, "three")]
    assert paragraphs(" \n\n ") == []
    assert paragraphs("x") == [(0, 1, "x")]


@given(st.text(alphabet="ab \n\té世\u2003", max_size=40))
def test_a_paragraphs_place_holds_its_text(text: str) -> None:
    raw, before = text.encode(), 0
    for start, stop, piece in paragraphs(text):
        assert raw[start:stop].decode() == piece == piece.strip()
        assert before <= start < stop
        assert not raw[before:start].strip() or not raw[before:start].decode().strip()
        before = stop
    assert not raw[before:].decode().strip()


def test_paragraphs_have_languages_of_their_own() -> None:
    text = f"{ENGLISH}\n\n{GERMAN}\n \n{ENGLISH} {ENGLISH}"
    found = applied([text, "", "...\n\n..."], paragraphs=True).to_pylist()
    assert [p["language"] for p in found[0]["paragraphs"]] == ["en", "de", "en"]
    raw = text.encode()
    assert [raw[p["start"] : p["stop"]].decode() for p in found[0]["paragraphs"]] == [ENGLISH, GERMAN, f"{ENGLISH} {ENGLISH}"]
    english = 3 * len(ENGLISH.encode()) + 1
    assert found[0]["value"] == "en"
    assert found[0]["share"] == english / (english + len(GERMAN.encode()))
    assert found[1] == {"value": None, "score": None, "paragraphs": [], "share": None}
    assert found[2]["share"] is None


def test_a_head_is_cut_in_front_of_a_character() -> None:
    assert head(pa.array(["aé", "a世b", "ab", None]), 2).to_pylist() == ["a", "a", "ab", None]
    assert head(pa.array(["aé"]), 3).to_pylist() == ["aé"]
    assert applied([f"{ENGLISH} {CHINESE * 9}"], max_bytes=len(ENGLISH))["value"].to_pylist() == ["en"]
    assert applied([f"{ENGLISH} {CHINESE * 9}"])["value"].to_pylist() == ["zh"]


def test_the_verdict_and_its_reasons() -> None:
    judge = stage(languages=("en", "de"), min_score=0.9)
    batch = pa.record_batch([pa.array(["en", "de", "fr", None, "fr"]), pa.array([0.9, 0.89, 1.0, None, 0.1])], names=judge.judge_reads())
    keep, reason = judge.judge(batch)
    assert keep.to_pylist() == [True, False, False, False, False]
    assert reason.to_pylist() == [None, "language score below 0.9", "not en, de", "no language found", "not en, de"]
    assert stage().verbs() == ("apply",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"languages": ("english",)}, "no language english"),
        ({"among": ("en", "xq")}, "no language xq"),
        ({"min_score": 1.5}, "min_score from 0 to 1"),
        ({"max_bytes": 0}, "max_bytes of 1 or more"),
        ({"model": "lid.bin", "among": ("en",)}, "among restricts model: py3langid"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LanguageParams(**settings)


def pool(folder: Path) -> Path:
    rows = [{"id": f"{name}{i}", "text": f"{text} {i}", "source": name} for name, text in (("en", ENGLISH), ("de", GERMAN), ("zh", CHINESE)) for i in range(8)]
    write_rows(folder / "pool" / "0.parquet", [*rows, {"id": "none", "text": "...", "source": "none"}])
    return folder


def recipe(folder: Path, **settings: Any) -> dict[str, Any]:
    return recipe_for(folder, stages=[{"language": settings}], target=False)


def test_a_moved_threshold_reads_no_text(tmp_path: Path) -> None:
    pool(tmp_path)
    run(recipe(tmp_path, languages=["en", "zh"]), tmp_path / "run")
    assert counts(tmp_path / "run") == {("kept", None): 16, ("language", "no language found"): 1, ("language", "not en, zh"): 8}
    assert docs(tmp_path / "run").group_by("source").aggregate([("language", "count_distinct")]).num_rows == 4
    run(recipe(tmp_path, languages=["de"]), tmp_path / "run")
    assert counts(tmp_path / "run")[("language", "not de")] == 16
    assert "language" not in "".join(texts_read(tmp_path / "run"))


def test_a_fasttext_model_from_a_file(tmp_path: Path) -> None:
    pool(tmp_path)
    two_languages(tmp_path).rename(tmp_path / "lid.bin")
    file = write_recipe(tmp_path / "recipe.yaml", recipe(tmp_path, model="lid.bin", languages=["eng"]))
    done = call("run", file, "--run", tmp_path / "run", "-q")
    assert done.returncode == 0, done.stderr
    run(recipe(tmp_path, model=str(tmp_path / "lid.bin")), tmp_path / "run")
    found = {row["id"]: row["language"] for row in docs(tmp_path / "run").to_pylist()}
    assert (found["en1"], found["de1"]) == ("eng", "deu")
    other = two_languages(tmp_path).read_bytes().replace(b"__label__eng", b"__label__enx")
    (tmp_path / "lid.bin").write_bytes(other)  # the same name, in a process that knew the model before
    for _ in range(2):
        run(recipe(tmp_path, model=str(tmp_path / "lid.bin")), tmp_path / "run")
    assert {row["language"] for row in docs(tmp_path / "run").to_pylist()} == {"enx", "deu"}
    missing = call("run", write_recipe(tmp_path / "other.yaml", recipe(tmp_path, model="lid.ftz")), "--run", tmp_path / "other", "-q")
    assert missing.returncode == 2
    assert "got nothing at" in missing.stderr
