"""`curate compare` from outside: equal budgets, an honest verdict, a diagnostic checked by hand."""

import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import show
from curate.comparison import Comparison
from curate.errors import ConfigError, DataError
from curate.ngrams import NgramSpec, bucket
from curate.prune import prune
from curate.removal import take_down
from curate.verify import verify

SMALL = Path(__file__).parent.parent.parent / "data_samples" / "small"


def recipe(**select: Any) -> dict[str, Any]:
    return {
        "corpus": {"paths": [str(SMALL / "pool")], "id": "id", "source": "source"},
        "targets": {"maths": {"guide": str(SMALL / "guide.jsonl"), "test": str(SMALL / "test.jsonl")}},
        "seed": 7,
        "stages": [{"length": {"min_bytes": 20}}, {"dedup_exact": {}}, {"dsir": {"laplace": 0.1}}, {"select": select}],
    }


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("judged") / "run"
    return folder, curate.compare(recipe(by="dsir", how="top_k", budget="10%"), run=folder, workers=1)


def test_a_selection_of_the_right_kind_is_better_than_random(judged: tuple[Path, Comparison]) -> None:
    found = judged[1].targets[0].verdict
    assert found.word == "better"
    assert 0 < found.low < found.difference < found.high


def test_a_random_selection_shows_no_difference(tmp_path: Path) -> None:
    found = curate.compare(recipe(how="random", budget="10%"), run=tmp_path / "run", workers=1)
    assert found.targets[0].verdict.word == "no difference shown"


def test_the_worst_documents_are_worse_than_random(tmp_path: Path) -> None:
    found = curate.compare(recipe(by="dsir", how="top_k", order="asc", budget="10%"), run=tmp_path / "run", workers=1)
    assert found.targets[0].verdict.word == "worse"


def test_no_arm_holds_more_than_the_selection_and_none_falls_short_by_more_than_a_document(
    judged: tuple[Path, Comparison],
) -> None:
    folder, found = judged
    largest = max(curate.open_run(folder).arrow("SELECT curate_bytes FROM docs")["curate_bytes"].to_pylist())
    arms = found.targets[0].arms
    assert [arm.name for arm in arms] == ["selection", *(f"random {i}" for i in range(10))]
    assert arms[0].bytes == found.selection_bytes == found.budget_bytes
    for arm in arms:
        assert found.budget_bytes - largest < arm.bytes <= found.budget_bytes


def test_random_draws_come_from_the_documents_that_reached_the_selection(judged: tuple[Path, Comparison]) -> None:
    folder, found = judged
    reached = curate.open_run(folder).arrow("SELECT count(*) AS n FROM docs WHERE select_keep IS NOT NULL")["n"].to_pylist()
    assert [found.eligible_documents] == reached


def test_the_answer_does_not_depend_on_the_number_of_workers(judged: tuple[Path, Comparison], tmp_path: Path) -> None:
    again = curate.compare(recipe(by="dsir", how="top_k", budget="10%"), run=tmp_path / "run", workers=2)
    assert again.targets == judged[1].targets


def test_the_result_is_written_down(judged: tuple[Path, Comparison]) -> None:
    folder, found = judged
    written = json.loads((folder / "compare.json").read_text())
    assert written["targets"][0]["verdict"]["word"] == found.targets[0].verdict.word
    assert written["judge"] == "ngram"


def test_kl_reduction_is_that_of_counts_made_by_hand(judged: tuple[Path, Comparison]) -> None:
    folder, found = judged
    texts = {row["doc"]: row["text"] for row in curate.open_run(folder).arrow("SELECT doc, text FROM texts").to_pylist()}
    rows = curate.open_run(folder).arrow("SELECT doc, curate_keep, select_keep IS NOT NULL AS reached FROM docs").to_pylist()
    test = [json.loads(line)["text"] for line in (SMALL / "test.jsonl").read_text().splitlines()]

    def shares(documents: list[str]) -> list[float]:
        counts: Counter[int] = Counter()
        for text in documents:
            tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
            for order in (1, 2):
                for i in range(len(tokens) - order + 1):
                    counts[bucket(tokens[i : i + order], NgramSpec())] += 1
        total = sum(counts.values()) + 10_000
        return [(counts[b] + 1) / total for b in range(10_000)]

    target = shares(test)
    pool = shares([texts[r["doc"]] for r in rows if r["reached"]])
    chosen = shares([texts[r["doc"]] for r in rows if r["curate_keep"]])
    expected = sum(t * math.log(t / p) for t, p in zip(target, pool, strict=True)) - sum(
        t * math.log(t / c) for t, c in zip(target, chosen, strict=True)
    )
    assert found.targets[0].kl.selection == pytest.approx(expected, rel=1e-9)
    least, most = found.targets[0].kl.random_least, found.targets[0].kl.random_most
    assert least <= found.targets[0].kl.random_mean <= most < found.targets[0].kl.selection


