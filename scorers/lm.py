"""How surprised a language model is by a document: losses of its tokens, for all scorers that begin with them (docs/lm.md).

Larger values are more surprising. What that is worth, high or low, is for the stages behind to say: `perplexity`,
`color_filter`, `ifd`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import language_model as lm
from curate import models
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, VALUE, Context, measure


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

    def __post_init__(self) -> None:
        check_windows(self.context, self.stride, self.max_tokens)
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
    """Adds `lm` (mean loss in nats a token), `lm_sum`, `lm_tokens`, `lm_bits_per_byte`, `lm_truncated`, `lm_reason`."""

    version = 1
    Params = LmParams
    scores = True
    tolerance = lm.TOLERANCE

    def __init__(self, params: LmParams, context: Context) -> None:
        self.params = params
        self._folder = lm.find(params.model, context.base)
        self._content: str | None = None

    def extra_key(self) -> str:
        """The model's files, hashed at each call since a stage may outlive them, and the libraries that read them."""
        self._content = models.fingerprint(self._folder)
        return f"{self._content} {lm.library()}"

    def reads(self) -> list[str]:
        return [name for name in (self.params.prompt, self.params.response) if name is not None] or [TEXT]

    def fields(self) -> pa.Schema:
        """el2n: mean over tokens of ||p - onehot||_2, in [0, sqrt 2]; losses: each scored token's, float32."""
        own = [
            measure(VALUE, pa.float64(), means="nats"), ("sum", pa.float64()), ("tokens", pa.int64()), ("bits_per_byte", pa.float64()),
            ("truncated", pa.bool_()),
        ]  # fmt: skip
        if self.params.el2n:
            own.append(measure("el2n", pa.float64(), means="score"))
        if self.params.per_token:
            own.append(("losses", pa.list_(pa.float32())))
        return pa.schema([*own, (REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        self._content = self._content or models.fingerprint(self._folder)
        model = lm.load(self._folder, self._content, self.params.device, self.params.precision)
        columns = [pc.cast(column, pa.large_string()).to_pylist() for column in batch.columns]
        scored = [text or "" for text in columns[-1]]
        given = [f"{text}{self.params.separator}" if text else "" for text in columns[0]] if self.params.prompt else [""] * len(scored)
        with lm.one_thread():
            found = model.losses(
                list(zip(model.tokens(given), model.tokens(scored), strict=True)), context=self.params.context, stride=self.params.stride,
                max_tokens=self.params.max_tokens, error=self.params.el2n,
            )  # fmt: skip
        return pa.record_batch(self._columns(scored, found), schema=self.fields())

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
            pa.array(cut),
        ]  # fmt: skip
        if self.params.el2n:
            columns.append(pa.array(np.array([math.fsum(item.error) for item in found]) / np.maximum(tokens, 1), mask=none))
        if self.params.per_token:
            columns.append(pa.array([item.nll.astype(np.float32) for item in found], pa.list_(pa.float32())))
        reason = pc.if_else(pa.array(none), "no token to score", pa.scalar(None, pa.string()))
        return [*columns, reason]
