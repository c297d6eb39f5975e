from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from select_twin import SCHEMA, Row, ask, random_rows, twin

import curate
from curate.errors import ConfigError, DataError
from curate.pipelines import select
from curate.pipelines.select import Select, SelectParams
from curate.stage import BYTES, IDENTITY, WORDS, Context, Target, measure

TWO = (Target("a", 3.0), Target("b", 1.0))


def rows_of(**columns: list[Any]) -> list[Row]:
    """Rows a, b, c, ... with the columns given; 10 bytes and 3 words each unless said."""
    count = len(next(iter(columns.values())))
    names = columns.pop("ids", [chr(97 + i) for i in range(count)])
    sizes, words = columns.pop("sizes", [10] * count), columns.pop("words", [3] * count)
    base = [{"doc": i, IDENTITY: names[i], BYTES: sizes[i], WORDS: words[i]} for i in range(count)]
    return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(base)]


def schema_of(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([(IDENTITY, pa.string()), (BYTES, pa.int64()), (WORDS, pa.int64()), *columns.items()])


SCORED = schema_of(score=pa.float64())


# -- by hand ------------------------------------------------------------------------------------------------------


def test_the_best_are_taken_best_first(tmp_path: Path) -> None:
    answer = ask(rows_of(score=[1.0, 5.0, 3.0, 4.0]), SCORED, tmp_path, by="score", budget=2)
    assert answer.chosen == ["b", "d"]
    assert answer.reasons == {"a": "below the cut", "b": None, "c": "below the cut", "d": None}
    assert answer.scores == {"a": 1.0, "b": 5.0, "c": 3.0, "d": 4.0}
    assert answer.notes == ["2 of 4 eligible documents chosen"]


def test_ties_are_broken_by_identity_not_by_place(tmp_path: Path) -> None:
    rows = rows_of(ids=["z", "m", "a", "q"], score=[1.0, 1.0, 1.0, 1.0])
    assert ask(rows, SCORED, tmp_path, by="score", budget=3).chosen == ["a", "m", "q"]


def test_negative_zero_ties_with_zero(tmp_path: Path) -> None:
    rows = rows_of(ids=["b", "a"], score=[0.0, -0.0])
    assert ask(rows, SCORED, tmp_path, by="score", budget=1).chosen == ["a"]


def test_a_null_or_nan_score_is_never_selected_and_infinities_are(tmp_path: Path) -> None:
    rows = rows_of(score=[None, math.nan, -math.inf, math.inf, 0.0])
    answer = ask(rows, SCORED, tmp_path, by="score", budget=5)
    assert answer.chosen == ["d", "e", "c"]
    assert answer.reasons["a"] == answer.reasons["b"] == "no score"
    assert answer.notes[0] == "the budget 5 is larger than what is eligible (3 documents): everything is taken"


def test_filling_stops_before_the_document_that_would_exceed_and_takes_no_smaller_one_after_it(tmp_path: Path) -> None:
    rows = rows_of(score=[9.0, 8.0, 7.0, 6.0], sizes=[50, 60, 1, 1])
    assert ask(rows, SCORED, tmp_path, by="score", budget="100B").chosen == ["a"]
    assert ask(rows, SCORED, tmp_path, by="score", budget="110B").chosen == ["a", "b"]
    assert ask(rows, SCORED, tmp_path, by="score", budget="49B").chosen == []


def test_words_are_a_unit(tmp_path: Path) -> None:
    rows = rows_of(score=[3.0, 2.0, 1.0], words=[4, 5, 6])
    assert ask(rows, SCORED, tmp_path, by="score", budget="9words").chosen == ["a", "b"]


def test_29_percent_of_100_eligible_documents_is_29(tmp_path: Path) -> None:
    rows = rows_of(ids=[f"{i:03d}" for i in range(102)], score=[None, None, *[float(i) for i in range(100)]])
    assert len(ask(rows, SCORED, tmp_path, by="score", budget="29%").chosen) == 29
    assert len(ask(rows[:21], SCORED, tmp_path, by="score", budget="29%").chosen) == 5  # of 19: 5.51


def test_a_budget_of_nothing_takes_nothing(tmp_path: Path) -> None:
    answer = ask(rows_of(score=[1.0, 2.0]), SCORED, tmp_path, by="score", budget=0)
    assert answer.chosen == []
    assert set(answer.reasons.values()) == {"below the cut"}


def test_an_empty_pool_and_a_pool_without_scores_give_nothing(tmp_path: Path) -> None:
    for how in ("top_k", "resample"):
        more: dict[str, Any] = {"temperature": 1.0} if how == "resample" else {}
        assert ask([], SCORED, tmp_path, by="score", how=how, budget=3, **more).chosen == []
        assert ask(rows_of(score=[None, None]), SCORED, tmp_path, by="score", how=how, budget="50%", **more).chosen == []


def test_order_asc_takes_the_smallest_and_gives_scores_as_they_were_read(tmp_path: Path) -> None:
    schema = schema_of(perplexity=pa.float64())
    answer = ask(rows_of(perplexity=[30.0, 10.0, 20.0]), schema, tmp_path, by="perplexity", order="asc", budget=2)
    assert answer.chosen == ["b", "c"]
    assert answer.scores == {"a": 30.0, "b": 10.0, "c": 20.0}


def test_a_threshold_takes_all_that_lies_within_bounds_included(tmp_path: Path) -> None:
    answer = ask(rows_of(score=[1.0, 2.0, 3.0, 4.0]), SCORED, tmp_path, by="score", how="threshold", min=2.0, max=3.0)
    assert answer.chosen == ["c", "b"]
    assert answer.reasons["a"] == answer.reasons["d"] == "outside the threshold"


def test_a_percentage_with_a_threshold_is_of_what_passed(tmp_path: Path) -> None:
    rows = rows_of(score=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert ask(rows, SCORED, tmp_path, by="score", how="threshold", min=2.0, budget="50%").chosen == ["e", "d"]


def test_where_comes_before_the_budget_and_a_null_condition_is_no(tmp_path: Path) -> None:
    schema = schema_of(score=pa.float64(), lang=pa.string())
    rows = rows_of(score=[5.0, 4.0, 3.0, 2.0], lang=["de", "en", None, "en"])
    answer = ask(rows, schema, tmp_path, by="score", where="lang = 'en' -- English only", budget="100%")
    assert answer.chosen == ["b", "d"]
    assert answer.reasons["a"] == answer.reasons["c"] == "not where"


def test_an_expression_is_not_computed_where_the_condition_is_false(tmp_path: Path) -> None:
    schema = schema_of(number=pa.string())
    rows = rows_of(number=["7", "many", "9"])
    answer = ask(rows, schema, tmp_path, by="CAST(number AS DOUBLE)", where="number <> 'many'", budget=1)
    assert answer.chosen == ["c"]


def test_columns_with_blanks_quotes_and_structs_can_be_ranked_by(tmp_path: Path) -> None:
    schema = pa.schema([*schema_of(**{"my score": pa.float64(), 'q"x': pa.int32()}), ("meta", pa.struct([("stars", pa.int64())]))])
    columns: dict[str, Any] = {"my score": [1.0, 2.0, 3.0], 'q"x': [5, 4, 3]}
    rows = [r | {"meta": {"stars": s}} for r, s in zip(rows_of(**columns), [1, 9, 2], strict=True)]
    assert ask(rows, schema, tmp_path, by="my score", budget=1).chosen == ["c"]
    assert ask(rows, schema, tmp_path, by='q"x', budget=1).chosen == ["a"]
    assert ask(rows, schema, tmp_path, by="docs.meta.stars + 0", budget=1).chosen == ["b"]


def test_columns_named_like_our_own_are_the_users(tmp_path: Path) -> None:
    schema = schema_of(**dict.fromkeys(["size", "value", "draw_0", "identity", "grp", "reason", "joined_score"], pa.float64()))
    names = ["size", "value", "draw_0", "identity", "grp", "reason", "joined_score"]
    columns: dict[str, Any] = {name: [1.0, 3.0, 2.0] for name in names}
    rows = rows_of(**columns)
    for name in names:
        assert ask(rows, schema, tmp_path, by=f"{name} * 1", where=f"{name} < 3", budget=1).chosen == ["c"], name


def test_a_boolean_ranks_true_first(tmp_path: Path) -> None:
    schema = schema_of(lang=pa.string())
    assert ask(rows_of(lang=["en", "de", "en"]), schema, tmp_path, by="lang = 'de'", budget=1).chosen == ["b"]


def test_the_references_choices_of_dsir_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    # weights and token counts of data-selection 1.0.3 for its five documents; min_example_length=10, two to sample
    weights = [-490.76245771585786, -112.15629822091873, -607.2874864042227, -412.9452946399316, 0.0]
    schema = pa.schema([*schema_of(tokens=pa.int64()), measure("dsir", pa.float64(), means="log_weight")])
    rows = rows_of(ids=["raw0", "raw1", "raw2", "raw3", "raw4"], tokens=[19, 22, 27, 16, 0], dsir=weights)
    for how, seed in [("top_k", 0), ("resample", 0), ("resample", 1), ("resample", 1234)]:
        answer = ask(rows, schema, tmp_path, seed=seed, by="dsir", how=how, where="tokens >= 10", budget=2)
        assert answer.chosen == ["raw1", "raw3"]
    everything = ask(rows, schema, tmp_path, by="dsir", how="resample", where="tokens >= 10", budget=9)
    assert sorted(everything.chosen) == ["raw0", "raw1", "raw2", "raw3"]  # where the reference raises


# -- groups -------------------------------------------------------------------------------------------------------

GROUPED = schema_of(score=pa.float64(), source=pa.string())


def grouped() -> list[Row]:
    return rows_of(score=[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], source=["x", "x", "x", "x", "y", "y", None, "None"])


def test_shares_are_of_the_budget_and_an_unnamed_or_null_group_gets_nothing(tmp_path: Path) -> None:
    answer = ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", share={"x": 0.5, "y": 0.25}, budget=4)
    assert answer.chosen == ["a", "b", "e"]
    assert answer.reasons["g"] == answer.reasons["h"] == "no share for its group"
    assert answer.reasons["c"] == "below the cut"
    named_none = ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", share={"None": 1.0, "zz": 0.0}, budget=4)
    assert named_none.chosen == ["h"]
    assert "warning: the group 'zz' of group_by source has no eligible document" in named_none.notes


def test_a_floor_is_filled_first_and_the_rest_goes_by_rank(tmp_path: Path) -> None:
    answer = ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", floor={"y": 1}, budget=3)
    assert answer.chosen == ["a", "b", "e"]
    every = ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", floor=1, budget=4)
    assert every.chosen == ["a", "e", "g", "h"]  # a null group is a group


def test_a_ceiling_holds_a_group_back_and_its_place_goes_to_others(tmp_path: Path) -> None:
    answer = ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", ceiling="25%", budget=3)
    assert answer.chosen == ["a"]  # a quarter of 4, of 2, of 1, of 1: only x has a whole document
    answer = ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", ceiling={"x": 2}, budget=4)
    assert answer.chosen == ["a", "b", "e", "f"]
    assert ask(grouped(), GROUPED, tmp_path, by="score", how="threshold", min=5.0, group_by="source", ceiling=1).chosen == ["a", "e"]


def test_floors_above_the_budget_or_above_a_ceiling_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the floors add up to 7 documents, more than the budget 3"):
        ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", floor={"x": 9, "y": 2, "None": 1}, budget=3)
    with pytest.raises(ConfigError, match="the group 'x' has a floor of 3 documents, above its ceiling of 2"):
        ask(grouped(), GROUPED, tmp_path, by="score", group_by="source", floor={"x": 3}, ceiling=2, budget=5)


def test_a_balanced_draw_gives_each_source_the_same_and_shares_out_what_small_ones_leave(tmp_path: Path) -> None:
    rows = rows_of(ids=[f"{i:02d}" for i in range(22)], source=["a"] * 2 + ["b"] * 10 + ["c"] * 10)
    answer = ask(rows, schema_of(source=pa.string()), tmp_path, how="random_balanced", budget=12)
    counts = [sum(name in answer.chosen for name in [f"{i:02d}" for i in block]) for block in (range(2), range(2, 12), range(12, 22))]
    assert counts == [2, 5, 5]


# -- several targets ------------------------------------------------------------------------------------------------

PER_TARGET = pa.schema([*schema_of(), measure("w_a", pa.float64(), means="log_weight"), measure("w_b", pa.float64(), means="log_weight")])


def per_target() -> list[Row]:
    return rows_of(w_a=[9.0, 8.0, 7.0, 1.0, None], w_b=[9.0, 1.0, 2.0, 3.0, 9.0])


def test_targets_take_turns_at_their_best_document_that_is_left(tmp_path: Path) -> None:
    answer = ask(per_target(), PER_TARGET, tmp_path, targets=TWO, by="w", combine="round_robin", budget=4)
    assert list(zip(answer.chosen, answer.targets, strict=True)) == [("a", "a"), ("d", "b"), ("b", "a"), ("c", "b")]
    assert answer.reasons["e"] == "no score"  # null for one target


def test_quotas_go_by_weight_and_the_last_target_has_the_remainder(tmp_path: Path) -> None:
    answer = ask(per_target(), PER_TARGET, tmp_path, targets=TWO, by="w", combine="quota", budget=3)  # 3/4 of 3 is 2.25
    assert list(zip(answer.chosen, answer.targets, strict=True)) == [("a", "a"), ("b", "a"), ("d", "b")]
    assert answer.scores["d"] == 3.0
    assert answer.scores["c"] is None


def test_max_and_mean_combine_into_one_score(tmp_path: Path) -> None:
    assert ask(per_target(), PER_TARGET, tmp_path, targets=TWO, by="w", combine="max", budget=3).chosen == ["a", "b", "c"]
    mean = ask(per_target(), PER_TARGET, tmp_path, targets=TWO, by="w", combine="mean", budget=2)
    assert mean.chosen == ["a", "b"]  # 9, 4.5 and 4.5: the tie goes to b
    assert mean.scores["c"] == 4.5


def test_one_target_whose_column_bears_its_name_needs_no_combine(tmp_path: Path) -> None:
    schema = pa.schema([*schema_of(), measure("w_a", pa.float64(), means="log_weight")])
    rows = rows_of(w_a=[1.0, 2.0])
    for combine in (None, "max", "round_robin", "quota"):
        more: dict[str, Any] = {} if combine is None else {"combine": combine}
        assert ask(rows, schema, tmp_path, targets=TWO[:1], by="w", budget=1, **more).chosen == ["b"]


# -- against the twin -----------------------------------------------------------------------------------------------

BUDGETS: list[Any] = [0, 1, 7, 1000, "0%", "29%", "100%", "0B", "9B", "60B", "700B", "99999B", "5words", "100words"]
CASES: list[dict[str, Any]] = [
    {"how": "top_k", "by": "score"},
    {"how": "top_k", "by": "score", "order": "asc"},
    {"how": "top_k", "by": "w", "order": "desc"},
    {"how": "resample", "by": "w"},
    {"how": "resample", "by": "w", "order": "asc", "temperature": 3.0},
    {"how": "resample", "by": "score", "temperature": 0.5},
    {"how": "resample", "by": "score", "temperature": 1.0, "group_by": "source", "share": {"a": 0.29, "b": 0.5}},
    {"how": "random"},
    {"how": "random_balanced"},
    {"how": "threshold", "by": "score", "min": 0.0},
    {"how": "threshold", "by": "score", "min": -1.0, "max": math.inf, "order": "asc"},
    {"how": "top_k", "by": "v", "combine": "max"},
    {"how": "top_k", "by": "v", "combine": "mean"},
    {"how": "resample", "by": "v", "combine": "max"},
    {"how": "top_k", "by": "v", "combine": "round_robin"},
    {"how": "top_k", "by": "v", "combine": "quota"},
    {"how": "resample", "by": "v", "combine": "round_robin"},
    {"how": "resample", "by": "v", "combine": "quota", "temperature": 2.0},
    {"how": "top_k", "by": "score", "group_by": "source", "share": {"a": 0.5, "b": 0.25, "c": 0.25}},
    {"how": "top_k", "by": "score", "group_by": "source", "ceiling": {"a": 2}},
    {"how": "random", "group_by": "source", "ceiling": 3},
    {"how": "top_k", "by": "score", "group_by": "source", "floor": {"c": 2}, "ceiling": {"a": 3, "b": 4}},
]


@pytest.mark.parametrize("settings", CASES, ids=lambda s: "-".join(f"{v}" for v in s.values()))
def test_choices_and_reasons_equal_those_of_the_slow_twin(settings: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(len(str(settings)))
    for trial, written in enumerate(rng.permutation(np.array(BUDGETS, object))[:7]):
        given = dict(settings) if settings["how"] == "threshold" and trial % 2 else {**settings, "budget": written}
        in_documents = str(given.get("budget", 0)).isdigit() or str(given.get("budget")).endswith("%")
        if not in_documents and ("floor" in given or "ceiling" in given):
            given["budget"] = 11
        if given.get("floor") and str(given["budget"]) in ("0", "1", "0%"):
            given["budget"] = 7  # below the floors, which is refused
        rows = random_rows(rng, int(rng.choice([8, 25, 60])))
        where = (lambda r: r[BYTES] > 0) if trial % 3 == 0 else None
        more: dict[str, Any] = {"where": f"{BYTES} > 0"} if where else {}
        weights = {"a": 3.0, "b": 1.0} if "combine" in given else None
        answer = ask(rows, SCHEMA, tmp_path, targets=TWO if weights else (), **given, **more)
        chosen, reasons = twin(rows, given, weights=weights, where=where)
        assert answer.chosen == chosen, given
        assert {k: v for k, v in answer.reasons.items() if v} == reasons


def test_the_cut_is_exact_in_a_pool_too_large_to_guess(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for scale in ("normal", "heavy tails", "few values", "infinities", "huge"):
        values = {
            "normal": rng.normal(size=4000), "heavy tails": rng.standard_cauchy(4000) ** 3, "few values": rng.integers(0, 3, 4000) * 1.0,
            "infinities": np.where(rng.random(4000) < 0.4, np.inf, rng.normal(size=4000)), "huge": rng.choice([-1.7e308, 1.7e308], 4000),
        }[scale]  # fmt: skip
        sizes = rng.integers(0, 100, 4000)
        rows = [{"doc": i, IDENTITY: f"{h:08x}{i}", BYTES: int(sizes[i]), WORDS: 1, "score": float(values[i])} for i, h in enumerate(rng.integers(0, 2**32, 4000))]
        for budget in (1, 200, "29%", "10kB", 3999):
            order: list[Row] = sorted(rows, key=lambda r: (-r["score"], r[IDENTITY]))
            if budget == "10kB":
                filled = np.cumsum([r[BYTES] for r in order])
                expected = [r[IDENTITY] for r, f in zip(order, filled, strict=True) if f <= 10_000]
            else:
                expected = [r[IDENTITY] for r in order[: 1160 if budget == "29%" else int(budget)]]
            assert ask(rows, SCORED, tmp_path, by="score", budget=budget).chosen == expected, (scale, budget)


# -- chance ---------------------------------------------------------------------------------------------------------


def test_a_resample_includes_each_document_as_often_as_drawing_one_after_the_other_does(tmp_path: Path) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
    exact = {(x, y): weights[x] / 15 * weights[y] / (15 - weights[x]) for x, y in itertools.permutations(weights, 2)}
    schema = pa.schema([*schema_of(source=pa.string()), measure("w", pa.float64(), means="log_weight")])
    rows = [
        {"doc": 4 * trial + i, IDENTITY: f"{name}{trial}", BYTES: 1, WORDS: 1, "source": str(trial), "w": math.log(x) - 700.0}
        for trial in range(5000)
        for i, (name, x) in enumerate(weights.items())
    ]  # five thousand pools of four, each a group of which the first two are taken
    chosen = ask(rows, schema, tmp_path, by="w", how="resample", group_by="source", ceiling=2, budget="100%").chosen
    pairs: dict[str, list[str]] = {}
    for name in chosen:
        pairs.setdefault(name[1:], []).append(name[0])
    seen = dict.fromkeys(exact, 0)
    for first, second in pairs.values():
        seen[first, second] += 1
    chi_square = sum((seen[pair] - 5000 * p) ** 2 / (5000 * p) for pair, p in exact.items())
    assert chi_square < 31.3  # 11 degrees of freedom: exceeded once in a thousand; the seed is fixed
    for name, weight in weights.items():
        included = sum(p for pair, p in exact.items() if name in pair)
        assert abs(sum(name in pair for pair in pairs.values()) / 5000 - included) < 0.03, weight


def test_a_temperature_flattens_the_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([*schema_of(), measure("w", pa.float64(), means="log_weight")])
    rows = [{"doc": i, IDENTITY: str(i), BYTES: 1, WORDS: 1, "w": float(x)} for i, x in enumerate(rng.normal(size=2000) * 50)]
    best = set(ask(rows, schema, tmp_path, by="w", budget=200).chosen)
    shares = [len(best & set(ask(rows, schema, tmp_path, by="w", how="resample", temperature=t, budget=200).chosen)) / 200 for t in (0.1, 50.0, 1e6)]
    assert shares[0] > 0.99
    assert 0.2 < shares[1] < 0.8
    assert shares[2] < 0.2  # a tenth by chance


def test_a_standardised_resample_does_not_see_the_scores_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(size=300)
    answers = []
    for scale, shift in [(1.0, 0.0), (1e-6, 4.0), (1e9, -3e9)]:
        rows = [{"doc": i, IDENTITY: str(i), BYTES: 1, WORDS: 1, "score": float(x * scale + shift)} for i, x in enumerate(scores)]
        answers.append(ask(rows, SCORED, tmp_path, by="score", how="resample", temperature=0.7, budget=60).chosen)
    assert answers[0] == answers[1] == answers[2]


def test_a_constant_score_resamples_as_a_random_draw_and_says_so(tmp_path: Path) -> None:
    rows = [{"doc": i, IDENTITY: str(i), BYTES: 1, WORDS: 1, "score": 0.1} for i in range(50)]
    answer = ask(rows, SCORED, tmp_path, by="score", how="resample", temperature=1.0, budget=10)
    assert len(answer.chosen) == 10
    assert any(n.startswith("warning: this resample is nearly a random draw") for n in answer.notes)


def test_summed_log_weights_are_called_nearly_top_k(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    schema = pa.schema([*schema_of(), measure("w", pa.float64(), means="log_weight")])
    rows = [{"doc": i, IDENTITY: str(i), BYTES: 1, WORDS: 1, "w": float(x)} for i, x in enumerate(rng.normal(size=500) * 500)]
    notes = ask(rows, schema, tmp_path, by="w", how="resample", budget=50).notes
    assert any(n.startswith("warning: this resample is nearly top-k") for n in notes)
    assert any("effective sample size of the weights 1.0 of 500" in n for n in notes)
    calm = ask(rows, schema, tmp_path, by="w", how="resample", budget=50, temperature=500.0).notes
    assert not any(n.startswith("warning") for n in calm)


def test_the_effective_sample_size_is_kishs(tmp_path: Path) -> None:
    schema = pa.schema([*schema_of(), measure("w", pa.float64(), means="log_weight")])
    rows = rows_of(w=[math.log(1.0), math.log(2.0), math.log(3.0)])
    notes = ask(rows, schema, tmp_path, by="w", how="resample", budget=1).notes
    assert any("effective sample size of the weights 2.6 of 3" in n for n in notes)  # 36 / 14


# -- the same, whatever the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", CASES[3:9] + CASES[14:20], ids=lambda s: "-".join(f"{v}" for v in s.values()))
def test_order_place_and_threads_change_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    rows = random_rows(rng, 80)
    given = {**settings, "budget": 17}
    targets = TWO if "combine" in given else ()
    first = ask(rows, SCHEMA, tmp_path, targets=targets, **given)
    shuffled = [rows[i] | {"doc": int(place) << 32 | 5} for i, place in zip(rng.permutation(80), rng.permutation(80), strict=True)]
    shuffled.sort(key=lambda r: r["doc"])
    again = ask(shuffled, SCHEMA, tmp_path, targets=targets, threads=4, **given)
    assert (again.chosen, again.reasons, again.targets) == (first.chosen, first.reasons, first.targets)
    if settings["how"] in ("resample", "random", "random_balanced"):
        assert ask(rows, SCHEMA, tmp_path, targets=targets, seed=8, **given).chosen != first.chosen
        assert ask(rows, SCHEMA, tmp_path, targets=targets, label="other", **given).chosen != first.chosen


def test_copies_of_one_identity_are_told_apart_by_their_whole_rows(tmp_path: Path) -> None:
    schema = schema_of(score=pa.float64(), source=pa.string())
    rows = rows_of(ids=["same"] * 6, score=[1.0] * 6, source=["p", "q", "r", "s", "t", "u"], sizes=[10, 20, 30, 40, 50, 60])
    for settings in ({"budget": 3}, {"budget": "70B"}, {"budget": 3, "how": "random"}, {"budget": 4, "group_by": "source", "ceiling": 1}):
        by: dict[str, Any] = {} if "how" in settings else {"by": "score"}
        picked = []
        for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [2, 0, 5, 4, 3, 1]):
            moved = [rows[i] | {"doc": place} for place, i in enumerate(order)]
            answer = ask(moved, schema, tmp_path, **by, **settings)
            picked.append([moved[d]["source"] for d in answer.docs])
        assert picked[0] == picked[1] == picked[2]
        assert picked[0]


# -- a score in a file of its own -----------------------------------------------------------------------------------


def test_a_score_is_joined_from_a_file_by_id(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"id": i, "s": s}) + "\n" for i, s in [("b", 9), ("a", 1.5), ("zz", 99), ("d", None)]))
    answer = ask(rows_of(ids=["a", "b", "c", "d"]), schema_of(), tmp_path, base=tmp_path, by={"file": "s.jsonl", "column": "s"}, budget=3)
    assert answer.chosen == ["b", "a"]
    assert answer.reasons == {"a": None, "b": None, "c": "no score", "d": "no score"}
    assert answer.notes[0] == "by.file s.jsonl: 1 documents have no row in it, 1 of its 4 ids are of no document that is left here"


def test_a_joined_file_that_changes_changes_the_stages_key(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "s": [1.0]}), tmp_path / "s.parquet")
    params = msgspec.convert({"by": {"file": "s.parquet", "column": "s"}, "budget": 1}, SelectParams)
    before = Select(params, Context("select", base=str(tmp_path))).extra_key()
    assert Select(params, Context("select", base=str(tmp_path))).extra_key() == before
    pq.write_table(pa.table({"id": ["a"], "s": [2.0]}), tmp_path / "s.parquet")
    assert Select(params, Context("select", base=str(tmp_path))).extra_key() != before


