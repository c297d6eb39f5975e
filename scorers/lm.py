"""How surprised a language model is by a document: losses of its tokens, for all scorers that begin with them (docs/lm.md).

Larger values are more surprising. What that is worth, high or low, is for the stages behind to say: `perplexity`,
`color_filter`, `ifd`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import language_model as lm
from curate import models
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, VALUE, Context, measure
from curate.textcache import TextCache


class LmParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model` is a folder; with `prompt` and `response`, two columns, the response's tokens are scored after the prompt's."""

    model: str
    prompt: str | None = None
    response: str | None = None
    separator: str = " "
    context: int | None = None
    stride: int | None = None
    max_tokens: int | None = None
    per_token: bool = False
    el2n: bool = False
    device: lm.Device = "auto"
    precision: lm.Precision = "auto"
    cache: str | None = None
    cache_bytes: int = 4_000_000_000

    def __post_init__(self) -> None:
        check_windows(self.context, self.stride, self.max_tokens)
        if self.cache_bytes < 1:
            raise ConfigError(f"expected cache_bytes of 1 or more, got {self.cache_bytes}")
        if self.prompt is not None and self.response is None:
            raise ConfigError("expected response beside prompt: the columns of what is given and of what is scored")


def check_windows(context: int | None, stride: int | None, max_tokens: int | None) -> None:
    """Raise a ConfigError for numbers that cannot be."""
    if context is not None and context < 2:
        raise ConfigError(f"expected context of 2 or more tokens (null: the model's), got {context}")
    if stride is not None and stride < 1:
        raise ConfigError(f"expected stride of 1 or more tokens (null: half of the context), got {stride}")
    if context is not None and stride is not None and stride >= context:
        raise ConfigError(f"expected stride below context, so that something stands in front of each window's tokens, got {stride} and {context}")
    if max_tokens is not None and max_tokens < 1:
        raise ConfigError(f"expected max_tokens of 1 or more (null: all), got {max_tokens}")


@register("lm")
class Lm:
    """Adds `lm` (mean loss in nats a token), `lm_sum`, `lm_tokens`, `lm_bits_per_byte`, `lm_truncated`, `lm_flops`, `lm_reason`."""

    version = 2  # 2: the FLOPs
    Params = LmParams
    scores = True
    keyless_params = ("cache", "cache_bytes")
    unpublished = ("flops",)
    tolerance = lm.TOLERANCE

    def __init__(self, params: LmParams, context: Context) -> None:
        self.params = params
        self._folder = lm.find(params.model, context.base)
        self._base = context.base
        self._content: str | None = None
        self._cache: TextCache | None = None

    def extra_key(self) -> str:
        """The model's files, hashed at each call since a stage may outlive them, and the libraries that read them."""
        self._content = models.fingerprint(self._folder)
        return f"{self._content} {lm.library()}"

    def reads(self) -> list[str]:
        return [name for name in (self.params.prompt, self.params.response) if name is not None] or [TEXT]

    def fields(self) -> pa.Schema:
        """flops: of scoring it, whoever did; el2n: mean over tokens of ||p - onehot||_2, in [0, sqrt 2]; losses: each scored token's, float32."""
        own = [
            measure(VALUE, pa.float64(), means="nats"), ("sum", pa.float64()), ("tokens", pa.int64()), ("bits_per_byte", pa.float64()),
            ("truncated", pa.bool_()), ("flops", pa.float64()),
        ]  # fmt: skip
        if self.params.el2n:
            own.append(measure("el2n", pa.float64(), means="score"))
        if self.params.per_token:
            own.append(("losses", pa.list_(pa.float32())))
        return pa.schema([*own, (REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [pc.cast(column, pa.large_string()).to_pylist() for column in batch.columns]
        scored = [text or "" for text in columns[-1]]
        given = [f"{text}{self.params.separator}" if text else "" for text in columns[0]] if self.params.prompt else [""] * len(scored)
        if self.params.cache is None:
            found = self._computed(given, scored)
        else:
            hashes = [xxhash.xxh3_128_digest(f"{len(g)} {g}{s}".encode()) for g, s in zip(given, scored, strict=True)]
            kept = self._cached().values(hashes, lambda at: [_packed(x) for x in self._computed([given[i] for i in at], [scored[i] for i in at])])
            found = [_unpacked(value) for value in kept]
        return pa.record_batch(self._columns(scored, found), schema=self.fields())

    def _computed(self, given: list[str], scored: list[str]) -> list[lm.Losses]:
        self._content = self._content or models.fingerprint(self._folder)
        model = lm.load(self._folder, self._content, self.params.device, self.params.precision)
        with lm.one_thread():
            return model.losses(
                list(zip(model.tokens(given), model.tokens(scored), strict=True)), context=self.params.context, stride=self.params.stride,
                max_tokens=self.params.max_tokens, error=self.params.el2n,
            )  # fmt: skip

    def _cached(self) -> TextCache:
        if self._cache is None:
            p = self.params
            settings = f"{Lm.version} {self.extra_key()} {p.device} {p.precision} {p.context} {p.stride} {p.max_tokens} {p.el2n}"
            file = Path(self._base) / Path(p.cache or "").expanduser() / f"lm-{xxhash.xxh3_128_hexdigest(settings.encode())}.sqlite"
            self._cache = TextCache(file, "losses", most=p.cache_bytes)
        return self._cache

    def _columns(self, scored: list[str], found: list[lm.Losses]) -> list[pa.Array]:
        tokens = np.array([len(item.nll) for item in found], np.int64)
        sums = np.array([math.fsum(item.nll) for item in found])
        none = tokens == 0
        cut = np.array([item.left_out > 0 for item in found], bool)
        sizes = np.array([len(text.encode()) for text in scored], np.int64)
        bits = sums / math.log(2) / np.maximum(sizes, 1)
        columns = [
            pa.array(sums / np.maximum(tokens, 1), mask=none), pa.array(sums, mask=none), pa.array(tokens),
            pa.array(bits, mask=none | cut),  # the bytes of what was left out are not known
            pa.array(cut), pa.array([item.flops for item in found], pa.float64()),
        ]  # fmt: skip
        if self.params.el2n:
            columns.append(pa.array(np.array([math.fsum(item.error) for item in found]) / np.maximum(tokens, 1), mask=none))
        if self.params.per_token:
            columns.append(pa.array([item.nll.astype(np.float32) for item in found], pa.list_(pa.float32())))
        reason = pc.if_else(pa.array(none), "no token to score", pa.scalar(None, pa.string()))
        return [*columns, reason]


def _packed(found: lm.Losses) -> bytes:
    """Losses as the cache holds them: what was left out, the FLOPs, whether there are errors; then float64 by float64."""
    return struct.pack("<qd?", found.left_out, found.flops, len(found.error) > 0) + found.nll.tobytes() + found.error.tobytes()


def _unpacked(value: bytes) -> lm.Losses:
    left_out, cost, errors = struct.unpack_from("<qd?", value)
    numbers = np.frombuffer(value, np.float64, offset=struct.calcsize("<qd?"))
    tokens = len(numbers) // 2 if errors else len(numbers)
    return lm.Losses(numbers[:tokens], numbers[tokens:], left_out, cost)
