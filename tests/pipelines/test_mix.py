"""Mixtures worked out by hand, against a twin that uses plain lists, and as users run them."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import call, published_rows, write_recipe

from curate import randomness
from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.frame import Frame
from curate.pipelines.mix import Arrange, Mix, MixParams
from curate.pipelines.portions import Portion, Replay
from curate.stage import BYTES, IDENTITY, KEY, WORDS, Context

TOKENIZER = Path(__file__).parent.parent.parent / "docs" / "examples" / "words_tokenizer.json"
Row = dict[str, Any]
SCHEMA = pa.schema([("doc", pa.int64()), (IDENTITY, pa.string()), (BYTES, pa.int64()), (WORDS, pa.int64()), ("source", pa.string()), ("q", pa.float64()), ("along", pa.float64())])
#: Sources of 3 x 100, 6 x 10 and 4 x 10 bytes; q falls with the name's number.
POOL: list[Row] = [
    {"doc": i, IDENTITY: f"{name}{n}", BYTES: size, WORDS: 2, "source": name, "q": float(-n)}
    for i, (name, n, size) in enumerate([*(("web", n, 100) for n in range(3)), *(("code", n, 10) for n in range(6)), *(("law", n, 10) for n in range(4))])
]


def ask(rows: list[Row], scratch: Path, *, seed: int = 7, threads: int = 1, **given_settings: Any) -> tuple[dict[int, Row], list[str]]:
    """What the real stage says of each doc, and its notes."""
    table = pa.Table.from_pylist(rows, SCHEMA)
    table = table.append_column(pa.field(KEY, pa.uint64()), pa.array(randomness.keys_of(table[IDENTITY].combine_chunks())))
    stage = Mix(msgspec.convert(given_settings, MixParams), Context("mix", seed, (), "", "source", table.drop_columns(["doc"]).schema))

    def hashes(docs: pa.ChunkedArray) -> pa.Table:
        by_doc = {r["doc"]: f"{r[BYTES]:05d}" for r in rows}
        return pa.table({"doc": docs, "row_hash": pa.array([by_doc[d] for d in docs.to_pylist()], pa.string())})

    shown = table.select(["doc", *stage.finish_reads()]).combine_chunks()
    batches = [stage.prepare(b) for b in shown.to_batches(max_chunksize=3)]
    frame = Frame(stage.prepared(shown.schema), batches, hashes, scratch=scratch, threads=threads)
    try:
        said = stage.finish(frame).read_all().to_pylist()
    finally:
        frame.close()
    assert [r["doc"] for r in said] == sorted(r["doc"] for r in rows)
    assert all((r["reason"] is None) == r["keep"] == (r["rank"] is not None) for r in said)
    assert all(r["repeats"] == len(r["positions"] or []) == len(r.get("stages", r["positions"]) or []) == len(r.get("bands", r["positions"]) or []) for r in said)
    return {r["doc"]: r for r in said}, stage.notes()


def names(said: dict[int, Row], rows: list[Row]) -> list[str]:
    return sorted(r[IDENTITY] for r in rows if said[r["doc"]]["keep"])


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_given_weights_by_hand(tmp_path: Path) -> None:
    said, notes = ask(POOL, tmp_path, weights={"web": 5, "code": 1}, budget="240B", by="q")
    assert names(said, POOL) == ["code0", "code1", "code2", "code3", "web0", "web1"]
    assert [said[i]["reason"] for i in (0, 2, 7, 12)] == [None, "its source is full", "its source is full", "no share for its source"]
    assert [said[i]["rank"] for i in range(7)] == [1, 2, None, 1, 2, 3, 4]
    assert notes == [
        "240 of 240 bytes in 6 documents",
        "code: asked 40 (16.67%), took 40 (16.67%) in 4 documents; 60 there",
        "law: asked 0 (0.00%), took 0 (0.00%) in 0 documents; 40 there",
        "web: asked 200 (83.33%), took 200 (83.33%) in 2 documents; 300 there",
    ]
    assert (said[0]["asked"], said[0]["taken"], said[0]["asked_share"], said[0]["share"]) == (200, 200, 200 / 240, 200 / 240)


def test_filling_stops_before_a_part_is_exceeded_and_says_what_is_short(tmp_path: Path) -> None:
    said, notes = ask(POOL, tmp_path, weights={"web": 1, "code": 1}, budget="118B", by="q")  # 59 each: web's first has 100
    assert names(said, POOL) == ["code0", "code1", "code2", "code3", "code4"]
    assert notes[0] == "50 of 118 bytes in 5 documents"
    assert "web: asked 59 (50.00%), took 0 (0.00%) in 0 documents, 59 short; 300 there" in notes
    assert notes[-1].startswith("warning: 2 sources are more than 1% of the mixture off what was asked (code, web)")


def test_the_other_weights_by_hand(tmp_path: Path) -> None:
    def taken(**how: Any) -> dict[str, int]:
        said, _ = ask(POOL, tmp_path, **how)
        return {r["source"]: said[r["doc"]]["taken"] for r in POOL}

    assert taken(weights="proportional", budget="400B") == {"web": 300, "code": 60, "law": 40}
    assert taken(weights="proportional", budget="13") == {"web": 3, "code": 6, "law": 4}
    assert taken(weights="temperature", temperature=1, budget="200B") == {"web": 100, "code": 30, "law": 20}  # 150, 30, 20
    assert taken(weights="unimax", budget="7") == {"web": 2, "law": 2, "code": 3}
    assert taken(weights="unimax", cap=0.5, budget="6") == {"web": 1, "law": 2, "code": 3}
    assert taken(budget={"law": "50%", "web": 1}) == {"web": 1, "code": 0, "law": 2}
    assert taken(weights="unimax", budget=0) == {"web": 0, "code": 0, "law": 0}


def test_the_smallest_first_where_the_order_says_so_and_a_rank_must_say_it(tmp_path: Path) -> None:
    said, _ = ask(POOL, tmp_path, weights="unimax", budget=3, by="q", order="asc")
    assert names(said, POOL) == ["code5", "law3", "web2"]
    for column in ("select_rank", "val_loss"):
        stage = Mix(MixParams(weights="unimax", budget=3, by=column), Context("mix", source="source", columns=pa.schema([("source", pa.string()), (column, pa.int64())])))
        with pytest.raises(ConfigError, match="order: asc takes the smallest first"):
            stage.finish_reads()


def test_without_by_the_draw_is_by_identity_and_seed(tmp_path: Path) -> None:
    drawn = [names(ask(rows, tmp_path, seed=seed, weights="proportional", budget=6)[0], rows) for seed, rows in ((1, POOL), (1, POOL[::-1]), (2, POOL))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_one_identity_twice_is_told_apart_by_the_row(tmp_path: Path) -> None:
    rows = [{"doc": i, IDENTITY: "same", BYTES: size, WORDS: 1, "source": "a", "q": 1.0} for i, size in enumerate((30, 10, 20))]
    for settings_given in ({"by": "q"}, {}):
        said, _ = ask(rows, tmp_path, budget={"a": 2}, **settings_given)
        assert [said[i]["rank"] for i in range(3)] == [None, 1, 2]


def test_documents_without_a_source_or_a_score_are_told_of(tmp_path: Path) -> None:
    rows = [POOL[0] | {"source": None}, POOL[1] | {"q": None}, POOL[2] | {"q": float("nan")}, POOL[3]]
    said, notes = ask(rows, tmp_path, weights="proportional", budget=1, by="q")
    assert [said[i]["reason"] for i in range(4)] == ["no source", "no score", "no score", None]
    assert notes[2:] == ["warning: 2 documents are in no mixture: no score", "warning: 1 documents are in no mixture: no source"]


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"weights": {"web": 1, "code": 1}, "budget": "200B"}, r"'code': 100 bytes asked, 60 there; with these weights 120 bytes can be had"),
        ({"weights": {"web": 1, "cod": 1}, "budget": "20B"}, r"'cod': 10 bytes asked, 0 there; did you mean 'code'\?.*0 bytes can be had"),
        ({"weights": "proportional", "budget": "401B"}, r"'web': 301 bytes asked, 300 there.*400 bytes can be had"),
        ({"weights": "unimax", "budget": "401B"}, r"401B is more than there is: the sources have 400 bytes"),
        ({"weights": "unimax", "cap": 0.5, "budget": "201B"}, r"a cap of 0.5 leaves 200, .* or raise cap"),
        ({"weights": "temperature", "temperature": 1e9, "budget": "150B"}, r"'law': 50 bytes asked, 40 there"),
        ({"budget": {"law": 5}}, r"'law': 5 documents asked, 4 there"),
        ({"budget": {"code": "151B"}, "max_epochs": 2.5}, r"how often a document may be taken: 'code': 151 bytes asked, 150 to be had of the 60 there"),
        ({"weights": {"law": 1, "web": 1}, "max_epochs": {"law": 3}, "budget": 8}, r"'web': 4 documents asked, 3 there; with these weights 6 documents can be had"),
        ({"weights": "unimax", "cap": 2, "budget": "801B"}, r"400 bytes, of which a cap of 2 leaves 800; lower the budget or raise cap"),
        ({"weights": "unimax", "max_epochs": 2, "budget": "801B"}, r"max_epochs leaves 800; lower the budget or raise max_epochs"),
        ({"weights": {"code": 1}, "budget": 8, "replay": {"source": "weB", "share": "50%"}}, r"'weB': 4 documents asked, 0 there; did you mean 'web'"),
        ({"schedule": [{"weights": {"code": 1}, "budget": 2}, {"weights": {"code": 1}, "budget": 5}]}, r"stage 2 of the schedule: .*'code': 5 documents asked, 4 to be had of the 6 there"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_numbers(tmp_path: Path, given_settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(POOL, tmp_path, **given_settings)


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"budget": 5}, "mix needs weights"),
        ({"budget": 5, "weights": {}}, "one at least above 0"),
        ({"budget": 5, "weights": {"a": -1.0, "b": 2.0}}, "weights of 0 or more"),
        ({"budget": 5, "weights": {"a": float("nan")}}, "weights of 0 or more"),
        ({"budget": 5, "weights": "temperature"}, "go together"),
        ({"budget": 5, "weights": "unimax", "temperature": 2.0}, "go together"),
        ({"budget": 5, "weights": "temperature", "temperature": 0.0}, "above 0"),
        ({"budget": 5, "weights": "proportional", "cap": 1.0}, "cap belongs to weights: unimax"),
        ({"budget": 5, "weights": "unimax", "cap": 0.0}, "cap above 0"),
        ({"budget": 5, "weights": "unimax", "order": "asc"}, "give by"),
        ({"budget": {"a": 5}, "weights": "unimax"}, "leave weights out"),
        ({"budget": {"a": 5, "b": "5B"}}, "all in one unit, got bytes, documents"),
        ({"budget": {}}, "all in one unit, got none"),
        ({"budget": "five", "weights": "unimax"}, "expected a budget such as"),
        ({}, "needs a budget, or a schedule"),
        ({"schedule": []}, "at least one stage"),
        ({"schedule": [Portion(budget=5, weights="unimax")], "budget": 5, "weights": "unimax"}, "has budget, weights in each of its stages"),
        ({"schedule": [Portion(budget=5, weights="unimax"), Portion(budget="5B", weights="unimax")]}, "in one unit, got bytes, documents"),
        ({"schedule": [Portion(budget=5, weights="unimax"), Portion(budget=5)]}, r"schedule\[1\]: mix needs weights"),
        ({"schedule": [Portion(budget=5, weights="unimax", cap=2)]}, "say how often in all: max_epochs"),
        ({"budget": 5, "weights": "unimax", "max_epochs": 0.5}, "max_epochs of 1 or more"),
        ({"budget": 5, "weights": "unimax", "max_epochs": {"a": float("inf")}}, "max_epochs of 1 or more"),
        ({"budget": 5, "weights": "unimax", "arrange": Arrange(by="q", bands=1)}, "bands: expected at least 2"),
        ({"budget": {"a": 5}, "replay": Replay(source="b", share=0.1)}, "give the replayed source a budget"),
        ({"budget": 5, "weights": {"a": 1.0}, "replay": Replay(source="a", share=0.1)}, "a has a weight too"),
        ({"budget": 5, "weights": "unimax", "replay": Replay(source="a", share="100%")}, "below 100%"),
        ({"budget": 5, "weights": "unimax", "replay": Replay(source="a", share="a tenth")}, "such as 10%"),
        ({"budget": 5, "weights": "unimax", "replay": Replay(source=[], share=0.1)}, "or several, got none"),
    ],
)
def test_settings_that_make_no_mixture_are_refused(given_settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MixParams(**given_settings)


def test_a_mixture_needs_a_source_and_a_count_of_its_unit() -> None:
    with pytest.raises(ConfigError, match="mix needs sources"):
        Mix(MixParams(weights="unimax", budget=5), Context("mix"))
    with pytest.raises(ConfigError, match="token_count"):
        Mix(MixParams(weights="unimax", budget="5tokens"), Context("mix", source="source"))
    stage = Mix(MixParams(weights="unimax", budget=5, group_by="lang"), Context("mix", columns=pa.schema([("language", pa.string())])))
    with pytest.raises(ConfigError, match=r"group_by: .*lang"):
        stage.finish_reads()


# -- documents taken more than once -------------------------------------------------------------------------------------


def repeats(said: dict[int, Row], rows: list[Row]) -> dict[str, int]:
    return {r[IDENTITY]: said[r["doc"]]["repeats"] for r in rows if said[r["doc"]]["repeats"]}


def test_two_and_a_half_epochs_are_every_document_twice_and_half_of_them_once_more(tmp_path: Path) -> None:
    said, notes = ask(POOL, tmp_path, budget={"code": "150B"}, max_epochs=2.5, by="q")  # code has 6 x 10 bytes
    assert repeats(said, POOL) == {"code0": 3, "code1": 3, "code2": 3, "code3": 2, "code4": 2, "code5": 2}
    assert notes == [
        "150 of 150 bytes in 6 documents, taken 15 times",
        "code: asked 150 (100.00%), took 150 (100.00%) in 6 documents, taken 15 times (2.50 epochs); 60 there",
        "law: asked 0 (0.00%), took 0 (0.00%) in 0 documents; 40 there",
        "web: asked 0 (0.00%), took 0 (0.00%) in 0 documents; 300 there",
    ]
    assert [said[3][n] for n in ("asked", "taken", "share")] == [150, 150, 1.0]
    assert said[0]["repeats"] == 0
    assert said[0]["positions"] is None


def test_without_by_the_half_is_drawn_by_the_seed(tmp_path: Path) -> None:
    found = [repeats(ask(rows, tmp_path, seed=seed, budget={"code": 15}, max_epochs=3)[0], rows) for seed, rows in ((1, POOL), (1, POOL[::-1]), (2, POOL))]
    assert [sorted(each.values()) for each in found] == [[2, 2, 2, 3, 3, 3]] * 3
    assert found[0] == found[1] != found[2]


def test_whole_epochs_leave_no_remainder_not_even_of_documents_of_nothing(tmp_path: Path) -> None:
    rows = [{"doc": i, IDENTITY: f"d{i}", BYTES: size, WORDS: 1, "source": "a", "q": float(-i)} for i, size in enumerate((0, 5, 0, 5))]
    assert set(repeats(ask(rows, tmp_path, budget={"a": "20B"}, max_epochs=2, by="q")[0], rows).values()) == {2}
    # 17 is once all and 7: the empty first, 5, the empty one behind it; the next 5 would exceed it
    assert repeats(ask(rows, tmp_path, budget={"a": "17B"}, max_epochs=2, by="q")[0], rows) == {"d0": 2, "d1": 2, "d2": 2, "d3": 1}


def test_epochs_by_source_and_by_unimax(tmp_path: Path) -> None:
    def taken(**how: Any) -> dict[str, int]:
        said, _ = ask(POOL, tmp_path, **how)
        return {r["source"]: said[r["doc"]]["taken"] for r in POOL}

    # what each may give: code 60, law 80, web 300; the least first: 60 of 146, 80 of 190, 300 of 300
    assert taken(weights="unimax", budget="440B", max_epochs={"law": 2}) == {"code": 60, "law": 80, "web": 300}
    # a cap of 2: law 80 of 166, code 120 of 210, web the rest
    assert taken(weights="unimax", cap=2, budget="500B") == {"law": 80, "code": 120, "web": 300}
    assert taken(weights="unimax", cap=2, max_epochs={"web": 2}, budget="500B") == {"law": 40, "code": 60, "web": 400}
    assert taken(weights={"law": 1, "code": 1}, max_epochs={"law": 1.5}, budget=12) == {"law": 6, "code": 6, "web": 0}


def test_a_replayed_share_comes_from_the_general_pool(tmp_path: Path) -> None:
    said, notes = ask(POOL, tmp_path, weights="proportional", budget=9, replay={"source": "law", "share": "33.3%"})
    # 2.997 of law; of the other 6.003 a third is web, 2.001: the last one goes to the largest remainder, law
    assert {r["source"]: said[r["doc"]]["taken"] for r in POOL} == {"web": 2, "code": 4, "law": 3}
    assert notes[1] == "replay of law: asked 3 (33.33%), took 3 (33.33%)"
    _, notes = ask(POOL, tmp_path, weights={"code": 1}, budget=12, replay={"source": ["web", "law"], "share": 0.5})
    assert notes[1] == "replay of web, law: asked 6 (50.00%), took 6 (50.00%)"
    _, notes = ask(POOL, tmp_path, weights="unimax", budget=8, replay={"source": "law", "share": "25%"})
    assert [note.partition(" (")[0] for note in notes[2:]] == ["code: asked 3", "law: asked 2", "web: asked 3"]


# -- stages and orders --------------------------------------------------------------------------------------------------


def placed(said: dict[int, Row], rows: list[Row], what: str = "stages") -> dict[str, list[int]]:
    return {r[IDENTITY]: said[r["doc"]][what] for r in rows if said[r["doc"]]["keep"]}


def in_order(said: dict[int, Row], rows: list[Row]) -> list[str]:
    """The identities of the mixture's copies, in the order of their places, which are 1, 2, 3, ..."""
    copies = sorted((position, r[IDENTITY]) for r in rows for position in said[r["doc"]]["positions"] or [])
    assert [position for position, _ in copies] == list(range(1, len(copies) + 1))
    return [name for _, name in copies]


