"""IFD by the number that the authors' formula gives, and pairs that do not belong together."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curate.errors import ConfigError
from curate.scorers.ifd import Ifd, IfdParams
from curate.stage import Context


def stage(**settings: float | None) -> Ifd:
    return Ifd(IfdParams(**settings), Context("ifd"))  # type: ignore[arg-type]


def scored(given: list[float | None], alone: list[float | None], tokens: list[int] | None = None) -> pa.RecordBatch:
    one = pa.array([3] * len(given))
    columns = [pa.array(given, pa.float64()), one, pa.array(alone, pa.float64()), pa.array(tokens) if tokens else one]
    return stage().apply(None, pa.record_batch(columns, names=stage().reads()))


def test_both_ratios_of_one_answer() -> None:
    found = scored([(1 + 1.2 + 2) / 3], [(2 + 1.5 + 3) / 3])
    assert found["value"][0].as_py() == pytest.approx(0.6461538, abs=1e-7)
    assert found["ppl"][0].as_py() == pytest.approx(0.4645590, abs=1e-6)


def test_no_ratio_where_there_is_none() -> None:
    found = scored([None, 1.0, 1.0, 2.0], [1.0, 0.0, 2.0, 1.0], [3, 3, 4, 3])
    assert found["value"].to_pylist() == [None, None, None, 2.0]
    assert found["reason"].to_pylist() == ["no loss of the response", "the response alone is certain", "other tokens were scored", None]


def test_above_one_is_dropped() -> None:
    keep, reason = stage().judge(pa.record_batch([pa.array([0.5, 1.0, 1.01, None])], names=["ifd"]))
    assert keep.to_pylist() == [True, True, False, True]
    assert reason.to_pylist() == [None, None, "ifd above 1", None]
    assert stage(max=None).verbs() == ("apply",)


@pytest.mark.parametrize(("settings", "said"), [({"given": "lm", "alone": "lm"}, "every ratio would be 1"), ({"max": 0.0}, "max above 0")])
def test_settings_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        IfdParams(**settings)  # type: ignore[arg-type]
