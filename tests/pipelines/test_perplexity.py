"""Bands of perplexity against sorting by hand, with ties, and within lengths."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.errors import ConfigError
from curate.frame import DOC, Frame
from curate.pipelines.perplexity import Perplexity, PerplexityParams
from curate.stage import Context


def decided(rows: Sequence[tuple[str, float | None, int]], folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """Rows of (identity, loss, tokens); their hashes are their numbers reversed."""
    stage = Perplexity(PerplexityParams(**settings), Context("perplexity"))
    table = pa.table(
        [pa.array(range(len(rows)), pa.int64()), *(pa.array([row[i] for row in rows], kind) for i, kind in enumerate((pa.string(), pa.float64(), pa.int64())))],
        names=[DOC, *stage.finish_reads()],
    )
    hashes = lambda docs: pa.table({DOC: docs, "row_hash": [f"{len(rows) - doc.as_py():06d}" for doc in docs]})  # noqa: E731
    frame = Frame(table.schema, table.to_batches(), hashes, scratch=folder)
    try:
        return stage.finish(frame).read_all().to_pylist()
    finally:
        frame.close()


@pytest.mark.parametrize(
    ("band", "share", "kept"),
    [("low", "40%", "ac"), ("high", "40%", "be"), ("middle", "40%", "cd"), ("middle", "60%", "cde"), ("low", "0%", ""), ("high", "100%", "abcde")],
)
def test_bands_by_hand(tmp_path: Path, band: str, share: str, kept: str) -> None:
    rows = [("a", 1.0, 9), ("b", 5.0, 9), ("c", 2.0, 9), ("d", 3.0, 9), ("e", 4.0, 9), ("f", None, 0)]
    found = decided(rows, tmp_path, band=band, share=share)
    assert "".join(row[0] for row, own in zip(rows, found, strict=True) if own["keep"]) == kept
    assert found[5] == {"doc": 5, "keep": False, "reason": "no perplexity", "quantile": None}
    assert [own["quantile"] for own in found[:5]] == [0.0, 0.8, 0.2, 0.4, 0.6]
    assert all((own["reason"] is None) == own["keep"] for own in found)


def test_reasons_say_on_which_side(tmp_path: Path) -> None:
    found = decided([("a", 1.0, 1), ("b", 2.0, 1), ("c", 3.0, 1)], tmp_path, share="34%")
    assert [own["reason"] for own in found] == ["below the band", None, "above the band"]


def test_ties_go_by_identity_then_by_the_row_and_never_by_place(tmp_path: Path) -> None:
    rows = [("b", 1.0, 1), ("a", 1.0, 1), ("a", 1.0, 1), ("c", 0.5, 1)]
    found = decided(rows, tmp_path, band="low", share="50%")
    assert [own["keep"] for own in found] == [False, False, True, True]  # of the two a, the later has the smaller hash


def test_within_a_length_the_order_is_of_that_length(tmp_path: Path) -> None:
    draw = random.Random(2)
    rows = [(f"{i:03d}", draw.random() + (2 if i % 2 else 0), 100 if i % 2 else 10) for i in range(80)]
    found = decided(rows, tmp_path, band="low", share="25%", by_length=True)
    for tokens in (10, 100):
        own = sorted(row[1] for row in rows if row[2] == tokens)
        kept = [row[1] for row, verdict in zip(rows, found, strict=True) if verdict["keep"] and row[2] == tokens]
        assert sorted(kept) == own[:10]
    plain = decided(rows, tmp_path / "plain", band="low", share="25%")
    assert {row[2] for row, verdict in zip(rows, plain, strict=True) if verdict["keep"]} == {10}


@pytest.mark.parametrize("share", ["half", "5", "10MB", "101%"])
def test_a_share_is_a_percentage(share: str) -> None:
    with pytest.raises(ConfigError, match=r"share"):
        PerplexityParams(share=share)
