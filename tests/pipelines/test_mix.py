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
from run_folders import call, published, published_rows, write_recipe

import curate
from curate import randomness
from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.frame import Frame
from curate.pipelines.mix import Mix, MixParams
from curate.stage import BYTES, IDENTITY, KEY, WORDS, Context

TOKENIZER = Path(__file__).parent.parent.parent / "docs" / "examples" / "words_tokenizer.json"
Row = dict[str, Any]
SCHEMA = pa.schema([("doc", pa.int64()), (IDENTITY, pa.string()), (BYTES, pa.int64()), (WORDS, pa.int64()), ("source", pa.string()), ("q", pa.float64())])
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


# -- against a twin ---------------------------------------------------------------------------------------------------


def twin(rows: list[Row], weights: dict[str, int], limit: int, size: str, seed: int | None) -> set[int] | None:
    """The docs of a mixture, by plain lists; None where it cannot be had."""
    total = sum(weights.values())
    asked = {s: limit * w // total for s, w in weights.items()}
    for name in sorted(weights, key=lambda s: (-(Fraction(limit * weights[s], total) % 1), s))[: limit - sum(asked.values())]:
        asked[name] += 1
    groups = defaultdict(list)
    for row in rows:
        if row["source"] is not None and (seed is not None or row["q"] is not None):
            groups[row["source"]].append(row)
    if any(amount > sum(r[size] for r in groups[name]) for name, amount in asked.items()):
        return None
    draws: dict[str, float] = {}
    if seed is not None and rows:
        keys = randomness.keys_of(pa.array([r[IDENTITY] for r in rows]))
        draws = dict(zip((r[IDENTITY] for r in rows), randomness.uniform(keys, randomness.stream(seed, "mix", "mix")).tolist(), strict=True))
    taken = set()
    for name, members in groups.items():
        used = 0
        for row in sorted(members, key=lambda r: (-draws[r[IDENTITY]] if seed is not None else -r["q"], r[IDENTITY])):
            used += row[size]
            if used > asked.get(name, 0):
                break
            taken.add(row["doc"])
    # a source without any part gives nothing, even what is empty
    return {r["doc"] for r in rows if r["doc"] in taken and asked.get(r["source"], 0)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "ü", None]), st.integers(0, 9), st.sampled_from([None, 0.0, -0.0, 1.0, 2.5])), max_size=20),
    st.dictionaries(st.sampled_from(["a", "b", "ü"]), st.integers(1, 5), min_size=1),
    st.integers(0, 40), st.booleans(), st.booleans(), st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_stage_is_its_twin_in_any_order_of_rows(found: list[tuple[str | None, int, float | None]], weights: dict[str, int], limit: int, ranked: bool, in_bytes: bool, shuffler: Any) -> None:
    rows = [{"doc": i, IDENTITY: f"d{i:02d}", BYTES: size, WORDS: size, "source": source, "q": q} for i, (source, size, q) in enumerate(found)]
    shuffler.shuffle(rows)
    rows = [row | {"doc": i} for i, row in enumerate(rows)]
    expected = twin(rows, weights, limit, BYTES if in_bytes else WORDS, None if ranked else 7)
    asking = {"weights": weights, "budget": f"{limit}{'B' if in_bytes else 'words'}"} | ({"by": "q"} if ranked else {})
    with tempfile.TemporaryDirectory() as scratch:
        if expected is None:
            with pytest.raises(ConfigError, match=r"more is asked|have nothing"):
                ask(rows, Path(scratch), **asking)
        else:
            said, _ = ask(rows, Path(scratch), threads=2, **asking)
            assert {doc for doc, r in said.items() if r["keep"]} == expected


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


def test_another_cut_and_more_workers_publish_the_same(tmp_path: Path) -> None:
    found = []
    for n, (files, workers) in enumerate([(1, 1), (4, 2)]):
        recipe = recipe_over(pool(tmp_path / f"pool{n}", files), {"weights": "unimax", "budget": "50words"})
        curate.run(recipe, run=tmp_path / f"run{n}", workers=workers)
        found.append({name: sha for name, sha in published(tmp_path / f"run{n}").items() if name.startswith("data/")})
    assert found[0] == found[1]


def test_the_command_refuses_what_cannot_be_had_and_publishes_nothing(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe_over(pool(tmp_path / "pool", 1), {"budget": {"web": "10Mtokens"}}))
    done = call("run", file, "--run", tmp_path / "run", "--workers", 1)
    assert done.returncode == 2
    assert "'web': 10,000,000 tokens asked, 50 there" in done.stderr
    assert not (tmp_path / "run" / "mixture").exists()
