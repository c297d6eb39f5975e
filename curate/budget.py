"""Budgets: how much to keep, in documents, bytes, words, tokens or a share of the documents that are eligible."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import pyarrow as pa

from curate.errors import ConfigError
from curate.stage import BYTES, WORDS, meaning

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


def size_column(written: str | int, columns: pa.Schema) -> str | None:
    """The column that a budget adds up, None where it counts documents. Raises ConfigError where no stage counts tokens."""
    unit = parse(written).unit
    if unit != "tokens":
        return {"documents": None, "bytes": BYTES, "words": WORDS}[unit]
    found = [item.name for item in columns if meaning(item)[0] == "tokens"]
    if len(found) != 1:
        there = f"there are {len(found)}: {', '.join(found)}; keep one" if found else "put one before this stage: - token_count: {tokenizer: PATH}"
        raise ConfigError(f"budget: {written} is in tokens, which needs a stage that counts them; {there}")
    return str(found[0])


def no_size(written: str | int, unknown: int, column: str) -> ConfigError:
    """What to say where documents have no size in the budget's unit."""
    return ConfigError(f"budget: {written} needs each document's {parse(written).unit}, and {unknown} have none: the column {column} is missing, or null there; give a budget in documents, or scores written by curate score")