def test_a_stage_goes_on_where_the_one_before_it_stopped(tmp_path: Path) -> None:
    schedule = [{"weights": {"web": 1, "code": 1}, "budget": 4}, {"weights": {"code": 1}, "budget": 3}]
    said, notes = ask(POOL, tmp_path, schedule=schedule, by="q")
    assert placed(said, POOL) == {"web0": [1], "web1": [1], "code0": [1], "code1": [1], "code2": [2], "code3": [2], "code4": [2]}
    names = in_order(said, POOL)
    assert (set(names[:4]), set(names[4:])) == ({"web0", "web1", "code0", "code1"}, {"code2", "code3", "code4"})
    assert [note for note in notes if "code" in note or "stage 1:" in note] == [
        "stage 1: 4 of 4 documents in 4 documents",
        "stage 1, code: asked 2 (50.00%), took 2 (50.00%) in 2 documents; 6 there",
        "stage 2, code: asked 3 (100.00%), took 3 (100.00%) in 3 documents; 6 there",
    ]
    # what is short in one stage is not made up for in the next: 25 bytes are two documents of 10
    said, _ = ask(POOL, tmp_path, schedule=[{"weights": {"code": 1}, "budget": "25B"}] * 2, by="q")
    assert placed(said, POOL) == {"code0": [1], "code1": [1], "code2": [2], "code3": [2]}


