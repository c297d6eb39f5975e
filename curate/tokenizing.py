"""Text to token ids and loss masks, part by part, in the workers; libraries of tokenizers are imported where they are used.

    loss: all        every token of the text is to be learned
    loss: response   of prompt and response, alpaca or turns: the response alone, by the tokens' places in the text
    loss: chat       the tokenizer's chat template over the turns; the assistant's are to be learned
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curate import chatmask, documents
from curate.corpus import Layout, Part, read_part
from curate.errors import ConfigError, DataError
from curate.filescan import hash_file
from curate.packing import Packing
from curate.stage import IDENTITY, TEXT
from curate.store import digest, write_atomically
from curate.textcache import TextCache
from curate.textview import ROLES

#: The meaning of a column that counts tokens, by which a budget in tokens finds it.
COUNT = "tokens"
Loss = Literal["all", "response", "chat"]
TOKENIZED = pa.schema(
    [("identity", pa.string()), ("source", pa.string()), ("bytes", pa.int64()), ("tokens", pa.large_list(pa.uint32())),
     ("mask", pa.large_list(pa.uint8())), ("groups", pa.list_(pa.int64()))]
)  # fmt: skip


class TokenizeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a mixture becomes token shards (docs/tokenize.md)."""

    tokenizer: str | None = None  # a Hugging Face folder or a tokenizer.json; None: one is trained on the mixture
    vocab_size: int = 32_000  # of the one that is trained
    train_bytes: int = 100_000_000  # how much text it is trained on, from the mixture's beginning
    sequence_length: int = 2048
    packing: Packing = "best_fit"
    loss: Loss = "all"
    too_long: Literal["split", "truncate", "drop"] | None = None  # None: split for `loss: all`, drop for the others
    bos: bool = False  # a bos token before each text; chat templates have their own
    eos: bool = True  # an eos token behind each text, to be learned
    bos_token: str | None = None  # where the tokenizer does not say which it is
    eos_token: str | None = None
    shard_tokens: int = 67_108_864  # 2^26 tokens, 128 MB in uint16
    cache: str | None = None  # a folder where tokens are kept by the hash of the text, for other mixtures; not part of the result
    cache_bytes: int = 10_000_000_000
    plain: bool = False  # also plain/*.parquet with input_ids, labels and position_ids

    def __post_init__(self) -> None:
        if self.sequence_length < 2:
            raise ConfigError(f"expected a sequence_length of at least 2, got {self.sequence_length}: one token predicts nothing")
        if self.vocab_size < 300:
            raise ConfigError(f"expected a vocab_size of at least 300 (256 bytes and some), got {self.vocab_size}")
        if self.cache_bytes < 1:
            raise ConfigError(f"expected cache_bytes of at least 1, got {self.cache_bytes}")
        if self.cache is not None and self.tokenizer is None:
            raise ConfigError("cache goes with a tokenizer of yours: one that is trained on the mixture is another for another mixture")
        if self.train_bytes < 1 or self.shard_tokens < 1:
            raise ConfigError("expected train_bytes and shard_tokens of at least 1")
        if self.loss != "all" and self.packing == "concat":
            raise ConfigError(f"packing: concat cuts anywhere, and would tear responses from their prompts; use best_fit or one with loss: {self.loss}")

    def determining(self) -> dict[str, Any]:
        """The settings that the shards depend on."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name not in ("cache", "cache_bytes")}

    @property
    def overlong(self) -> str:
        """What is done with a document of more tokens than a sequence has."""
        return self.too_long or ("split" if self.loss == "all" else "drop")


@dataclass(frozen=True)
class TokenizeTask:
    """A part to tokenize into the Arrow file `out`; ids of bos and eos are None where none is added."""

    layout: Layout
    part: Part
    tokenizer: Path
    loss: Loss
    bos: int | None
    eos: int | None
    any_bos: int | None
    source: str | None
    out: Path
    cache: tuple[Path, int] | None = None  # the file of what was tokenized before with these settings, and its bound in bytes
    groups: tuple[str, ...] = ()  # columns that say which rows are to stay together, outermost first

    def described(self) -> str:
        """What to call this task in an error."""
        return f"the tokenization of part {self.part.number} ({self.part.file})"


def tokenizer_file(place: Path) -> Path:
    """The tokenizer.json that a path means: itself, or the one in the folder."""
    file = place / "tokenizer.json" if place.is_dir() else place
    if not file.is_file():
        raise ConfigError(f"tokenizer: expected a tokenizer.json, or a folder that has one, got {place}; nothing is downloaded")
    return file


def file_fingerprint(file: Path) -> str:
    """What a tokenizer.json makes of a text: its bytes, and the library's version."""
    import importlib.metadata

    try:
        version = importlib.metadata.version("tokenizers")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError("counting tokens needs tokenizers: pip install 'curate[train]'") from error
    return digest("tokenizer.json", hash_file(str(file)), version)


