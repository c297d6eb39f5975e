"""Vectors of texts by a model in a folder: a table of token vectors, or an encoder or decoder run by torch.

static        model2vec, wordllama: tokens' rows of a table (`embeddings` or `embedding.weight`, by `weights` and `mapping`
              where there are any) are averaged. No torch; the average is added in float64, in order: the same bits anywhere.
transformer   any model that transformers' AutoModel loads: its last hidden state, pooled over the tokens of the text alone:
              their mean, the mean with the i-th token weighing i (weighted_mean: SGPT, Muennighoff 2022; what RDS+ pools a
              decoder by, Ivison et al. 2025), the first (cls) or the last. A folder of sentence-transformers says its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import xxhash

from curate.errors import ConfigError, DataError

Float32 = npt.NDArray[np.float32]
Pooling = Literal["mean", "weighted_mean", "cls", "last"]
Precision = Literal["fp32", "bf16"]

#: The files that make a model what it is.
_PATTERNS = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*/config.json", "tokenizers/*.json", "weights/*.safetensors")
#: Tokens of a batch of texts, padding counted.
_TOKENS = 8192


class Embedder(Protocol):
    """What makes vectors: float32[n, dim], not yet of length 1; a text without a token has zeros."""

    dim: int

    def vectors(self, texts: Sequence[str]) -> Float32: ...


def folder_of(written: str, base: str) -> Path:
    """The model's folder; raises ConfigError where there is none."""
    folder = Path(base) / Path(written).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"model: expected a folder with a model's files, got {written!r}, and there is no folder at {folder}; models are not fetched at run time")
    return folder


_FINGERPRINTS: dict[tuple[tuple[str, int, int], ...], str] = {}


def fingerprint(folder: Path) -> str:
    """A hash of the content of the model's files, wherever they stand."""
    files = sorted({f for pattern in _PATTERNS for f in folder.glob(pattern) if f.is_file()})
    known = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    if known not in _FINGERPRINTS:
        digest = xxhash.xxh3_128()
        for file in files:
            digest.update(str(file.relative_to(folder)).encode() + b"\0")
            with file.open("rb") as opened:
                while block := opened.read(1 << 22):
                    digest.update(block)
        _FINGERPRINTS[known] = digest.hexdigest()
    return _FINGERPRINTS[known]


def _only(folder: Path, patterns: Sequence[str], what: str) -> Path:
    found = next((sorted(folder.glob(p)) for p in patterns if any(folder.glob(p))), [])
    if len(found) != 1:
        raise ConfigError(f"model: expected one {what} ({' or '.join(patterns)}) in {folder}, got {[f.name for f in found] or 'none'}")
    return found[0]


# -- tables of token vectors ----------------------------------------------------------------------------------------


def static_dim(folder: Path) -> int:
    """The number of coordinates, from the head of the file alone."""
    return int(_table_shape(_only(folder, ("model.safetensors", "*.safetensors", "weights/*.safetensors"), "table of token vectors"))[1])


def _table_shape(file: Path) -> list[int]:
    with file.open("rb") as opened:
        head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    for name in ("embeddings", "embedding.weight"):
        if name in head:
            return list(head[name]["shape"])
    raise ConfigError(f"model: expected a tensor 'embeddings' or 'embedding.weight' in {file}, got {sorted(head)[:5]}; for an encoder or decoder say method: transformer")