def test_over_the_end_of_a_source_a_stage_begins_it_again(tmp_path: Path) -> None:
    schedule = [{"weights": {"code": 1}, "budget": 2}, {"weights": {"code": 1}, "budget": 9, "replay": {"source": "law", "share": "12%"}}]
    said, notes = ask(POOL, tmp_path, schedule=schedule, by="q", max_epochs=2)  # 1 of law, 8 of code: four and the first four again
    assert placed(said, POOL) == {"code0": [1, 2], "code1": [1, 2], "code2": [2, 2], "code3": [2, 2], "code4": [2], "code5": [2], "law0": [2]}
    assert "stage 2, replay of law: asked 1 (11.11%), took 1 (11.11%)" in notes


def test_an_epoch_of_a_shuffled_mixture_has_every_document(tmp_path: Path) -> None:
    rows = [{"doc": i, IDENTITY: f"d{i}", BYTES: 1, WORDS: 1, "source": "a", "q": 0.0} for i in range(50)]
    names = in_order(ask(rows, tmp_path, budget={"a": 200}, max_epochs=4)[0], rows)
    quarters = [names[at : at + 50] for at in range(0, 200, 50)]
    assert all(sorted(quarter) == sorted(r[IDENTITY] for r in rows) for quarter in quarters)
    assert quarters[0] != quarters[1]
    assert names != in_order(ask(rows, tmp_path, seed=8, budget={"a": 200}, max_epochs=4)[0], rows)
    assert names == in_order(ask(rows[::-1], tmp_path, budget={"a": 200}, max_epochs=4)[0], rows)


