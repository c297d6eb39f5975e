"""Budgets: how much to keep, in documents, bytes, words or a share of the documents that are eligible."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from curate.errors import ConfigError

_FORM = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kMGT]?)(%|B|words|tokens|docs)?\s*\Z")
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
Unit = Literal["documents", "bytes", "words"]


@dataclass(frozen=True)
class Budget:
    """An amount in a unit, or a share of the eligible documents (rounded down)."""

    unit: Unit
    amount: int | None
    share: Decimal | None = None
    written: str = ""

    def of(self, eligible_documents: int) -> int:
        """The amount, in the budget's unit."""
        if self.share is not None:
            return int(self.share * eligible_documents)  # Decimal: 29% of 100 is 29, not 28
        assert self.amount is not None
        return self.amount


def parse(written: str | int) -> Budget:
    """Read `500`, `10k`, `5%`, `200MB`, `2Mwords`; MB are 10^6 bytes of UTF-8."""
    text = str(written)
    match = _FORM.match(text)
    if match is None or isinstance(written, bool):
        raise ConfigError(f"expected a budget such as 500, 5%, 200MB or 2Mwords, got {written!r}")
    number, scale, unit = match.groups()
    amount = Decimal(number.replace("_", "")) * _SCALE[scale]
    if unit == "tokens":
        raise ConfigError(
            f"the budget {text!r} is in tokens, which needs a tokenizer that this version cannot be given; use words ({text.replace('tokens', 'words')}) or bytes"
        )
    if unit == "%":
        if scale or not 0 <= amount <= 100:
            raise ConfigError(f"expected a share from 0% to 100%, got {text!r}")
        return Budget("documents", None, amount / 100, text)
    if amount != int(amount):
        raise ConfigError(
            f"expected a whole number of {unit or 'documents'}, got {text!r}; a share is written with %: 5%"
        )
    kind: Unit = "bytes" if unit == "B" else "words" if unit == "words" else "documents"
    return Budget(kind, int(amount), None, text)
