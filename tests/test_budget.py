from __future__ import annotations

import pyarrow as pa
import pytest

from curate import budget
from curate.errors import ConfigError
from curate.stage import measure


@pytest.mark.parametrize(
    ("written", "unit", "amount"),
    [
        (500, "documents", 500), ("500", "documents", 500), (0, "documents", 0), ("10k", "documents", 10_000), ("1_000", "documents", 1000),
        ("1.5k", "documents", 1500), ("3 docs", "documents", 3), ("3documents", "documents", 3), ("200MB", "bytes", 200_000_000),
        ("200 MB", "bytes", 200_000_000), ("7B", "bytes", 7), ("0.5GB", "bytes", 500_000_000), ("64KB", "bytes", 64_000),
        ("2Mwords", "words", 2_000_000), ("2M words", "words", 2_000_000), ("1word", "words", 1), ("2Mtokens", "tokens", 2_000_000), ("1 token", "tokens", 1), ("1T", "documents", 10**12),
    ],
)  # fmt: skip
def test_a_budget_is_a_number_a_power_of_a_thousand_and_a_unit(written: str | int, unit: str, amount: int) -> None:
    found = budget.parse(written)
    assert (found.unit, found.of(123)) == (unit, amount)


@pytest.mark.parametrize(
    ("written", "eligible", "amount"),
    [("5%", 100, 5), ("5 %", 99, 4), ("29%", 100, 29), ("57%", 100, 57), ("0.1%", 999, 0), ("0.1%", 1000, 1), ("100%", 7, 7), ("0%", 7, 0),
     ("33.3333333333%", 3, 0), ("7%", 10**15, 7 * 10**13)],
)  # fmt: skip
def test_a_share_is_of_the_eligible_documents_rounded_down_exactly(written: str, eligible: int, amount: int) -> None:
    found = budget.parse(written)
    assert (found.unit, found.of(eligible)) == ("documents", amount)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "expected a budget such as"), ("lots", "expected a budget such as"), (-5, "expected a budget such as"), ("-5%", "expected a budget such as"),
        ("200mb", "expected a budget such as"), ("5%%", "expected a budget such as"), ("1e6", "expected a budget such as"), ("٥", "expected a budget such as"),
        (True, "expected a budget such as"), ("101%", "from 0% to 100%"), ("5k%", "from 0% to 100%"), ("0.05", "a share is written with %"),
        ("1.5", "whole number of documents"), ("1.0001kwords", "whole number of words"), ("9999999T", "at most"),
    ],
)  # fmt: skip
def test_what_is_no_budget_is_refused_with_what_it_may_be(written: str | int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        budget.parse(written)


def test_a_budget_in_tokens_finds_the_one_column_that_counts_them() -> None:
    tokens, other = measure("t", pa.int32(), means="tokens"), measure("n", pa.int64())
    assert budget.size_column("5tokens", pa.schema([other, tokens])) == "t"
    with pytest.raises(ConfigError, match="put one before this stage"):
        budget.size_column("5tokens", pa.schema([other]))
    with pytest.raises(ConfigError, match="there are 2: t, u; keep one"):
        budget.size_column("5tokens", pa.schema([tokens, measure("u", pa.int32(), means="tokens")]))