def test_a_repeated_id_in_a_joined_file_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,s\na,1\nb,2\na,3\n")
    with pytest.raises(DataError, match=r"expected each id once, got 'a' more than once"):
        ask(rows_of(ids=["a"]), schema_of(), tmp_path, base=tmp_path, by={"file": "s.csv", "column": "s"}, budget=1)


def test_a_budget_in_tokens_is_filled_by_the_column_that_counts_them(tmp_path: Path) -> None:
    # best first d (6 tokens), b (3), c: 6 + 3 = 9 fit into 10, c's 2 would be 11
    schema = pa.schema([*SCORED, measure("mine", pa.int64(), means="tokens")])
    rows = rows_of(score=[1.0, 4.0, 3.0, 5.0], mine=[1, 3, 2, 6])
    assert ask(rows, schema, tmp_path, by="score", budget="10tokens").chosen == ["d", "b"]
    twice = pa.schema([*schema, measure("other", pa.int64(), means="tokens")])
    with pytest.raises(ConfigError, match="there are 2: mine, other"):
        ask(rows_of(score=[1.0], mine=[1], other=[1]), twice, tmp_path, by="score", budget="10tokens")


# -- what is refused ------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"budget": 5}, "how: top_k needs by"),
    ({"by": "score"}, "needs a budget, such as 500, 5%"),
    ({"by": "score", "budget": "2Mtokens"}, "in tokens, which needs a stage that counts them; put one before"),
    ({"by": "score", "budget": "lots"}, "expected a budget such as"),
    ({"how": "random", "by": "score", "budget": 5}, "ignores scores; leave by out"),
    ({"how": "random", "order": "asc", "budget": 5}, "leave order out"),
    ({"how": "threshold", "by": "score"}, "needs min, max or both"),
    ({"how": "threshold", "by": "score", "min": 2.0, "max": 1.0}, "min 2.0 is above max 1.0"),
    ({"how": "threshold", "by": "score", "min": math.nan}, "expected numbers as min and max"),
    ({"how": "threshold", "by": "score", "min": 1.0, "combine": "quota"}, "has nothing to share"),
    ({"by": "score", "budget": 5, "min": 1.0}, "min and max belong to how: threshold"),
    ({"by": "score", "budget": 5, "temperature": 1.0}, "temperature belongs to how: resample"),
    ({"by": "score", "budget": 5, "how": "resample", "temperature": 0.0}, "is above 0"),
    ({"by": "score", "budget": 5, "how": "resample", "temperature": math.inf}, "is above 0"),
    ({"by": "score", "budget": 5, "how": "resample"}, "is not a log weight, so a resample needs a temperature"),
    ({"by": "scoer", "budget": 5}, "did you mean 'score'"),
    ({"by": "score +", "budget": 5}, "by: expected an SQL expression"),
    ({"by": "sum(score)", "budget": 5}, r"by: the SQL expression 'sum.score.' holds the aggregate sum\(\)"),
    ({"by": "score + random()", "budget": 5}, "changes from run to run"),
    ({"by": "source", "budget": 5}, "expected numbers to rank by"),
    ({"by": "score", "where": "source", "budget": 5}, "where: expected true or false"),
    ({"by": "score", "where": "scoer > 1", "budget": 5}, "where: there is no column 'scoer'.*did you mean 'score'"),
    ({"by": "score", "where": "row_number() over () < 3", "budget": 5}, "where: .*a window function"),
    ({"by": "perplexity", "budget": 5}, "order: asc takes the smallest first"),
    ({"by": "valLoss", "budget": 5}, "order: asc takes the smallest first"),
    ({"by": "perplexity / 2", "budget": 5}, "order: asc takes the smallest first"),
    ({"by": {"file": "x.csv", "column": "eval_loss"}, "budget": 5}, "order: asc takes the smallest first"),
    ({"by": "distance", "budget": 5}, "order: asc takes the smallest first"),
    ({"by": "score", "budget": 5, "group_by": "source"}, "group_by needs share, floor or ceiling"),
    ({"by": "score", "budget": 5, "share": {"a": 1.0}}, "need group_by"),
    ({"by": "score", "budget": 5, "group_by": "source", "share": {"a": 0.7, "b": 0.7}}, "add up to at most 1"),
    ({"by": "score", "budget": 5, "group_by": "source", "share": {}}, "add up to at most 1"),
    ({"by": "score", "budget": 5, "group_by": "source", "share": {"a": 0.7}, "floor": 1}, "cannot be given with it"),
    ({"by": "score", "budget": 5, "group_by": "source", "floor": "9MB"}, "floor is in the budget's unit, documents; got '9MB'"),
    ({"by": "score", "budget": 5, "group_by": "sauce", "floor": 1}, "group_by: there is no column 'sauce'.*did you mean 'source'"),
    ({"how": "threshold", "by": "score", "min": 0.0, "group_by": "source", "share": {"a": 1.0}}, "there is none"),
    ({"how": "random_balanced", "budget": 5, "group_by": "source", "floor": 1}, "gives every group the same"),
    ({"by": "score", "budget": 5, "combine": "max"}, "is one score; leave combine out"),
    ({"by": "w", "budget": 5}, "say how they combine"),
    ({"by": {"file": "missing.csv", "column": "s"}, "budget": 5}, "by.file: expected a file, got nothing"),
    ({"by": {"file": "s.csv", "column": "sore"}, "budget": 5}, "by.column: s.csv has no column 'sore'; did you mean 'score'"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_cannot_work_is_refused_before_anything_is_read(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    schema = pa.schema(
        [(IDENTITY, pa.string()), (BYTES, pa.int64()), ("score", pa.float64()), ("source", pa.string()), ("perplexity", pa.float64()),
         ("valLoss", pa.float64()), measure("distance", pa.float64(), larger_is_better=False), *list(PER_TARGET)[-2:]]
    )  # fmt: skip
    (tmp_path / "s.csv").write_text("id,score\na,1\n")
    context = Context("select", 7, TWO, str(tmp_path), None, schema)

    def build() -> None:
        stage = Select(msgspec.convert(settings, SelectParams), context)
        stage.finish_reads()

    with pytest.raises((ConfigError, msgspec.ValidationError), match=message):
        build()


def test_a_name_that_only_holds_the_letters_of_a_direction_is_none() -> None:
    schema = pa.schema([(name, pa.float64()) for name in ("blossoms", "glossary", "flossing")])
    for name in schema.names:
        Select(SelectParams(by=name, budget=1), Context("select", columns=schema))


def test_a_balanced_draw_without_a_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="random_balanced needs a source"):
        Select(SelectParams(how="random_balanced", budget=1), Context("select"))


def test_an_expression_that_fails_on_a_document_is_the_recipes_fault(tmp_path: Path) -> None:
    schema = schema_of(number=pa.string())
    with pytest.raises(ConfigError, match=r"by: the SQL expression fails on a document: .*many.*; TRY_CAST"):
        ask(rows_of(number=["1", "many"]), schema, tmp_path, by="CAST(number AS DOUBLE)", budget=1)


def test_a_budget_in_bytes_of_documents_without_sizes_is_refused(tmp_path: Path) -> None:
    rows = rows_of(score=[1.0, 2.0], sizes=[None, None])
    with pytest.raises(ConfigError, match="needs each document's bytes, and 2 have none"):
        ask(rows, SCORED, tmp_path, by="score", budget="1MB")


# -- the page ---------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = [
    block
    for page in ("select.md", "dedup_exact.md")
    for block in re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda b: b.splitlines()[0][:40])
def test_the_examples_of_the_pages_run_on_the_sample(block: str, store: Path, tmp_path: Path) -> None:
    stages = yaml.safe_load(block)
    sample = ROOT / "data_samples" / "small"
    names = ("maths", "again") if "combine" in block else ("maths",)
    recipe = {
        "corpus": {"paths": [str(sample / "pool")], "id": "id", "source": "source"}, "name": "page", "seed": 1,
        "targets": {name: {"guide": [str(sample / "guide.jsonl")]} for name in names}, "stages": [{"dsir": {"min_tokens": 3}}, *stages],
    }  # fmt: skip
    result = curate.run(recipe, run=tmp_path / "run", store=store, workers=1, publish=False)
    assert 0 < result.outcome.kept < 599


def test_every_reason_stands_on_the_page() -> None:
    page = (ROOT / "docs" / "select.md").read_text(encoding="utf-8")
    for reason in (select.NOT_WHERE, select.NO_SCORE, select.OUTSIDE, select.NO_SHARE, select.BELOW):
        assert f"`{reason}`" in page