@lru_cache(maxsize=2)
def fast_tokenizer(file: Path) -> Any:
    """The tokenizer itself, in one thread, cutting and padding nothing."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(file))
    found.no_truncation()
    found.no_padding()
    return found


def tokenize_part(task: TokenizeTask) -> int:
    """Tokenize a part; its rows. The file is there whole or not at all."""
    pa.set_cpu_count(1)
    rows = 0

    def write(temporary: Path) -> None:
        nonlocal rows
        with pa.ipc.new_file(str(temporary), TOKENIZED) as file:
            for batch in _batches(task):
                rows += batch.num_rows
                file.write_batch(batch)

    write_atomically(task.out, write, task.out.parent)
    return rows


def _batches(task: TokenizeTask) -> Iterator[pa.RecordBatch]:
    schema = task.layout.schema.names
    identity = IDENTITY if IDENTITY in schema else task.layout.spec.id
    columns = list(dict.fromkeys(n for n in (identity, task.source, *task.groups, *(task.layout.text_columns if task.loss != "all" else ())) if n))
    for batch in read_part(task.layout, task.part, columns=columns):
        texts = batch.column(TEXT)
        if identity is not None:
            names = batch.column(identity).cast(pa.string())
        else:
            names = pa.array([h.hex() for h in documents.text_hashes(texts).to_pylist()], pa.string())
        sources = batch.column(task.source).cast(pa.string()) if task.source else pa.nulls(batch.num_rows, pa.string())
        strings = texts.to_pylist()
        ids, masks = _encoded(task, batch, strings)
        sizes = pa.array([len(s.encode()) for s in strings], pa.int64())
        said = [batch.column(n).to_pylist() for n in task.groups]
        groups = pa.array([[values[row] for values in said] for row in range(batch.num_rows)], pa.list_(pa.int64()))
        yield pa.record_batch([names, sources, sizes, _lists(ids, np.uint32), _lists(masks, np.uint8), groups], schema=TOKENIZED)


#: Ids, and a mask of as many: empty where all is to be learned.
_Encoded = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]


def _encoded(task: TokenizeTask, batch: pa.RecordBatch, texts: list[str]) -> tuple[list[Any], list[Any]]:
    """Ids and masks of the rows, from the cache where there is one and it has them."""
    turns = turns_of(task.layout, batch) if task.loss == "chat" else None
    learned = response_spans(task.layout, batch, texts) if task.loss == "response" else None

    def compute(places: Sequence[int]) -> list[_Encoded]:
        if turns is not None:
            return [_chat(task, turns[i]) for i in places]
        return _plain(task, [texts[i] for i in places], None if learned is None else [learned[i] for i in places])

    if task.cache is None:
        found = compute(range(len(texts)))
    else:
        said = [msgspec.json.encode(turns[i] if turns is not None else [text, learned[i] if learned is not None else None]) for i, text in enumerate(texts)]
        kept = _cache(*task.cache).values([xxhash.xxh3_128_digest(one) for one in said], lambda places: [_packed(one) for one in compute(places)])
        found = [_unpacked(value) for value in kept]
    return [ids for ids, _ in found], [mask for _, mask in found]


@lru_cache(maxsize=2)
def _cache(file: Path, most: int) -> TextCache:
    return TextCache(file, "tokens", most=most)


def _packed(one: _Encoded) -> bytes:
    """The number of ids, the ids, the mask."""
    return len(one[0]).to_bytes(8, "little") + one[0].astype("<u4").tobytes() + one[1].tobytes()


def _unpacked(value: bytes) -> _Encoded:
    count = int.from_bytes(value[:8], "little")
    return np.frombuffer(value, "<u4", count, 8).astype(np.uint32), np.frombuffer(value, np.uint8, offset=8 + 4 * count)


def _chat(task: TokenizeTask, turns: list[dict[str, str]]) -> _Encoded:
    ids, mask = chatmask.encode(task.tokenizer, turns)
    _one_bos(ids, task.any_bos)
    return np.array(ids, np.uint32), np.array(mask, np.uint8)


def _plain(task: TokenizeTask, texts: list[str], learned: list[list[tuple[int, int]]] | None) -> list[_Encoded]:
    fast = fast_tokenizer(task.tokenizer / "tokenizer.json")
    fast.encode_special_tokens = True  # what looks like <eos> in a text is text
    encode = fast.encode_batch_fast if learned is None else fast.encode_batch
    encodings = encode(texts, add_special_tokens=False)
    head, tail = [task.bos] if task.bos is not None else [], [task.eos] if task.eos is not None else []
    found: list[_Encoded] = []
    for row, encoding in enumerate(encodings):
        own = encoding.ids
        if head and own[:1] == head:
            _one_bos([*head, *own], head[0])
        ids = np.array([*head, *own, *tail] if own else [], np.uint32)
        if learned is None:
            found.append((ids, np.empty(0, np.uint8)))
            continue
        mask = np.zeros(len(own), np.uint8)
        places = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        for start, stop in learned[row]:
            mask[(places[:, 0] >= start) & (places[:, 1] <= stop)] = 1
        ends = bool(learned[row]) and learned[row][-1][1] == len(texts[row])
        found.append((ids, np.array([*([0] * len(head)), *mask, *([int(ends)] * len(tail))] if own else [], np.uint8)))
    return found


def _one_bos(ids: list[int], bos: int | None) -> None:
    if bos is not None and ids[:2] == [bos, bos]:
        raise DataError(f"a document would begin with two bos tokens ({bos}): its text or the chat template has one already; leave bos out (bos: false)")


def response_spans(layout: Layout, batch: pa.RecordBatch, texts: list[str]) -> list[list[tuple[int, int]]]:
    """For each row the ranges of characters of the text that are responses."""
    kind = layout.plan.kind
    if kind in ("messages", "conversations"):
        return [_assistant_ranges(turns) for turns in turns_of(layout, batch)]
    if kind not in ("completion", "alpaca"):
        raise ConfigError(f"loss: response needs prompts and responses, and the text is a {kind}; name prompt/response, alpaca or a column of turns as its text")
    answers = batch.column("output" if kind == "alpaca" else layout.text_columns[1]).cast(pa.string()).to_pylist()
    found = []
    for text, answer in zip(texts, answers, strict=True):
        if answer and not text.endswith(answer):
            raise DataError(f"expected a text that ends with its response, got {text[-80:]!r}; leave `view` out")
        found.append([(len(text) - len(answer), len(text))] if answer else [])
    return found


def _assistant_ranges(turns: list[dict[str, str]]) -> list[tuple[int, int]]:
    found, at = [], 0
    for turn in turns:
        size = len(turn["content"])
        if turn["role"] == "assistant":
            found.append((at, at + size))
        at += size + 1  # the newline between turns
    return found


def turns_of(layout: Layout, batch: pa.RecordBatch) -> list[list[dict[str, str]]]:
    """Each row as turns with `role` (system, user, assistant, or its own word) and `content`; turns without content are none."""
    plan = layout.plan
    if plan.kind in ("messages", "conversations"):
        role, content = plan.keys
        rows = batch.column(plan.columns[0]).to_pylist()
        return [[{"role": _role(t[role]), "content": t[content]} for t in row or () if t is not None and t[content] is not None] for row in rows]
    if plan.kind == "completion":
        prompts, answers = (batch.column(n).cast(pa.string()).to_pylist() for n in plan.columns[:2])
        return [[{"role": "user", "content": p or ""}, {"role": "assistant", "content": a or ""}] for p, a in zip(prompts, answers, strict=True)]
    raise ConfigError(f"loss: chat needs turns, and the text is a {plan.kind}; name a column of messages or conversations, or prompt/response, as its text")


def _role(word: str | None) -> str:
    plain = (word or "").strip().lower()
    return next((name for name, words in ROLES.items() if plain in words), plain)


def _lists(rows: list[Any], dtype: Any) -> pa.Array:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    flat = np.concatenate([np.asarray(r, dtype) for r in rows]) if rows else np.empty(0, dtype)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))


def train_bpe(texts: Iterator[str], vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE with <|pad|>, <|bos|> and <|eos|>, and write its folder; the same texts give the same files."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|bos|>", "<|eos|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    fast: Any = PreTrainedTokenizerFast
    whole = fast(tokenizer_object=made, pad_token=special[0], bos_token=special[1], eos_token=special[2])
    whole.save_pretrained(str(folder))
