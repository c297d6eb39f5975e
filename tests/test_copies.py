"""Documents that are published more than once and in an order: from the recipe to the files, SQL, verify and a takedown."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from run_folders import Rows, call, counts, docs, published, published_rows, run, write_recipe, write_rows
from test_verify import bless, checked, failed, what_holds

from curate import copies
from curate.catalog import OpenRun
from curate.errors import ConfigError, InternalError
from curate.removal import take_down

#: Six of web, four of code, two of law, and one without a source; q falls with the number, level rises.
POOL: Rows = [
    {"id": f"{source}{n}", "text": " ".join([source or "none", f"no{n}", *["more"] * n]), "source": source, "q": -float(n), "level": float(n)}
    for source, count in (("web", 6), ("code", 4), ("law", 2), (None, 1)) for n in range(count)
]  # fmt: skip
MIX: dict[str, Any] = {
    "by": "q", "max_epochs": 2,
    "schedule": [{"weights": {"web": 3, "code": 1}, "budget": 8}, {"weights": {"code": 1}, "budget": 6, "replay": {"source": "law", "share": "50%"}}],
}  # fmt: skip
#: Stage 1 takes all of web and two of code; stage 2 goes on with the other two and the first again, and has law once and half.
EXPECTED = Counter({
    **{(f"web{n}", 1): 1 for n in range(6)}, ("code0", 1): 1, ("code1", 1): 1,
    ("code2", 2): 1, ("code3", 2): 1, ("code0", 2): 1, ("law0", 2): 2, ("law1", 2): 1,
})  # fmt: skip


def pool(folder: Path, files: int = 3) -> Path:
    for n in range(files):
        write_rows(folder / "pool" / f"{n}.parquet", POOL[n::files][:: -1 if files > 1 else 1])
    return folder


def recipe(folder: Path, mix: dict[str, Any] | None = None, *, before: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    corpus = {"paths": [str(folder / "pool" / "*")], "id": "id", "source": "source"}
    return {"name": "copies", "seed": 7, "corpus": corpus, "stages": [*(before or []), {"mix": mix or MIX}], "emit": {"shard_bytes": 60}, **more}


def test_a_run_tells_the_rows_that_it_published_and_tells_them_again_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "recipe.yaml", recipe(pool(tmp_path)))
    for unchanged in (False, True):
        done = call("run", file, "--run", tmp_path / "run", "--workers", 1, "-q", "--summary-json", tmp_path / "said.json")
        assert done.returncode == 0, done.stderr
        said = json.loads((tmp_path / "said.json").read_text())
        assert (said["unchanged"], said["kept"], said["rows"]) == (unchanged, 12, sum(EXPECTED.values()))
    assert sum(EXPECTED.values()) == len(published_rows(tmp_path / "run")) == 14
    call("run", file, "--run", tmp_path / "run", "--workers", 1, "-q", "--set", "stages.mix.schedule=[{weights: {web: 1}, budget: 9}]", "--summary-json", tmp_path / "said.json")
    assert json.loads((tmp_path / "said.json").read_text())["rows"] == 9 == len(published_rows(tmp_path / "run"))


def test_every_copy_is_published_at_its_place_and_documents_and_rows_are_told_apart(tmp_path: Path) -> None:
    run(recipe(pool(tmp_path)), tmp_path / "run")
    rows = published_rows(tmp_path / "run")
    assert Counter((r["id"], r["curate_mix_stage"]) for r in rows) == EXPECTED
    assert [r["curate_mix_position"] for r in rows] == list(range(1, 15))
    assert [r["curate_mix_stage"] for r in rows] == [1] * 8 + [2] * 6
    assert {r["id"]: r["curate_mix_repeats"] for r in rows if r["curate_mix_repeats"] > 1} == {"code0": 2, "law0": 2}
    assert all(r["text"] == next(p["text"] for p in POOL if p["id"] == r["id"]) for r in rows)
    assert len(list((tmp_path / "run" / "mixture" / "data").iterdir())) > 2
    assert counts(tmp_path / "run") == {("kept", None): 12, ("mix", "no source"): 1}
    manifest = json.loads((tmp_path / "run" / "mixture" / "manifest.json").read_text())
    # words: 2 + n of each; web 2..7, code 2..5 and 2 again, law 2, 3 and 2 again
    assert (manifest["documents"], manifest["rows"], manifest["words"]) == (12, 14, 27 + 16 + 7)
    assert manifest["bytes_of_text"] == sum(len(r["text"]) for r in rows)
    assert manifest["copies"] == {"published": ["curate_mix_position", "curate_mix_stage"], "sorted": False}
    card = (tmp_path / "run" / "mixture" / "README.md").read_text()
    assert "They are taken 14 times: 14 rows" in card
    assert "by `curate_mix_stage`, in a seeded random order inside each" in card
    # bytes: web 7, 12, ... 32 are 117, beside code's 8 and 13; then code's 18, 23 and 8 beside law's 7, 7 and 12
    table = card.partition("## Mixture")[2].partition("\n## ")[0].splitlines()
    assert [line for line in table if line.startswith("| ")][1:] == [
        "| 1 | code | 2 | 2 | 0.00 | 15.2% |", "| 1 | web | 6 | 6 | 0.00 | 84.8% |", "| 2 | code | 3 | 3 | 0.00 | 65.3% |", "| 2 | law | 2 | 3 | 0.00 | 34.7% |",
    ]  # fmt: skip
    found = what_holds(checked(tmp_path / "run"))
    assert found["manifest"].endswith("12 documents in 14 rows")
    assert found["publication"].startswith("14 rows are exactly the selected documents, each as often and where docs say")
    told = OpenRun(tmp_path / "run").arrow(
        "SELECT stage, source, count(*) AS rows FROM docs, unnest(mix_stages) AS copies(stage) WHERE curate_keep GROUP BY ALL ORDER BY ALL"
    )
    assert [tuple(row.values()) for row in told.to_pylist()] == [(1, "code", 2), (1, "web", 6), (2, "code", 3), (2, "law", 3)]


@pytest.mark.parametrize("more", [{"arrange": {"by": "level", "bands": 2}}, {"arrange": {"by": "level"}}])
def test_files_and_workers_do_not_show_and_json_lines_have_the_same_rows(tmp_path: Path, more: dict[str, Any]) -> None:
    found = []
    for n, (files, workers) in enumerate([(1, 1), (4, 2)]):
        run(recipe(pool(tmp_path / f"{n}", files), MIX | more), tmp_path / f"run{n}", workers=workers)
        found.append({name: sha for name, sha in published(tmp_path / f"run{n}").items() if name.startswith("data/")})
    assert found[0] == found[1]
    run(recipe(tmp_path / "0", MIX | more, emit={"format": "jsonl", "shard_bytes": 60}), tmp_path / "run0")
    lines = [
        orjson.loads(line)
        for file in sorted((tmp_path / "run0" / "mixture" / "data").iterdir())
        for line in zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().splitlines()
    ]
    assert lines == published_rows(tmp_path / "run1")
    what_holds(checked(tmp_path / "run0"))
    if more == {"arrange": {"by": "level"}}:
        assert [(r["curate_mix_stage"], r["level"]) for r in lines] == sorted((r["curate_mix_stage"], r["level"]) for r in lines)


def test_what_a_later_stage_drops_leaves_its_places_empty(tmp_path: Path) -> None:
    made = recipe(pool(tmp_path))
    made["stages"].append({"length": {"min_words": 3}})  # every source's first goes: web0, code0 twice, law0 twice
    run(made, tmp_path / "run")
    rows = published_rows(tmp_path / "run")
    assert Counter((r["id"], r["curate_mix_stage"]) for r in rows) == Counter({k: n for k, n in EXPECTED.items() if not k[0].endswith("0")})
    places = [r["curate_mix_position"] for r in rows]
    assert places == sorted(places)
    assert len(set(range(1, 15)) - set(places)) == 5
    what_holds(checked(tmp_path / "run"))


def test_copies_of_one_text_without_ids_have_places_of_their_own(tmp_path: Path) -> None:
    rows = [{"text": "the same", "source": "a", "note": n % 2} for n in range(4)]
    write_rows(tmp_path / "pool" / "0.parquet", rows)
    made = recipe(tmp_path, {"budget": {"a": 10}, "max_epochs": 3})
    del made["corpus"]["id"]
    run(made, tmp_path / "run")
    found = published_rows(tmp_path / "run")
    assert [r["curate_mix_position"] for r in found] == list(range(1, 11))
    assert sorted(r["curate_mix_repeats"] for r in found) == [2] * 4 + [3] * 6
    what_holds(checked(tmp_path / "run"))


def test_a_mixture_that_takes_nothing_is_published_empty(tmp_path: Path) -> None:
    run(recipe(pool(tmp_path), {"budget": {"web": 0}, "max_epochs": 3}), tmp_path / "run")
    assert published_rows(tmp_path / "run") == []
    what_holds(checked(tmp_path / "run"))


def test_two_stages_that_say_where_documents_stand_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'mix' and 'first' would both say how often and in which order"):
        run(recipe(pool(tmp_path), before=[{"mix": {"weights": "proportional", "budget": 9, "as": "first"}}]), tmp_path / "run")


# -- what verify finds -------------------------------------------------------------------------------------------------


def republished(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the first file of the publication, as a fault of the program would have written it, manifest and ledger included."""
    home = (folder / "mixture").resolve()
    manifest = json.loads((home / "manifest.json").read_text())
    entry = manifest["files"][0]
    file = home / entry["file"]
    table = change(pq.read_table(file))
    pq.write_table(table, file, write_page_checksum=True)
    entry |= {"rows": table.num_rows, "bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    manifest["rows"] = sum(f["rows"] for f in manifest["files"])
    (home / "manifest.json").write_text(json.dumps(manifest))
    bless(folder, file)
    bless(folder, home / "manifest.json")


def test_a_copy_lost_or_doubled_or_at_another_place_is_found(tmp_path: Path) -> None:
    run(recipe(pool(tmp_path), emit={"shard_bytes": 10_000}), tmp_path / "run")
    file = (tmp_path / "run" / "mixture" / "data" / "train-00000-of-00001.parquet").resolve()
    whole = pq.read_table(file)
    names = whole["id"].to_pylist()
    again = [at for at, name in enumerate(names) if name == "law0"]

    def without(table: pa.Table, row: int) -> pa.Table:
        return table.take(pa.array([at for at in range(table.num_rows) if at != row]))

    for change, said in (
        (lambda t: without(t, again[0]), "'law0' is selected and not published"),  # once instead of twice
        (lambda t: pa.concat_tables([without(t, again[0]), t.slice(again[1], 1)]), "not in the order of their places"),  # one place twice
        (lambda t: t.take(pa.array([1, 0, *range(2, 14)])), "not in the order of their places"),
        (lambda t: t.set_column(t.schema.get_field_index("curate_mix_stage"), "curate_mix_stage", pa.array([1] * 14)), "'code0' is"),
        (lambda t: t.set_column(t.schema.get_field_index("curate_mix_position"), "curate_mix_position", pa.array(range(2, 16))), "published and not as it was selected"),
    ):
        republished(tmp_path / "run", change)
        report = checked(tmp_path / "run")
        assert "publication" in failed(report)
        assert any(said in fault.what for fault in report.faults), [fault.what for fault in report.faults]
        republished(tmp_path / "run", lambda _: whole)
    what_holds(checked(tmp_path / "run"))


def test_docs_that_contradict_themselves_are_found(tmp_path: Path) -> None:
    run(recipe(pool(tmp_path)), tmp_path / "run")
    sidecar = next(f for f in sorted((tmp_path / "run" / "store").rglob("*.parquet"), key=str) if "repeats" in pq.read_schema(f).names and 2 in pq.read_table(f)["repeats"].to_pylist())
    wide = (tmp_path / "run" / "docs" / "docs-00000.parquet").resolve()
    row = next(i for i, n in enumerate(pq.read_table(wide)["mix_repeats"].to_pylist()) if n == 2)
    name = pq.read_table(wide)["id"][row].as_py()
    place = next(i for i, n in enumerate(pq.read_table(sidecar)["repeats"].to_pylist()) if n == 2)
    for file, column, at in ((sidecar, "repeats", place), (wide, "mix_repeats", row)):
        table = pq.read_table(file)
        values = table[column].to_pylist()
        values[at] = 3
        pq.write_table(table.set_column(table.schema.get_field_index(column), column, pa.array(values)), file, write_page_checksum=True)
        bless(tmp_path / "run", file)
    faults = [fault.what for fault in checked(tmp_path / "run").faults]
    assert any(f"{name!r} is taken 3 times and has 2 mix_positions, 2 mix_stages" in what for what in faults), faults


# -- taken down, and asked again ---------------------------------------------------------------------------------------


def test_a_takedown_takes_every_copy(tmp_path: Path) -> None:
    run(recipe(pool(tmp_path), {"weights": "proportional", "budget": 15, "max_epochs": 3, "by": "q"}), tmp_path / "run")
    before = Counter(r["id"] for r in published_rows(tmp_path / "run"))
    assert before["web0"] == 2  # 7 of the 6 of web, rounded up: 7.5, 5, 2.5
    done = take_down(tmp_path / "run", ["web0"], workers=1)
    assert list(done.publications.values()) == [2]
    rows = published_rows(tmp_path / "run")
    assert "web0" not in {r["id"] for r in rows}
    assert len(rows) == 15
    what_holds(checked(tmp_path / "run"))


def test_a_takedown_that_leaves_too_little_is_kept_until_the_budget_is_lowered(tmp_path: Path) -> None:
    made = recipe(pool(tmp_path), {"budget": {"law": 4}, "max_epochs": 2})
    run(made, tmp_path / "run")
    with pytest.raises(ConfigError, match="'law': 4 documents asked, 2 to be had of the 1 there"):
        take_down(tmp_path / "run", ["law1"], workers=1)
    made["stages"][0]["mix"]["budget"] = {"law": 2}
    run(made, tmp_path / "run")
    assert [r["id"] for r in published_rows(tmp_path / "run")] == ["law0", "law0"]
    what_holds(checked(tmp_path / "run"))


def test_the_command_says_rows_beside_documents_and_runs_no_stage_again(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe(pool(tmp_path)))
    done = call("run", file, "--run", tmp_path / "run", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "12 of 13 documents kept, published in 14 rows;" in done.stdout
    assert "mix: stage 2, replay of law: asked 3 (50.00%), took 3 (50.00%)" in done.stderr
    assert "mix: stage 2, law: asked 3 (50.00%), took 3 (50.00%) in 2 documents, taken 3 times (1.50 epochs); 2 there" in done.stderr
    again = call("run", file, "--run", tmp_path / "run", "--workers", 1)
    assert "nothing to do" in again.stdout


# -- the counting itself -----------------------------------------------------------------------------------------------


def wide_table(folder: Path, places: list[list[int] | None], sizes: list[int]) -> Path:
    folder.mkdir()
    table = pa.table({
        "mix_positions": pa.array(places, pa.list_(pa.int64())), "curate_keep": pa.array([True] * len(places)),
        "curate_bytes": pa.array(sizes), "curate_words": pa.array([1] * len(places)),
    })  # fmt: skip
    pq.write_table(table, folder / "docs-00000.parquet")
    return folder


SAID = copies.Copies(["curate_mix_position"], False, "mix_repeats", ["mix_positions"])


def test_slices_hold_about_equal_bytes_by_hand(tmp_path: Path) -> None:
    wide = wide_table(tmp_path / "wide", [[1, 6], [2], [3], [4, 5]], [10, 10, 40, 10])
    assert copies.amount(wide, SAID, tmp_path, 1) == copies.Amount(4, 6, 90, 6)
    # bytes before each place: 0 10 20 60 70 80 of 90; in thirds of 91: 0 0 0 1 2 2
    firsts, numbers = copies.slices(wide, SAID, 3, tmp_path, 1)
    assert (firsts.tolist(), numbers.tolist()) == ([1, 4, 5], [0, 1, 2])
    assert firsts.dtype == np.uint64


def test_a_kept_document_without_a_place_stops_the_publication(tmp_path: Path) -> None:
    for name, places in (("null", [[1], None]), ("empty", [[1], []])):
        with pytest.raises(InternalError, match="1 kept documents have no place in mix_positions"):
            copies.amount(wide_table(tmp_path / name, places, [1, 1]), SAID, tmp_path, 1)


def test_an_order_is_one_that_a_reader_should_keep(tmp_path: Path) -> None:
    assert not copies.Placed(["p"], False).in_order
    assert copies.Placed(["p"], True).in_order
    assert copies.Placed(["p", "stage"], False).in_order
    run(recipe(pool(tmp_path), {"weights": "proportional", "budget": 5}), tmp_path / "run")
    assert copies.of_publication(tmp_path / "run" / "mixture") == copies.Placed(["curate_mix_position"], False)
    assert docs(tmp_path / "run")["mix_positions"].type == pa.list_(pa.int64())
