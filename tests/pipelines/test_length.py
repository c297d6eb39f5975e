from __future__ import annotations

import pyarrow as pa
import pytest

from curate.errors import ConfigError
from curate.pipelines.length import Length, LengthParams
from curate.stage import BYTES, WORDS, Context


def judged(sizes: list[int], words: list[int], **bounds: int) -> list[tuple[bool, str | None]]:
    batch = pa.record_batch([pa.array(sizes, pa.int64()), pa.array(words, pa.int64())], names=[BYTES, WORDS])
    keep, reason = Length(LengthParams(**bounds), Context("length")).judge(batch)
    assert (keep.type, reason.type) == (pa.bool_(), pa.string())
    return list(zip(keep.to_pylist(), reason.to_pylist(), strict=True))


def test_bounds_are_inclusive() -> None:
    assert judged([19, 20, 50, 51], [1, 1, 1, 1], min_bytes=20, max_bytes=50) == [
        (False, "fewer than 20 bytes"), (True, None), (True, None), (False, "more than 50 bytes"),
    ]  # fmt: skip
    assert judged([1, 1, 1], [4, 5, 6], min_words=5, max_words=5) == [(False, "fewer than 5 words"), (True, None), (False, "more than 5 words")]


def test_the_first_bound_that_breaks_is_the_reason() -> None:
    assert judged([1], [0], min_bytes=2, min_words=1) == [(False, "fewer than 2 bytes")]


def test_a_bound_of_zero_is_a_bound_and_none_is_off() -> None:
    assert judged([0, 1], [0, 1], max_words=0) == [(True, None), (False, "more than 0 words")]


def test_no_rows_are_no_rows() -> None:
    assert judged([], [], min_bytes=1) == []


def test_only_the_verdict_depends_on_the_bounds() -> None:
    assert set(Length.judge_params) == set(LengthParams.__struct_fields__)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [({}, "expected at least one of min_bytes"), ({"min_bytes": 5, "max_bytes": 4}, "nothing could pass"), ({"min_words": -1}, "of 0 or more")],
)
def test_bounds_that_cannot_work_are_refused(bounds: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LengthParams(**bounds)