def test_an_order_by_a_column_and_in_bands(tmp_path: Path) -> None:
    up = in_order(ask(POOL, tmp_path, budget={"code": 6}, arrange={"by": "q"})[0], POOL)
    assert up == [f"code{n}" for n in (5, 4, 3, 2, 1, 0)]
    assert in_order(ask(POOL, tmp_path, budget={"code": 6}, arrange={"by": "q", "order": "desc"})[0], POOL) == up[::-1]
    rows = [{"doc": i, IDENTITY: f"d{i}", BYTES: size, WORDS: 1, "source": "a", "q": float(i)} for i, size in enumerate((60, 10, 10, 10, 10, 20))]
    said, _ = ask(rows, tmp_path, budget={"a": "120B"}, arrange={"by": "q", "bands": 3})
    # of 120 bytes each band has 40: what begins in the first 40 is d0, then from 60 on d1 and d2, from 80 on the rest
    assert placed(said, rows, "bands") == {"d0": [1], "d1": [2], "d2": [2], "d3": [3], "d4": [3], "d5": [3]}
    names = in_order(said, rows)
    assert [set(names[:1]), set(names[1:3]), set(names[3:])] == [{"d0"}, {"d1", "d2"}, {"d3", "d4", "d5"}]


def test_what_has_no_number_to_be_arranged_by_is_in_no_mixture(tmp_path: Path) -> None:
    rows = [POOL[3] | {"q": None}, *POOL[4:6]]
    said, notes = ask(rows, tmp_path, weights="proportional", budget=2, arrange={"by": "q"})
    assert (said[3]["keep"], said[3]["reason"]) == (False, "no place in the order")
    assert notes[-1] == "warning: 1 documents are in no mixture: no place in the order"


