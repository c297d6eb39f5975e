"""Plain mappings into parameter structs: problems in words, all of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from curate.errors import ConfigError
from curate.params import Problems, build, did_you_mean


class Thing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of every kind that stages have."""

    needed: str
    count: int = 3
    ratio: float | None = None
    mode: Literal["fast", "slow"] = "fast"
    names: list[str] = []

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigError(f"expected a count of 0 or more, got {self.count}")


def found(values: Any) -> list[str]:
    problems = Problems()
    assert build(Thing, values, "stages[0].thing", problems) is None
    return problems.found


def test_values_become_a_struct_and_whole_numbers_are_also_ratios() -> None:
    problems = Problems()
    thing = build(Thing, {"needed": "x", "ratio": 1}, "thing", problems)
    assert thing == Thing(needed="x", ratio=1.0)
    assert problems.found == []


def test_every_problem_of_one_mapping_is_found() -> None:
    lines = found({"count": "many", "mode": "quick", "names": "one", "ratoi": 2})
    assert [line.split(": ")[0] for line in lines] == [
        "stages[0].thing.ratoi", "stages[0].thing", "stages[0].thing.count", "stages[0].thing.mode", "stages[0].thing.names",
    ]  # fmt: skip
    assert lines[0].startswith("stages[0].thing.ratoi: unknown setting; did you mean 'ratio'?")
    assert lines[1] == "stages[0].thing: the setting 'needed' is missing"
    assert lines[2] == "stages[0].thing.count: expected a whole number, got 'many'"
    assert lines[3] == "stages[0].thing.mode: expected one of fast, slow, got 'quick'"
    assert lines[4].endswith("got 'one'")


def test_a_struct_that_refuses_its_values_says_why_at_its_path() -> None:
    assert found({"needed": "x", "count": -1}) == ["stages[0].thing: expected a count of 0 or more, got -1"]


@pytest.mark.parametrize("values", [[1], "word", 3, True])
def test_what_is_no_mapping_is_refused(values: Any) -> None:
    assert found(values)[0].startswith("stages[0].thing: expected a mapping of settings, got ")


def test_a_switch_is_no_number_and_a_fraction_no_whole_one() -> None:
    assert found({"needed": "x", "count": True}) == ["stages[0].thing.count: expected a whole number, got True"]
    assert found({"needed": "x", "count": 1.5}) == ["stages[0].thing.count: expected a whole number, got 1.5"]


def test_problems_are_raised_together_and_counted() -> None:
    problems = Problems()
    problems.raise_if_any("recipe")
    problems.add("a.b", "is wrong")
    with pytest.raises(ConfigError, match=r"^recipe: 1 problem\n  - a\.b: is wrong$"):
        problems.raise_if_any("recipe")
    problems.add("c", "is too")
    with pytest.raises(ConfigError, match=r"^recipe: 2 problems\n  - a\.b: is wrong\n  - c: is too$"):
        problems.raise_if_any("recipe")


def test_the_nearest_name_is_guessed_only_where_one_is_near() -> None:
    assert did_you_mean("lenght", ["length", "dsir"]) == "; did you mean 'length'? (known: dsir, length)"
    assert did_you_mean("zzz", ["length", "dsir"]) == " (known: dsir, length)"
    assert did_you_mean("zzz", []) == " (known: none)"
