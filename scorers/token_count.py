"""How many tokens a document has for a tokenizer, so that budgets can be in tokens (docs/tokenize.md)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from curate import tokenizing
from curate.registry import register
from curate.stage import TEXT, VALUE, Context, measure


class TokenCountParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tokenizer`: a tokenizer.json, or a folder that has one."""

    tokenizer: str


@register("token_count")
class TokenCount:
    """Adds `token_count`, int64: the tokens of the text alone, no bos and no eos; what looks like a special token is text."""

    version = 1
    Params = TokenCountParams
    scores = True
    keyless_params = ("tokenizer",)  # its content is in the key

    def __init__(self, params: TokenCountParams, context: Context) -> None:
        self.file = tokenizing.tokenizer_file(Path(context.base) / params.tokenizer)

    def extra_key(self) -> str:
        return tokenizing.file_fingerprint(self.file)

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        return pa.schema([measure(VALUE, pa.int64(), means=tokenizing.COUNT)])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        fast = tokenizing.fast_tokenizer(self.file)
        fast.encode_special_tokens = True
        found = fast.encode_batch_fast(batch.column(TEXT).to_pylist(), add_special_tokens=False)
        return pa.record_batch([pa.array(np.array([len(e) for e in found], np.int64))], schema=self.fields())