class Static:
    """A table of token vectors and its tokenizer."""

    def __init__(self, folder: Path, max_tokens: int | None) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        tensors = load_file(_only(folder, ("model.safetensors", "*.safetensors", "weights/*.safetensors"), "table of token vectors"))
        self.table = tensors["embeddings"] if "embeddings" in tensors else tensors["embedding.weight"]
        self.weights, self.mapping = tensors.get("weights"), tensors.get("mapping")
        self.dim = int(self.table.shape[1])
        tokenizer = _only(folder, ("tokenizer.json", "tokenizers/*.json"), "tokenizer")
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
        unknown = model.get("unk_token")
        self.unknown = model["unk_id"] if model.get("unk_id") is not None else self.tokenizer.token_to_id(unknown) if unknown else None
        self.max_tokens = max_tokens

    def vectors(self, texts: Sequence[str]) -> Float32:
        out = np.zeros((len(texts), self.dim), np.float32)
        for i, encoding in enumerate(self.tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            ids = np.array([t for t in encoding.ids if t != self.unknown][: self.max_tokens], np.int64)
            if len(ids):
                rows = self.table[self.mapping[ids] if self.mapping is not None else ids].astype(np.float64)
                if self.weights is not None:
                    rows *= self.weights[ids].astype(np.float64)[:, None]
                out[i] = rows.sum(axis=0) / len(ids)
        return out


# -- encoders and decoders --------------------------------------------------------------------------------------------


def transformer_dim(folder: Path) -> int:
    """The width of the last hidden state."""
    config = _json(folder / "config.json")
    for name in ("hidden_size", "d_model", "n_embd", "dim"):
        if name in config:
            return int(config[name])
    raise ConfigError(f"model: expected hidden_size, d_model, n_embd or dim in {folder / 'config.json'}, got none of them")


def stated_pooling(folder: Path) -> Pooling | None:
    """The pooling that a folder of sentence-transformers says, or None; ConfigError for one that is not built here."""
    files = sorted(folder.glob("*_Pooling/config.json"))
    if not files:
        return None
    config = _json(files[0])
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_weightedmean_tokens": "weighted_mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    said = [modes.get(name, name) for name, on in config.items() if name.startswith("pooling_mode") and on is True]
    said += [{"weightedmean": "weighted_mean", "lasttoken": "last"}.get(name, name) for name in [config.get("pooling_mode")] if isinstance(name, str)]
    if len(said) != 1 or said[0] not in get_args(Pooling):
        raise ConfigError(f"model: {files[0]} says the pooling {said}; expected one of mean, weighted_mean, cls, last")
    return said[0]  # type: ignore[return-value]


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model: cannot read {file}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"model: expected an object in {file}, got {type(found).__name__}")
    return found


class Transformer:
    """A model of transformers, in eval mode; bf16 holds weights and activations in 16 bits, pooled in float32."""

    def __init__(self, folder: Path, pooling: Pooling, max_tokens: int | None, device: str, precision: Precision = "fp32") -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._torch = torch
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device: {device} is not there (torch sees no GPU); say cpu, or auto")
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self.model = AutoModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32 if precision == "fp32" else torch.bfloat16).to(self.device).eval()
        self.dim = transformer_dim(folder)
        self.pooling = pooling
        self.max_tokens = self._most(folder, max_tokens)

    def _most(self, folder: Path, given: int | None) -> int:
        """Tokens of a text that are read: as given, as sentence-transformers says, and no more than the model has places."""
        said = folder / "sentence_bert_config.json"
        own = _json(said).get("max_seq_length") if said.exists() else None
        places = getattr(self.model.config, "max_position_embeddings", None)
        return min(n for n in (given or own or 512, places or 1 << 30) if n)

    def vectors(self, texts: Sequence[str]) -> Float32:
        """Batched by length: the longest together, so that little is padding."""
        out = np.zeros((len(texts), self.dim), np.float32)
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"] if len(texts) else []
        order = sorted((i for i in range(len(ids)) if ids[i]), key=lambda i: (-len(ids[i]), i))
        while order:
            count = max(1, _TOKENS // len(ids[order[0]]))
            batch, order = order[:count], order[count:]
            out[batch] = self._batch([ids[i] for i in batch])
        if not np.isfinite(out).all():
            raise DataError(f"the model gives vectors that are no numbers for {int((~np.isfinite(out).all(axis=1)).sum())} texts of a batch")
        return out

    def _batch(self, ids: list[list[int]]) -> Float32:
        torch = self._torch
        longest = len(ids[0])
        tokens = torch.zeros((len(ids), longest), dtype=torch.long)
        mask = torch.zeros((len(ids), longest), dtype=torch.long)
        for i, row in enumerate(ids):  # padded on the right, whatever the tokenizer's own side: the mask says what counts
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            pooled = pool(hidden, mask, self.pooling)
        found: Float32 = pooled.cpu().numpy()
        return found


def pool(hidden: Any, mask: Any, pooling: Pooling) -> Any:
    """One vector a text, float32[n, dim]: of hidden states float32[n, length, dim] where the mask int64[n, length] has 1, from the left.

    weighted_mean is the sum of i x h_i over the sum of i, i from 1 to the text's own length: padding weighs nothing.
    """
    import torch

    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    weight = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device) if pooling == "weighted_mean" else mask
    weight = weight.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
