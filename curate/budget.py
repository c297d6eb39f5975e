"""Budgets: how much to keep, in documents, bytes, words, tokens or a share of the documents that are eligible."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from curate.errors import ConfigError

_FORM = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*([kKMGT]?)\s*(%|B|words?|tokens?|docs|documents)?\s*\Z", re.ASCII)
_SCALE = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
Unit = Literal["documents", "bytes", "words", "tokens"]
_UNITS: dict[str | None, Unit] = {None: "documents", "docs": "documents", "documents": "documents", "B": "bytes", "word": "words", "words": "words", "token": "tokens", "tokens": "tokens"}
_LARGEST = 10**18  # sums of sizes are 64-bit integers


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
    """Read `500`, `10k`, `5%`, `200MB`, `2Mwords`, `2Mtokens`; k, M, G and T are powers of 1000, B is bytes of UTF-8.

    Raises ConfigError that names the forms.
    """
    text = str(written)
    match = _FORM.match(text)
    if match is None or isinstance(written, bool):
        raise ConfigError(f"expected a budget such as 500, 5%, 200MB, 2Mwords or 2Mtokens, got {written!r}")
    number, scale, unit = match.groups()
    amount = Decimal(number.replace("_", "")) * _SCALE[scale]
    if unit == "%":
        if scale or not 0 <= amount <= 100:
            raise ConfigError(f"expected a share from 0% to 100%, got {text!r}")
        return Budget("documents", None, amount / 100, text)
    kind = _UNITS[unit]
    if amount != int(amount):
        raise ConfigError(f"expected a whole number of {kind}, got {text!r}; a share is written with %: 5%")
    if amount > _LARGEST:
        raise ConfigError(f"expected a budget of at most {_LARGEST} {kind}, got {text!r}")
    return Budget(kind, int(amount), None, text)
