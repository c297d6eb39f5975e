"""Vectors by models in folders: a static table by hand, and a tiny random encoder and decoder beside transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

import curate
from curate import textmodel
from curate.errors import ConfigError
from curate.scorers.embed import Embed
from curate.stage import TEXT, Context

WORDS = ["[UNK]", "[PAD]", "the", "red", "sea", "ship", "bread"]


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def static(folder: Path, **tensors: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    table = np.arange(14, dtype=np.float32).reshape(7, 2)
    save_file(tensors or {"embeddings": table}, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps({"normalize": True}))
    return folder


def transformer(folder: Path, kind: str) -> Path:
    torch.manual_seed(3)
    if kind == "bert":
        model = BertModel(BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=32))
    else:
        model = LlamaModel(LlamaConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=32))
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer(), unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return folder


TEXTS = ["the red sea", "bread", "the ship the ship the red red sea", ""]


def test_a_static_vector_is_the_mean_of_its_tokens_rows_without_unknown_ones(tmp_path: Path) -> None:
    model = textmodel.Static(static(tmp_path), None)
    assert model.vectors(["the red sea", "the nowhere", "nowhere", ""]).tolist() == [[6, 7], [4, 5], [0, 0], [0, 0]]
    assert textmodel.Static(tmp_path, 1).vectors(["the red sea"]).tolist() == [[4, 5]]
    assert textmodel.static_dim(tmp_path) == 2


def test_weights_and_a_mapping_are_honoured(tmp_path: Path) -> None:
    table = np.array([[1, 0], [0, 1]], np.float16)
    folder = static(tmp_path, embeddings=table, weights=np.array([1, 1, 2, 4, 1, 1, 1], np.float32), mapping=np.array([0, 0, 0, 1, 1, 1, 1]))
    assert textmodel.Static(folder, None).vectors(["the red"]).tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "weighted_mean", "cls", "last"])
def test_a_batch_gives_what_each_text_alone_gives_by_transformers(tmp_path: Path, kind: str, pooling: Any) -> None:
    folder = transformer(tmp_path, kind)
    model = textmodel.Transformer(folder, pooling, None, "cpu")
    found = model.vectors(TEXTS)
    for text, row in zip(TEXTS[:3], found, strict=False):
        ids = torch.tensor([[WORDS.index(w) for w in text.split()]])
        with torch.inference_mode():
            hidden = model.model(input_ids=ids).last_hidden_state[0]
        heavier = sum((i + 1) * row for i, row in enumerate(hidden)) / (len(ids[0]) * (len(ids[0]) + 1) / 2)
        wanted = {"mean": hidden.mean(0), "weighted_mean": heavier, "cls": hidden[0], "last": hidden[-1]}[pooling].numpy()
        assert np.abs(row - wanted).max() < 1e-5  # the declared tolerance: padding moves the last bits
    assert (found[3] == 0).all()


def test_the_weighted_mean_is_the_papers_whatever_stands_in_the_padding() -> None:
    # worked by hand from w = 1/6, 1/3, 1/2; the second row is shorter, and its padding must not count
    hidden = torch.tensor([[[1.0, 0, 2], [0, 1, -1], [3, 3, 0]], [[1.0, 0, 2], [0, 1, -1], [9, 9, 9]]])
    found = textmodel.pool(hidden, torch.tensor([[1, 1, 1], [1, 1, 0]]), "weighted_mean")
    assert np.allclose(found.numpy(), [[5 / 3, 11 / 6, 0], [1 / 3, 2 / 3, 0]], atol=1e-6)


def test_half_precision_is_near(tmp_path: Path) -> None:
    folder = transformer(tmp_path, "llama")
    whole, half = (textmodel.Transformer(folder, "weighted_mean", None, "cpu", p).vectors(TEXTS[:3]) for p in ("fp32", "bf16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(whole - half).max() < 0.05


def test_texts_are_cut_at_max_tokens_and_at_the_models_places(tmp_path: Path) -> None:
    folder = transformer(tmp_path, "bert")
    model = textmodel.Transformer(folder, "mean", 2, "cpu")
    assert np.abs(model.vectors(["the red sea"]) - model.vectors(["the red"])).max() < 1e-6
    assert np.isfinite(textmodel.Transformer(folder, "mean", 1000, "cpu").vectors(["the " * 500])).all()


def test_the_pooling_that_a_folder_says_is_taken_and_one_that_is_not_built_is_refused(tmp_path: Path) -> None:
    folder = transformer(tmp_path, "bert")
    context = Context("embed", base=str(tmp_path.parent))
    with pytest.raises(ConfigError, match="say mean, weighted_mean, cls or last"):
        Embed(Embed.Params(method="transformer", model=str(folder)), context)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert Embed(Embed.Params(method="transformer", model=str(folder)), context).embedder.pooling == "cls"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ConfigError, match="expected one of mean, weighted_mean, cls, last"):
        Embed(Embed.Params(method="transformer", model=str(folder)), context)


def test_the_key_is_the_models_content_and_not_its_place(tmp_path: Path) -> None:
    keys = [Embed(Embed.Params(method="static", model=str(static(tmp_path / n))), Context("embed")).extra_key() for n in ("a", "b")]
    assert keys[0] == keys[1]
    (tmp_path / "a" / "pytorch_model.bin").write_bytes(b"weights of older models")
    assert Embed(Embed.Params(method="static", model=str(tmp_path / "a")), Context("embed")).extra_key() != keys[0]
    static(tmp_path / "b", embeddings=np.ones((7, 2), np.float32))
    assert Embed(Embed.Params(method="static", model=str(tmp_path / "b")), Context("embed")).extra_key() != keys[0]


def test_a_run_embeds_with_a_model_and_a_cache_serves_another_run(tmp_path: Path) -> None:
    static(tmp_path / "model")
    pq.write_table(pa.table({"text": [*TEXTS, "the red sea"]}), tmp_path / "pool.parquet")
    settings = {"method": "static", "model": "model", "cache": "vectors", "dtype": "float32"}
    stored = []
    for name in ("one", "two"):
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(json.dumps({"corpus": {"paths": ["pool.parquet"]}, "stages": [{"embed": settings}, {"semdedup": {}}]}))
        curate.run(recipe, run=tmp_path / name, workers=1, publish=False)
        (file,) = [f for f in (tmp_path / name / "store").rglob("measures/*.parquet") if "vector" in pq.read_schema(f).names]
        stored.append(pq.read_table(file)["vector"].to_pylist())
    assert stored[0] == stored[1]
    assert stored[0][0] == pytest.approx(np.array([6, 7]) / np.sqrt(85))
    assert stored[0][3] is None
    assert len(list((tmp_path / "vectors").glob("*.sqlite"))) == 1


def test_one_text_twice_in_a_batch_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    vectors = textmodel.Static.vectors
    monkeypatch.setattr(textmodel.Static, "vectors", lambda self, texts: seen.append(len(texts)) or vectors(self, texts))
    stage = Embed(Embed.Params(method="static", model=str(static(tmp_path)), prefix="sea "), Context("embed"))
    out = stage.apply(None, pa.record_batch([pa.array(["red", "ship", "red", " "])], names=[TEXT]))
    assert seen == [2]
    assert out["reason"].to_pylist() == [None, None, None, "no word"]
    assert out["vector"][0].as_py() == out["vector"][2].as_py()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "static"}, "needs model"), ({"method": "static", "model": "nowhere"}, "there is no folder"),
        ({"model": "m"}, "method: ngrams has no model"), ({"method": "static", "model": "m", "dim": 64}, "has the model's dim"),
        ({"method": "transformer", "model": "m", "max_tokens": 0}, "max_tokens of 1 or more"),
        ({"method": "static", "model": "m", "pooling": "cls"}, "leave pooling, device and precision out"), ({"prefix": "q: "}, "neither prefix nor device nor precision"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        Embed(Embed.Params(**settings), Context("embed", base=str(tmp_path)))


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a tensor 'embeddings'"):
        textmodel.static_dim(static(tmp_path, other=np.ones((2, 2), np.float32)))
