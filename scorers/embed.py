"""A vector for every document, for the stages that compare documents by vectors (docs/embed.md).

ngrams        needs no model: hashed n-grams under a random projection (curate.embedding). It measures how much of their
              wording two documents share. Two texts that say one thing in other words are far apart.
static        a folder of model2vec or wordllama: tokens' vectors, averaged (curate.textmodel)
transformer   a folder of sentence-transformers, or any encoder or decoder with a pooling that is said
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import embedding, minhash, textmodel
from curate.documents import text_hashes
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, Context
from curate.textcache import TextCache
from curate.textview import column_text
from curate.vectors import unit

VECTOR = "vector"
NO_VECTOR = "no word"


class EmbedParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dim` and `ngram` are of ngrams; `model` and all behind it of the others; `dtype` is how a coordinate is stored."""

    method: Literal["ngrams", "static", "transformer"] = "ngrams"
    dim: int | None = None
    ngram: int | None = None
    dtype: Literal["float16", "float32"] = "float16"
    model: str | None = None
    pooling: textmodel.Pooling | None = None
    max_tokens: int | None = None
    prefix: str = ""
    device: str = "cpu"
    precision: textmodel.Precision = "fp32"
    cache: str | None = None
    cache_bytes: int = 4_000_000_000

    def __post_init__(self) -> None:
        if self.method == "ngrams":
            self._check_ngrams()
        else:
            self._check_model()
        if self.cache_bytes < 1:
            raise ConfigError(f"expected cache_bytes of 1 or more, got {self.cache_bytes}")

    def _check_ngrams(self) -> None:
        if self.dim is not None and not 8 <= self.dim <= embedding.MAX_DIM:
            raise ConfigError(f"expected dim from 8 to {embedding.MAX_DIM}, got {self.dim}")
        if self.ngram is not None and not 1 <= self.ngram <= minhash.MAX_NGRAM:
            raise ConfigError(f"expected ngram from 1 to {minhash.MAX_NGRAM}, got {self.ngram}")
        for name in ("model", "pooling", "max_tokens", "cache"):
            if getattr(self, name) is not None:
                raise ConfigError(f"method: ngrams has no {name}; leave it out, or choose static or transformer")
        if self.prefix or self.device != "cpu" or self.precision != "fp32":
            raise ConfigError("method: ngrams has neither prefix nor device nor precision; leave them out")

    def _check_model(self) -> None:
        if self.model is None:
            raise ConfigError(f"method: {self.method} needs model: a folder with the model's files")
        if self.dim is not None or self.ngram is not None:
            raise ConfigError(f"method: {self.method} has the model's dim, and no ngram; leave them out")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"expected max_tokens of 1 or more, got {self.max_tokens}")
        if self.method == "static" and (self.pooling not in (None, "mean") or self.device != "cpu" or self.precision != "fp32"):
            raise ConfigError("method: static is the mean of tokens' vectors, on the processor; leave pooling, device and precision out")