def test_an_arm_larger_than_the_judge_takes_is_sampled_like_every_other(tmp_path: Path) -> None:
    raw = recipe(by="dsir", how="top_k", budget="50%") | {"compare": {"max_bytes": 5000}}
    found = curate.compare(raw, run=tmp_path / "run", workers=1)
    assert found.budget_bytes == 5000 < found.selection_bytes
    assert all(arm.bytes <= 5000 for arm in found.targets[0].arms)


def test_a_target_without_a_test_cannot_be_judged(tmp_path: Path) -> None:
    raw = recipe(by="dsir", how="top_k", budget="10%")
    raw["targets"] = {"maths": {"guide": str(SMALL / "guide.jsonl")}}
    with pytest.raises(ConfigError, match="needs a target with a test"):
        curate.compare(raw, run=tmp_path / "run")


def test_a_judge_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--judge ngram"):
        curate.compare(recipe(how="random", budget=5), judge="gpt", run=tmp_path / "run")


def test_an_empty_selection_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="selection is empty"):
        curate.compare(recipe(how="random", budget=0), run=tmp_path / "run", workers=1)


def test_the_test_is_not_in_what_the_arms_learn_from(judged: tuple[Path, Comparison]) -> None:
    folder, _ = judged
    test = {hashlib.sha256(json.loads(line)["text"].encode()).hexdigest() for line in (SMALL / "test.jsonl").read_text().splitlines()}
    published = pq.read_table(folder / "mixture" / "data")["text"].to_pylist()
    assert not test & {hashlib.sha256(text.encode()).hexdigest() for text in published}


# -- several arms ---------------------------------------------------------------------------------------------

ARMS = {
    "worst": [{"select": {"by": "dsir", "how": "top_k", "order": "asc", "budget": "10%"}}],
    "drawn": [{"select": {"how": "random", "budget": "10%"}}],
    "short": [{"length": {"max_bytes": 2000, "as": "short"}}, {"select": {"by": "dsir", "how": "top_k", "budget": "10%"}}],
}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("several") / "run"
    raw = recipe(by="dsir", how="top_k", budget="10%") | {"compare": {"arms": ARMS}}
    return folder, curate.compare(raw, run=folder, workers=1)


def test_every_arm_has_its_verdict_against_the_same_draws(several: tuple[Path, Comparison]) -> None:
    (item,) = several[1].targets
    assert list(item.verdicts) == ["selection", "worst", "drawn", "short", "random_balanced", "random_length_matched"]
    words = {name: v.word for name, v in item.verdicts.items()}
    assert (words["selection"], words["worst"], words["drawn"]) == ("better", "worse", "no difference shown")
    assert len({v.random_bits_per_byte for v in item.verdicts.values()}) == 1
    assert item.verdict == item.verdicts["selection"]
    adjusted = [v.adjusted_p_value for v in sorted(item.verdicts.values(), key=lambda v: v.p_value or 0.0)]
    assert adjusted == sorted(adjusted)
    assert all((v.adjusted_p_value or 0) >= (v.p_value or 0) for v in item.verdicts.values())


def test_all_arms_hold_the_smallest_ones_bytes_and_what_their_own_runs_chose(several: tuple[Path, Comparison]) -> None:
    folder, found = several
    assert found.budget_bytes == min(found.arm_bytes.values()) <= found.arm_bytes["short"]
    chosen = {"selection": folder, **{name: folder / "arms" / name for name in ARMS}}
    for name, place in chosen.items():
        (own,) = curate.open_run(place).arrow("SELECT sum(curate_bytes)::BIGINT AS b FROM selected")["b"].to_pylist()
        assert found.arm_bytes[name] == own
    largest = max(curate.open_run(folder).arrow("SELECT curate_bytes FROM docs")["curate_bytes"].to_pylist())
    for arm in found.targets[0].arms:
        if not arm.name.startswith("random_"):  # these stop in each source or class, as their test below says
            assert found.budget_bytes - largest < arm.bytes <= found.budget_bytes


def test_arms_and_all_trials_can_be_asked_in_sql(several: tuple[Path, Comparison]) -> None:
    run = curate.open_run(several[0])
    arms = run.arrow("SELECT * FROM arms ORDER BY arm").to_pylist()
    assert {row["arm"]: row["verdict"] for row in arms} == {n: v.word for n, v in several[1].targets[0].verdicts.items()}
    counted = {row["arm"]: row["n"] for row in run.arrow("SELECT arm, count(*) AS n FROM trials GROUP BY arm").to_pylist()}
    assert counted == {"selection": 1, "worst": 1, "drawn": 1, "short": 1, "random": 10, "random_balanced": 5, "random_length_matched": 5}
    (mean,) = run.arrow("SELECT avg(bits_per_byte) AS m FROM trials WHERE arm = 'random'")["m"].to_pylist()
    assert mean == pytest.approx(arms[0]["random_bits_per_byte"])