# -- against a twin ---------------------------------------------------------------------------------------------------


def split(weights: dict[str, int], limit: int) -> dict[str, int]:
    total = sum(weights.values())
    asked = {s: limit * w // total for s, w in weights.items()}
    for name in sorted(weights, key=lambda s: (-(Fraction(limit * weights[s], total) % 1), s))[: limit - sum(asked.values())]:
        asked[name] += 1
    return asked


def twin(rows: list[Row], schedule: list[tuple[dict[str, int], int]], size: str, epochs: int, seed: int | None) -> dict[int, list[int]] | None:
    """The stage of every copy, by doc, from plain lists: a source is read again and again; None where that cannot be had."""
    groups = defaultdict(list)
    for row in rows:
        if row["source"] is not None and (seed is not None or row["q"] is not None):
            groups[row["source"]].append(row)
    draws: dict[str, float] = {}
    if seed is not None and rows:
        keys = randomness.keys_of(pa.array([r[IDENTITY] for r in rows]))
        draws = dict(zip((r[IDENTITY] for r in rows), randomness.uniform(keys, randomness.stream(seed, "mix", "mix")).tolist(), strict=True))
    asked = [split(weights, limit) for weights, limit in schedule]
    if any(sum(a.get(s, 0) for a in asked) > epochs * sum(r[size] for r in groups[s]) for s in {s for a in asked for s in a}):
        return None
    taken: dict[int, list[int]] = defaultdict(list)
    for name, members in groups.items():
        ranked = sorted(members, key=lambda r: (-draws[r[IDENTITY]] if seed is not None else -r["q"], r[IDENTITY]))
        whole, at = sum(r[size] for r in ranked), 0
        for stage, parts in enumerate(asked, 1):
            used = 0
            while parts.get(name, 0) and whole:
                left = parts[name] - used
                # a reading is not begun where nothing is left for it
                if ranked[at % len(ranked)][size] > left or (at % len(ranked) == 0 and left == 0):
                    break
                used += ranked[at % len(ranked)][size]
                taken[ranked[at % len(ranked)]["doc"]].append(stage)
                at += 1
    return dict(taken)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "ü", None]), st.integers(0, 9), st.sampled_from([None, 0.0, -0.0, 1.0, 2.5])), max_size=20),
    st.lists(st.tuples(st.dictionaries(st.sampled_from(["a", "b", "ü"]), st.integers(1, 5), min_size=1), st.integers(0, 60)), min_size=1, max_size=3),
    st.integers(1, 4), st.booleans(), st.booleans(), st.sampled_from([None, {"by": "along"}, {"by": "along", "order": "desc", "bands": 2}]), st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_stage_is_its_twin_in_any_order_of_rows(
    found: list[tuple[str | None, int, float | None]], stages: list[tuple[dict[str, int], int]], epochs: int, ranked: bool, in_bytes: bool, arrange: dict[str, Any] | None, shuffler: Any
) -> None:  # fmt: skip
    rows = [{"doc": i, IDENTITY: f"d{i:02d}", BYTES: size, WORDS: size, "source": source, "q": q, "along": float(i % 4)} for i, (source, size, q) in enumerate(found)]
    shuffler.shuffle(rows)
    rows = [row | {"doc": i} for i, row in enumerate(rows)]
    expected = twin(rows, stages, BYTES if in_bytes else WORDS, epochs, None if ranked else 7)
    portions = [{"weights": weights, "budget": f"{limit}{'B' if in_bytes else 'words'}"} for weights, limit in stages]
    asking = (portions[0] if len(portions) == 1 else {"schedule": portions}) | {"max_epochs": epochs} | ({"by": "q"} if ranked else {}) | ({"arrange": arrange} if arrange else {})
    with tempfile.TemporaryDirectory() as scratch:
        if expected is None:
            with pytest.raises(ConfigError, match=r"more is asked|have nothing"):
                ask(rows, Path(scratch), **asking)
            return
        said, _ = ask(rows, Path(scratch), threads=2, **asking)
    assert {doc: r["repeats"] for doc, r in said.items() if r["keep"]} == {doc: len(where) for doc, where in expected.items()}
    order = in_order(said, rows)
    by_name = {r[IDENTITY]: r for r in rows}
    copies = sorted((p, stage) for doc, r in said.items() if r["keep"] for p, stage in zip(r["positions"], r["stages"] if len(portions) > 1 else expected[doc], strict=True))
    assert [stage for _, stage in copies] == sorted(stage for where in expected.values() for stage in where)
    if len(portions) > 1:
        assert {doc: r["stages"] for doc, r in said.items() if r["keep"]} == expected
    if arrange and "bands" not in arrange:
        along = [(stage, by_name[name]["along"]) for name, (_, stage) in zip(order, copies, strict=True)]
        assert along == sorted(along)