class EmbedStageParams(EmbedParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`column`: a column of the pool whose vectors are made, instead of the text."""

    column: str | None = None


class TextVectors:
    """Texts to unit vectors, by one method; the model is loaded when the first text comes."""

    def __init__(self, params: EmbedParams, base: str) -> None:
        self.params = params
        self._base = base
        self._model: textmodel.Embedder | None = None
        self._cache: TextCache | None = None
        self.pooling: textmodel.Pooling = "mean"
        if params.method == "ngrams":
            self.dim = 384 if params.dim is None else params.dim
            return
        self.folder = textmodel.folder_of(params.model or "", base)
        self.dim = textmodel.static_dim(self.folder) if params.method == "static" else textmodel.transformer_dim(self.folder)
        if params.method == "transformer":
            pooling = params.pooling or textmodel.stated_pooling(self.folder)
            if pooling is None:
                raise ConfigError(f"pooling: {params.model} does not say how its tokens become one vector; say mean, weighted_mean, cls or last")
            self.pooling = pooling

    def key(self) -> str:
        """What the vectors depend on beside the settings: the model's content and the libraries that run it."""
        if self.params.method == "ngrams":
            return ""
        from importlib.metadata import version

        libraries = ["tokenizers", *(["torch", "transformers"] if self.params.method == "transformer" else [])]
        return " ".join([textmodel.fingerprint(self.folder), self.pooling, *(f"{name}={version(name)}" for name in libraries)])

    def vectors(self, text: pa.Array) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Unit vectors float32[n, dim], zeros where there is none, and which texts have one."""
        if self.params.method == "ngrams":
            return embedding.vectors(text, ngram=2 if self.params.ngram is None else self.params.ngram, dim=self.dim)
        hashes = text_hashes(text).to_pylist()
        rows = self._remembered(text, hashes) if self.params.cache else self._once(text, hashes)
        known = (rows != 0).any(axis=1)
        out = np.zeros(rows.shape, np.float32)
        out[known] = unit(rows[known])
        return out, known

    def _once(self, text: pa.Array, hashes: list[bytes]) -> npt.NDArray[np.float32]:
        """Each different text of a batch once."""
        first = {h: i for i, h in reversed(list(enumerate(hashes)))}
        places = sorted(first.values())
        made = self._computed(text, places)
        at = {hashes[p]: i for i, p in enumerate(places)}
        return made[[at[h] for h in hashes]] if hashes else np.empty((0, self.dim), np.float32)

    def _remembered(self, text: pa.Array, hashes: list[bytes]) -> npt.NDArray[np.float32]:
        """From the cache, and what is not there computed and put in."""
        found = self._cached().values(hashes, lambda at: [row.tobytes() for row in self._computed(text, at)])
        return np.frombuffer(b"".join(found), np.float32).reshape(-1, self.dim)

    def _computed(self, text: pa.Array, places: list[int]) -> npt.NDArray[np.float32]:
        if self._model is None:
            p = self.params
            self._model = (
                textmodel.Static(self.folder, p.max_tokens) if p.method == "static" else textmodel.Transformer(self.folder, self.pooling, p.max_tokens, p.device, p.precision)
            )
        texts = text.take(pa.array(places, pa.int64())).to_pylist()
        out = np.zeros((len(texts), self.dim), np.float32)
        worded = [i for i, t in enumerate(texts) if t.strip()]  # a tokenizer's own marks around nothing are no text
        if worded:
            out[worded] = self._model.vectors([self.params.prefix + texts[i] for i in worded])
        return out

    def _cached(self) -> TextCache:
        if self._cache is None:
            from pathlib import Path

            settings = f"{Embed.version} {self.key()} {self.params.precision} {self.params.max_tokens} {self.params.prefix!r}"
            file = Path(self._base) / Path(self.params.cache or "").expanduser() / f"{xxhash.xxh3_128_hexdigest(settings.encode())}.sqlite"
            self._cache = TextCache(file, "vectors", most=self.params.cache_bytes)
        return self._cache


@register("embed")
class Embed:
    """Adds `embed_vector`, which only stages behind it see, and `embed_reason` where there is none."""

    version = 1
    Params = EmbedStageParams
    unlisted = (VECTOR,)
    keyless_params = ("model", "cache", "cache_bytes", "device")

    def __init__(self, params: EmbedStageParams, context: Context) -> None:
        self.params = params
        self.embedder = TextVectors(params, context.base)

    def extra_key(self) -> str:
        """The model by its content; where it stands, and on which device it runs, is not in the key."""
        return self.embedder.key()

    def reads(self) -> list[str]:
        return [self.params.column or TEXT]

    def fields(self) -> pa.Schema:
        """The vector's coordinates, little-endian, one behind the other in the list."""
        kind = pa.float16() if self.params.dtype == "float16" else pa.float32()
        return pa.schema([(VECTOR, pa.list_(kind, self.embedder.dim)), (REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        found, known = self.embedder.vectors(column_text(batch.column(0)) if self.params.column else batch.column(0))
        flat = pa.array(found.astype(self.params.dtype).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, self.embedder.dim)
        is_known = pa.array(known)
        return pa.record_batch(
            [pc.if_else(is_known, column, pa.scalar(None, column.type)), pc.if_else(is_known, pa.scalar(None, pa.string()), NO_VECTOR)],
            schema=self.fields(),
        )
