"""The `lm` stage: sums, bits, what is left out, and the whole of it in a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from run_folders import call, docs, recipe_for, run, texts_read, write_pool, write_recipe, write_rows
from tiny_models import causal

from curate import language_model as lm
from curate.conformance import check_stage
from curate.errors import ConfigError
from curate.scorers.lm import Lm, LmParams
from curate.stage import TEXT, Context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("models") / "tiny")


def applied(folder: Path, columns: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    stage = Lm(LmParams(model=str(folder), **settings), Context("lm"))
    return stage.apply(None, pa.record_batch([pa.array(columns[n]) for n in stage.reads()], names=stage.reads())).to_pylist()


def test_mean_sum_and_bits_are_of_the_tokens_losses(folder: Path) -> None:
    model = lm.LanguageModel(folder, "cpu")
    text = "the ship left the harbour, 你好"
    (losses,) = model.losses([([], model.tokens([text])[0])])
    (found, none) = applied(folder, {TEXT: [text, ""]}, per_token=True, el2n=True)
    np.testing.assert_allclose(found["losses"], losses.nll, rtol=lm.TOLERANCE)
    assert found["tokens"] == len(losses.nll)
    assert found["sum"] == pytest.approx(sum(losses.nll), rel=lm.TOLERANCE)
    assert found["value"] == pytest.approx(found["sum"] / found["tokens"])
    assert found["bits_per_byte"] == pytest.approx(found["sum"] / math.log(2) / len(text.encode()))
    assert (found["truncated"], found["reason"]) == (False, None)
    tokens, count, layers, width = len(losses.nll) + 1, *parameters(model)  # the bos is read too
    assert found["flops"] == pytest.approx(tokens * (2 * count + 2 * layers * width * tokens))
    assert none == {"flops": 0.0, "value": None, "sum": None, "tokens": 0, "bits_per_byte": None, "truncated": False, "el2n": None, "losses": [], "reason": "no token to score"}


def parameters(model: lm.LanguageModel) -> tuple[int, int, int]:
    """Multiplied ones by their names: all but an embedding that is only looked up; layers; width."""
    config = model.model.config
    tied = config.tie_word_embeddings
    count = sum(p.numel() for name, p in model.model.named_parameters() if tied or "embed_tokens" not in name)
    return count, config.num_hidden_layers, config.num_attention_heads * config.head_dim


def test_the_windows_of_a_long_text_are_charged_each(folder: Path) -> None:
    model = lm.LanguageModel(folder, "cpu")
    ids = model.tokens(["the ship left the harbour " * 4])[0][:12]
    (found,) = model.losses([([], ids)], context=8, stride=4)
    count, layers, width = parameters(model)
    # bos and 12 tokens: windows of 8, 8 and, for the last token, 8
    assert found.flops == pytest.approx(3 * 8 * (2 * count + 2 * layers * width * 8))


def test_what_was_scored_once_is_taken_from_the_cache_in_whatever_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"prompt": ["a sea", "a sea", None], "response": ["the ship left", "the ship left", ""]}
    settings = {"prompt": "prompt", "response": "response", "cache": str(tmp_path / "cache"), "el2n": True, "per_token": True}
    plain = applied(folder, columns, **{k: v for k, v in settings.items() if k != "cache"})
    first = applied(folder, columns, **settings)
    for got, wanted in zip(first, plain, strict=True):
        assert got["value"] == (None if wanted["value"] is None else pytest.approx(wanted["value"], rel=lm.TOLERANCE))
        assert (got["tokens"], got["flops"], len(got["losses"])) == (wanted["tokens"], wanted["flops"], len(wanted["losses"]))
    other = applied(folder, {"prompt": ["a", "a sea"], "response": ["sea the ship left", "the ship left"]}, **settings)
    assert other[0]["value"] != first[0]["value"]  # another cut between the two is another entry
    monkeypatch.setattr(lm, "load", lambda *_: pytest.fail("nothing is to be computed"))
    assert applied(folder, columns, **settings) == first
    with pytest.raises(pytest.fail.Exception):
        applied(folder, columns, **(settings | {"max_tokens": 2}))


def test_a_truncated_text_has_no_bits_per_byte(folder: Path) -> None:
    (found,) = applied(folder, {TEXT: ["the ship left the harbour"]}, max_tokens=3)
    assert (found["tokens"], found["truncated"], found["bits_per_byte"]) == (3, True, None)


def test_a_response_is_scored_behind_its_prompt(folder: Path) -> None:
    model = lm.LanguageModel(folder, "cpu")
    prompt, response = "two plus two", "is four"
    (losses,) = model.losses([(model.tokens([f"{prompt} "])[0], model.tokens([response])[0])])
    columns = {"prompt": [prompt, None, prompt], "response": [response, response, None]}
    found = applied(folder, columns, prompt="prompt", response="response")
    assert found[0]["value"] == pytest.approx(losses.nll.mean(), rel=lm.TOLERANCE)
    alone = applied(folder, columns, response="response")
    assert found[1]["value"] == pytest.approx(alone[0]["value"], rel=lm.TOLERANCE)
    assert found[0]["tokens"] == alone[0]["tokens"]
    assert found[2]["reason"] == "no token to score"


def test_it_holds_the_suite_within_its_tolerance(folder: Path) -> None:
    for settings in ({}, {"context": 16, "stride": 5, "max_tokens": 40, "per_token": True, "el2n": True}):
        assert [check for check in check_stage("lm", {"model": str(folder), **settings}) if not check.holds] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"context": 1}, "context of 2 or more"), ({"stride": 0}, "stride of 1 or more"), ({"context": 8, "stride": 8}, "stride below context"),
        ({"max_tokens": 0}, "max_tokens of 1 or more"), ({"cache_bytes": 0}, "cache_bytes of 1 or more"), ({"prompt": "prompt"}, "expected response beside prompt"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LmParams(model="m", **settings)


def test_a_run_scores_once_and_again_only_with_another_model(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool")
    causal(tmp_path / "model", context=2048)
    stages = [{"lm": {"model": str(tmp_path / "model"), "max_tokens": 40}}, {"select": {"by": "lm", "order": "asc", "budget": 5}}]
    recipe = recipe_for(tmp_path, stages=stages, target=False)
    first = run(recipe, tmp_path / "run", workers=1)
    assert first.sql("SELECT count(*) AS n FROM docs WHERE lm > 0")["n"][0] > 100
    stages[1]["select"]["budget"] = 6
    run(recipe, tmp_path / "run", workers=1)
    assert "lm" not in texts_read(tmp_path / "run")
    before = docs(tmp_path / "run")["lm"].to_pylist()
    causal(tmp_path / "model", context=2048, seed=1)
    run(recipe, tmp_path / "run", workers=1)
    assert docs(tmp_path / "run")["lm"].to_pylist() != before


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool.parquet", [{"id": "a", "text": "the ship", "source": "s"}])
    causal(tmp_path / "model")
    words = ("score", "lm", tmp_path / "pool.parquet", "-o", tmp_path / "o.parquet", "-q", "--set")
    missing = call(*words, f"model={tmp_path}/none")  # refused before torch is imported
    assert missing.returncode == 2
    assert "config.json, got nothing at" in missing.stderr
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not a model")
    broken = call(*words, f"model={tmp_path}/model")
    assert broken.returncode == 3
    assert "expected a causal language model with its tokenizer in" in broken.stderr
    recipe = write_recipe(tmp_path / "r.yaml", recipe_for(tmp_path, paths=["pool.parquet"], stages=[{"lm": {}}], target=False))
    assert "missing" in call("check", recipe).stderr
