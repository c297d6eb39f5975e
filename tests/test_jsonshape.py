"""The kinds of value that stand in a place, merged over rows and files."""

from __future__ import annotations

from typing import Any

import pytest

from curate.jsonshape import RowShapes, Shape

NESTED: list[Any] = [None, {"a": [1, 2.5]}, {"b": {"c": "x"}, "a": []}, {"a": [None]}]


def shape_of(values: list[Any]) -> Shape:
    shape = Shape()
    for value in values:
        shape.add(value)
    return shape


def test_nested_values_have_one_nested_type() -> None:
    assert str(shape_of(NESTED).arrow_type()) == "struct<a: list<item: double>, b: struct<c: string>>"


@pytest.mark.parametrize("cut", range(5))
def test_merging_halves_is_seeing_the_whole(cut: int) -> None:
    first, second = shape_of(NESTED[:cut]), shape_of(NESTED[cut:])
    first.merge(second)
    assert first.pack() == shape_of(NESTED).pack()


def test_a_shape_survives_being_packed() -> None:
    packed = shape_of(NESTED).pack()
    assert Shape.unpack(packed).pack() == packed


def test_rows_like_earlier_ones_still_count() -> None:
    rows = RowShapes()
    for value in (1, 2, 2**60, 2**63):
        rows.add({"n": value, "s": "x"})
    assert str(rows.columns["s"].arrow_type()) == "string"
    assert rows.columns["n"].arrow_type() is None
    rows = RowShapes()
    for inner in ([1], ["x"]):
        rows.add({"list": inner})
    assert rows.columns["list"].arrow_type() is None


def test_turns_are_recognised_by_their_keys() -> None:
    assert shape_of([[{"role": "user", "content": "x"}]]).turn_keys() == ("role", "content")
    assert shape_of([[], None, [{"from": "gpt", "value": "x"}]]).turn_keys() == ("from", "value")
    assert shape_of([[{"role": "user"}]]).turn_keys() is None
    assert shape_of(["x"]).turn_keys() is None