# -- as users run it ----------------------------------------------------------------------------------------------------


def pool(folder: Path, files: int) -> Path:
    """Texts of 1 to 4 words of three sources: 30 documents each, 75, 75 and 75 words."""
    rows = [{"id": f"{s}{i:02d}", "text": " ".join(["one", "two", "one", "two"][: i % 4 + 1]), "source": s, "q": float(i)} for s in ("web", "code", "law") for i in range(30)]
    folder.mkdir(parents=True)
    for n in range(files):
        pq.write_table(pa.Table.from_pylist(rows[n::files][:: -1 if files > 1 else 1]), folder / f"{n}.parquet")
    return folder


def recipe_over(folder: Path, mix: dict[str, Any]) -> dict[str, Any]:
    stages = [{"token_count": {"tokenizer": str(TOKENIZER)}}, {"select": {"by": "q", "budget": 60}}, {"mix": mix}]
    return {"corpus": {"paths": [str(folder / "*.parquet")], "id": "id", "source": "source"}, "stages": stages}


def test_a_run_mixes_what_was_selected_publishes_it_and_verifies(tmp_path: Path) -> None:
    mix = {"weights": {"web": 2, "code": 1}, "budget": "45tokens", "by": "select_rank", "order": "asc"}
    file = write_recipe(tmp_path / "r.yaml", recipe_over(pool(tmp_path / "pool", 1), mix))
    done = call("run", file, "--run", tmp_path / "run", "--workers", 1)
    assert done.returncode == 0, done.stderr
    out = done.stdout + done.stderr
    assert "web: asked 30 (66.67%)" in out
    assert "code: asked 15 (33.33%)" in out
    rows = published_rows(tmp_path / "run")
    spent = {s: sum(r["curate_token_count"] for r in rows if r["source"] == s) for s in ("web", "code", "law")}
    # the best first: 29 has 2 words, 28 one, 27 four, 26 three; 10 every four documents
    assert spent == {"web": 30, "code": 13, "law": 0}
    assert sorted(r["id"] for r in rows if r["source"] == "code") == [f"code{i}" for i in (24, 25, 26, 27, 28, 29)]
    assert "curate_mix_rank" in rows[0]
    assert "curate_mix_share" not in rows[0]
    told = OpenRun(tmp_path / "run").arrow("SELECT source, any_value(mix_asked) asked, any_value(mix_taken) taken FROM docs WHERE mix_keep GROUP BY 1 ORDER BY 1")
    assert told.to_pylist() == [{"source": "code", "asked": 15, "taken": 13}, {"source": "web", "asked": 30, "taken": 30}]
    assert call("verify", tmp_path / "run").returncode == 0


def test_the_command_refuses_what_cannot_be_had_and_publishes_nothing(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe_over(pool(tmp_path / "pool", 1), {"budget": {"web": "10Mtokens"}}))
    done = call("run", file, "--run", tmp_path / "run", "--workers", 1)
    assert done.returncode == 2
    assert "'web': 10,000,000 tokens asked, 50 there" in done.stderr
    assert not (tmp_path / "run" / "mixture").exists()
