"""Texts to ids and masks: ranges of responses by hand, bos and eos, special words in texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_training import tokenizer

from curate.corpus import CorpusSpec, open_corpus
from curate.errors import ConfigError, DataError
from curate.tokenizing import TokenizeSpec, TokenizeTask, fast_tokenizer, tokenize_part, train_bpe

WORDS = ["unk", "BOS", "EOS", "one", "two", "three"]


def encoded(tmp_path: Path, table: pa.Table, *, text: str = "text", loss: str = "all", bos: int | None = None, eos: int | None = None) -> list[dict[str, object]]:
    pq.write_table(table, tmp_path / "pool.parquet")
    corpus = open_corpus(CorpusSpec(paths=[str(tmp_path / "pool.parquet")], text=text), tmp_path)
    task = TokenizeTask(corpus.layout, corpus.parts[0], tokenizer(tmp_path / "t", WORDS), loss, bos, eos, 1, None, tmp_path / "out.arrow")  # type: ignore[arg-type]
    assert tokenize_part(task) == table.num_rows
    return pa.ipc.open_file(str(task.out)).read_all().to_pylist()  # type: ignore[no-any-return]


def test_bos_and_eos_stand_around_a_text_and_an_empty_one_stays_empty(tmp_path: Path) -> None:
    rows = encoded(tmp_path, pa.table({"text": ["one two", ""]}), bos=1, eos=2)
    assert [row["tokens"] for row in rows] == [[1, 3, 4, 2], []]
    assert [row["bytes"] for row in rows] == [7, 0]


def test_a_second_bos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two bos tokens"):
        encoded(tmp_path, pa.table({"text": ["BOS one"]}), bos=1)


def test_the_response_alone_is_learned_with_its_end(tmp_path: Path) -> None:
    rows = encoded(tmp_path, pa.table({"prompt": ["one two", "one"], "response": ["two three", ""]}), text="prompt/response", loss="response", eos=2)
    assert rows[0]["tokens"] == [3, 4, 4, 5, 2]
    assert rows[0]["mask"] == [0, 0, 1, 1, 1]
    assert rows[1]["mask"] == [0, 0]


def test_of_turns_the_assistants_are_learned(tmp_path: Path) -> None:
    turns = [[{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}, {"from": "human", "value": "two"}, {"from": "gpt", "value": "three one"}]]
    rows = encoded(tmp_path, pa.table({"conversations": turns}), text="conversations", loss="response")
    assert rows[0]["tokens"] == [3, 4, 4, 5, 3]
    assert rows[0]["mask"] == [0, 1, 0, 1, 1]


def test_plain_text_has_no_response(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs prompts and responses"):
        encoded(tmp_path, pa.table({"text": ["one"]}), loss="response")


def test_the_same_texts_train_the_same_tokenizer_and_its_end_in_a_text_is_text(tmp_path: Path) -> None:
    texts = ["the cat sat on the mat é中", "the dog sat", "<|eos|>"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train_bpe(iter(texts), 300, tmp_path / name)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    fast = fast_tokenizer(tmp_path / "a" / "tokenizer.json")
    fast.encode_special_tokens = True
    ids = fast.encode("<|eos|>", add_special_tokens=False).ids
    assert len(ids) > 1
    assert fast.decode(ids) == "<|eos|>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sequence_length": 1}, "one token predicts nothing"), ({"vocab_size": 10}, "at least 300"), ({"loss": "chat", "packing": "concat"}, "tear responses")],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenizeSpec(**settings)  # type: ignore[arg-type]