def test_of_a_baseline_the_mean_is_spoken_of(several: tuple[Path, Comparison]) -> None:
    told = show.comparison(several[1])
    assert "the mean of 5 draws of random_length_matched is" in told
    assert "maths, random_balanced (the mean of its draws): " in told
    assert "\nworst is -" in told


def test_random_draws_are_of_what_the_selection_saw_though_a_mixture_shares_it_out(tmp_path: Path) -> None:
    raw = recipe(by="dsir", how="top_k", budget="20%")
    raw["stages"].append({"mix": {"weights": "proportional", "budget": 20}})
    found = curate.compare(raw, run=tmp_path / "run", workers=1)
    run = curate.open_run(tmp_path / "run")
    assert [found.eligible_documents] == run.arrow("SELECT count(*) AS n FROM docs WHERE select_keep IS NOT NULL")["n"].to_pylist()
    assert found.targets[0].arms[0].documents == run.arrow("SELECT count(*) AS n FROM selected")["n"].to_pylist()[0]


def test_a_second_comparison_computes_nothing_again_and_says_the_same(several: tuple[Path, Comparison]) -> None:
    raw = recipe(by="dsir", how="top_k", budget="10%") | {"compare": {"arms": ARMS}}
    seen: list[dict[str, Any]] = []
    again = curate.compare(raw, run=several[0], workers=1, listener=seen.append)
    assert again.targets == several[1].targets
    assert [e["computed_parts"] for e in seen if e["event"] == "finished"] == [0] * (1 + len(ARMS))


def test_a_lone_arm_is_judged_as_before_and_only_the_primary_target_is_spoken_of(tmp_path: Path, judged: tuple[Path, Comparison]) -> None:
    raw = recipe(by="dsir", how="top_k", budget="10%")
    raw["targets"]["again"] = {"guide": str(SMALL / "guide.jsonl"), "test": str(SMALL / "test.jsonl")}
    raw["compare"] = {"primary": "again"}
    raw["stages"][2]["dsir"]["as"] = "dsir"
    raw["stages"][3]["select"]["by"] = "dsir_maths"
    found = curate.compare(raw, run=tmp_path / "run", workers=1)
    assert [(t.target, t.primary) for t in found.targets] == [("maths", False), ("again", True)]
    told = show.comparison(found)
    assert "verdict for maths: none, this target is not the primary one" in told
    assert "verdict for again: better than random" in told
    verdict = judged[1].targets[0].verdict
    assert verdict.adjusted_p_value == verdict.p_value


@pytest.mark.parametrize(
    ("compare", "said"),
    [
        ({"arms": {"random": []}}, "not selection or random"),
        ({"arms": {"a b": []}}, "the name of an arm"),
        ({"arms": {"a": [{"selekt": {}}]}}, r"compare\.arms\.a(.|\n)*stages\[3\]\.selekt"),
        ({"primary": "nobody"}, "expected the name of a target"),
        ({"arms": {"a": [{"pii": {"mode": "redact"}}, {"select": {"how": "random", "budget": 5}}]}}, "changes texts behind the choice"),
        ({"baseline_draws": 1}, "at least 2 baseline_draws"),
    ],
)
def test_arms_that_cannot_be_are_refused(compare: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        curate.compare(recipe(by="dsir", how="top_k", budget="10%") | {"compare": compare}, run=tmp_path / "run", workers=1)


def test_a_takedown_reaches_the_arms_and_the_next_comparison_makes_them_again(tmp_path: Path) -> None:
    rows = pq.read_table(sorted((SMALL / "pool").glob("*.parquet"))[0])
    rows = rows.append_column("remark", pa.array([f"remark of {i}" for i in rows["id"].to_pylist()]))
    (tmp_path / "pool").mkdir()
    pq.write_table(rows, tmp_path / "pool" / "0.parquet")
    raw = recipe(by="dsir", how="top_k", budget="20%") | {"compare": {"arms": {"drawn": [{"select": {"how": "random", "budget": "20%"}}]}}}
    raw["corpus"]["paths"] = [str(tmp_path / "pool")]
    curate.compare(raw, run=tmp_path / "run", workers=1)
    gone = curate.open_run(tmp_path / "run" / "arms" / "drawn").arrow("SELECT id FROM selected LIMIT 1")["id"].to_pylist()
    take_down(tmp_path / "run", gone, workers=1)
    assert not (tmp_path / "run" / "arms" / "drawn").exists()
    prune(tmp_path / "run")  # it knows no arm any more that it would miss
    again = curate.compare(raw, run=tmp_path / "run", workers=1)
    assert list(again.targets[0].verdicts)[:2] == ["selection", "drawn"]
    told = curate.open_run(tmp_path / "run" / "arms" / "drawn").arrow(f"SELECT remark FROM docs WHERE id = '{gone[0]}'")["remark"].to_pylist()
    assert told == [None]
    assert verify(tmp_path / "run", workers=1).holds
