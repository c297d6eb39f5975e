"""`curate verify`: what holds is said with its counts, what does not is found and named, and repair plus a run heals."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
from run_folders import (
    SMALL,
    STAGES,
    call,
    lasting,
    recipe_for,
    run,
    small_rows,
    write_pool,
    write_recipe,
    write_rows,
)

from curate import ledger
from curate.checks import Report
from curate.corpus import SourceFile
from curate.errors import ConfigError, DataError, RunHeldError
from curate.lease import held
from curate.store import read_sealed, write_sealed
from curate.verify import verify

#: A recipe in which every kind of file occurs: partials, states (one frozen), measures, verdicts, finishes, unique ids.
EVERYTHING: list[dict[str, Any]] = [
    {"length": {"min_bytes": 20}},
    {"dedup_exact": {"normalize": ["space"]}},
    {"dsir": {"state": "frozen"}},
    {"select": {"by": "dsir", "how": "resample", "budget": "20%"}},
]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in three files."""
    return write_pool(tmp_path)


def checked(folder: Path, **more: Any) -> Report:
    return verify(folder, workers=1, **more)


def failed(report: Report) -> set[str]:
    """The checks that found something."""
    return {check.name for check in report.checks if check.holds is False}


def what_holds(report: Report) -> dict[str, str]:
    assert report.holds, [f.what for f in report.faults]
    assert all(check.holds for check in report.checks)
    return {check.name: check.what for check in report.checks}


def flip(file: Path, draw: random.Random) -> None:
    """Turn one bit of a file over; remove an empty one."""
    content = bytearray(file.read_bytes())
    if not content:
        file.unlink()
        return
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def bless(folder: Path, file: Path) -> None:
    """Write a file's present hash into the ledger, as if a fault of the program had written it so."""
    table = pq.read_table(folder / "ledger.parquet")
    found = ledger.read(folder)
    assert found is not None
    rows = table.to_pylist()
    for row, entry in zip(rows, found.entries, strict=True):
        if found.path(entry).resolve() == file.resolve():
            content = file.read_bytes()
            row |= {"bytes": len(content), "hash": xxhash.xxh3_128_hexdigest(content)}
            if file.suffix == ".parquet":
                row["rows"] = pq.read_metadata(file).num_rows
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "ledger.parquet", write_page_checksum=True)


def rewritten(folder: Path, file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table of the run, and bless it."""
    table = change(pq.read_table(file))
    pq.write_table(table, file, write_page_checksum=True)
    bless(folder, file)


def at(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    """The table with one value changed."""
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), pa.array(values, table.schema.field(column).type))


# -- what holds -------------------------------------------------------------------------------------------------------


def shape(pool: Path, name: str) -> dict[str, Any]:
    """A recipe of some shape."""
    if name == "no ids, no source, no target":
        recipe = recipe_for(pool, ids=False, target=False, stages=[{"dedup_exact": {}}])
        del recipe["corpus"]["source"]
        return recipe
    if name == "bad rows set aside":
        rows = small_rows()[:50]
        bad = [{"id": None, "text": "no id", "source": "x"}, {"id": "q1", "text": None, "source": "x"}]
        write_rows(pool / "pool" / "bad.parquet", [*({**r, "id": f"again {r['id']}"} for r in rows), *bad])
        return recipe_for(pool, corpus={"on_error": "quarantine"})
    if name == "json lines":
        return recipe_for(pool, emit={"format": "jsonl", "shard_bytes": 3000})
    if name == "several shards":
        return recipe_for(pool, emit={"shard_bytes": 3000})
    if name == "a template over a number":
        rows = [{**r, "n": i / 7} for i, r in enumerate(small_rows())]
        write_rows(pool / "templates" / "0.parquet", rows)
        return recipe_for(pool, paths=["templates"], corpus={"text": "{source}: {text} ({n})"}, target=False, stages=[{"length": {"min_bytes": 30}}])
    if name == "a template over strings, as json lines":
        return recipe_for(pool, corpus={"text": "{source}: {text}"}, target=False, stages=[{"length": {"min_bytes": 30}}], emit={"format": "jsonl"})
    if name == "messages":
        rows = [{"id": r["id"], "messages": [{"role": "user", "content": r["source"]}, {"role": "assistant", "content": r["text"]}]} for r in small_rows()]
        write_rows(pool / "chats" / "0.jsonl", rows)
        recipe = recipe_for(pool, paths=["chats"], corpus={"text": "messages", "view": "assistant"}, target=False, stages=[{"dedup_exact": {}}])
        del recipe["corpus"]["source"]
        return recipe
    if name == "changed text":
        for n in range(3):
            rows = pq.read_table(pool / "pool" / f"{n}.parquet").to_pylist()
            write_rows(pool / "pool" / f"{n}.parquet", [{**r, "text": r["text"] + "\nCopyright by all the authors"} if i % 3 else r for i, r in enumerate(rows)])
        return recipe_for(pool, stages=[{"repeated_lines": {"min_documents": 30}}, {"length": {"min_bytes": 25}}, {"dedup_exact": {}}], target=False)
    if name == "copies of one file":
        shutil.copy(pool / "pool" / "0.parquet", pool / "pool" / "copy.parquet")
        return recipe_for(pool, ids=False)
    return recipe_for(pool, stages=EVERYTHING)


@pytest.mark.parametrize(
    "name",
    ["everything", "no ids, no source, no target", "bad rows set aside", "json lines", "several shards", "a template over a number",
     "a template over strings, as json lines", "messages", "changed text", "copies of one file"],
)  # fmt: skip
def test_a_run_of_any_shape_holds_and_each_check_says_how_much_it_saw(pool: Path, name: str) -> None:
    result = run(shape(pool, name), pool / "run")
    documents, kept = result.outcome.documents, result.outcome.kept
    assert 0 < kept < documents
    told = what_holds(checked(pool / "run"))
    assert f"{documents:,} documents in docs" in told["rows"]
    assert f"{documents:,} read = {kept:,} kept + {documents - kept:,} dropped" in told["funnel"]
    assert f"{kept:,} kept texts" in told["texts"]
    assert f"{kept:,} documents are exactly the selected ones" in told["publication"]
    assert ("by identity" in told["publication"]) == (name == "a template over a number")
    assert ("targets" in told) == ("maths" in result.lock()["targets"])


def test_a_sidecar_that_was_topped_up_holds(pool: Path) -> None:
    for least in (60, 20, 40):
        run(recipe_for(pool, stages=[{"length": {"min_bytes": least}}, *STAGES[1:]]), pool / "run")
        what_holds(checked(pool / "run"))


def test_a_store_elsewhere_holds_with_two_workers(pool: Path) -> None:
    run(recipe_for(pool), pool / "run", store=pool / "shared")
    what_holds(verify(pool / "run", workers=2))


def test_verify_writes_nothing(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    before = {p: p.stat().st_mtime_ns for p in pool.rglob("*")}
    checked(pool / "run")
    assert {p: p.stat().st_mtime_ns for p in pool.rglob("*")} == before


# -- damage, and its repair -------------------------------------------------------------------------------------------


@pytest.fixture
def calm(pool: Path) -> tuple[dict[str, Any], Path, dict[str, str]]:
    """A recipe with everything, its run, and the bytes that are promised."""
    recipe = recipe_for(pool, stages=EVERYTHING)
    run(recipe, pool / "calm")
    return recipe, pool / "calm", lasting(pool / "calm")


def files_of(folder: Path) -> dict[str, list[Path]]:
    """The files that a run refers to, by kind, relative to its folder; with the ledger."""
    found = ledger.read(folder)
    assert found is not None
    kinds: dict[str, list[Path]] = {"ledger": [Path("ledger.parquet")]}
    for entry in found.entries:
        kind = entry.path.split("/")[0] if entry.kind == "record" else entry.kind
        kinds.setdefault(kind, []).append(found.path(entry).relative_to(folder))
    return kinds


def healed(recipe: dict[str, Any], calm: Path, expected: dict[str, str], file: Path, draw: random.Random) -> None:
    """Flip a bit of a file in a copy of a run: it is found and named, and repair and a run make it good."""
    rough = calm.with_name("rough")
    shutil.copytree(calm, rough, symlinks=True)
    flip(rough / file, draw)
    found = checked(rough)
    assert not found.holds, file
    assert any(str(rough / file) in fault.what for fault in found.faults), (file, found.faults)
    repaired = checked(rough, repair=True)
    assert not repaired.holds
    assert repaired.removed or not (rough / file).exists()
    run(recipe, rough)
    what_holds(checked(rough))
    assert lasting(rough) == expected, file
    shutil.rmtree(rough)


def test_a_flipped_bit_in_any_kind_of_file_is_found_and_made_good(calm: tuple[dict[str, Any], Path, dict[str, str]]) -> None:
    recipe, folder, expected = calm
    draw = random.Random(7)
    kinds = files_of(folder)
    assert set(kinds) >= {"measures", "fit", "state", "verdict", "finish", "unique", "docs", "mixture", "parts.parquet", "recipe.lock.json", "frozen"}
    for files in kinds.values():
        healed(recipe, folder, expected, draw.choice(files), draw)


@pytest.mark.slow
def test_a_flipped_bit_in_every_file_is_found_and_made_good(calm: tuple[dict[str, Any], Path, dict[str, str]]) -> None:
    recipe, folder, expected = calm
    for seed in range(3):
        draw = random.Random(seed)
        for files in files_of(folder).values():
            for file in files:
                healed(recipe, folder, expected, file, draw)


def test_many_damages_at_once_are_found_and_made_good(calm: tuple[dict[str, Any], Path, dict[str, str]]) -> None:
    recipe, folder, expected = calm
    draw = random.Random(3)
    names = [file for kind, files in files_of(folder).items() for file in files if kind not in ("ledger", "fit")]
    hurt = draw.sample(names, 12)
    for file in hurt:
        flip(folder / file, draw)
    found = checked(folder, repair=True)
    assert {str(folder / file) for file in hurt} <= {word for fault in found.faults for word in fault.what.split()}
    run(recipe, folder)
    what_holds(checked(folder))
    assert lasting(folder) == expected


@pytest.mark.parametrize("name", ["docs", "mixture"])
def test_a_file_that_is_cut_off_or_gone_or_too_many_is_found(pool: Path, name: str) -> None:
    recipe = recipe_for(pool)
    run(recipe, pool / "run")
    expected = lasting(pool / "run")
    home = (pool / "run" / name).resolve()
    file = next(p for p in sorted(home.rglob("*.parquet")) if not p.name.startswith("_"))

    def cut() -> None:
        os.truncate(file, file.stat().st_size // 2)

    def more() -> None:
        shutil.copy(file, file.with_name("train-00009.parquet"))

    for hurt, said in ((cut, "bytes instead of"), (file.unlink, "is missing"), (more, "is in no ledger")):
        hurt()
        found = checked(pool / "run", repair=True)
        assert any(said in fault.what for fault in found.faults)
        assert not home.exists()
        assert not (pool / "run" / name).is_symlink()
        run(recipe, pool / "run")
        assert lasting(pool / "run") == expected


def test_a_link_that_points_elsewhere_is_found(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    link = pool / "run" / "mixture"
    link.unlink()
    link.symlink_to("mixtures")
    assert failed(checked(pool / "run")) == {"names"}
    run(recipe_for(pool), pool / "run")
    what_holds(checked(pool / "run"))


def test_part_numbers_survive_a_damaged_parts_parquet(pool: Path) -> None:
    shutil.move(pool / "pool" / "0.parquet", pool / "late.parquet")
    run(recipe_for(pool), pool / "run")
    shutil.move(pool / "late.parquet", pool / "pool" / "0.parquet")  # first by name, last by number
    run(recipe_for(pool), pool / "run")
    expected = lasting(pool / "run")
    assert pq.read_table(pool / "run" / "parts.parquet")["part"].to_pylist() != list(range(15))
    flip(pool / "run" / "parts.parquet", random.Random(1))
    report = checked(pool / "run", repair=True)
    assert [fault.remedy for fault in report.faults] == ["--repair puts it back"]
    assert lasting(pool / "run") == expected
    what_holds(checked(pool / "run"))


# -- what no hash can show --------------------------------------------------------------------------------------------


def docs_file(folder: Path) -> Path:
    return (folder / "docs" / "docs-00000.parquet").resolve()


def test_a_verdict_in_docs_that_is_not_the_store_s_is_found(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    row = pq.read_table(docs_file(pool / "run"))["curate_keep"].to_pylist().index(True)
    rewritten(pool / "run", docs_file(pool / "run"), lambda t: at(t, "curate_keep", row, False))
    report = checked(pool / "run")
    assert failed(report) == {"verdicts", "funnel", "publication"}
    assert "'curate_keep' of" in next(f.what for f in report.faults if f.check == "verdicts")
    assert f"row {row}" in next(f.what for f in report.faults if f.check == "verdicts")


@pytest.mark.parametrize("column", ["dsir", "length_reason", "dedup_exact_of", "curate_drop_stage", "curate_bytes", "doc"])
def test_a_changed_value_in_any_column_of_docs_is_found(pool: Path, column: str) -> None:
    run(recipe_for(pool), pool / "run")
    table = pq.read_table(docs_file(pool / "run"))
    kind = table.schema.field(column).type
    row = next(i for i, v in enumerate(table[column].to_pylist()) if v is not None)
    rewritten(pool / "run", docs_file(pool / "run"), lambda t: at(t, column, row, "wrong" if pa.types.is_string(kind) else 12345678))
    report = checked(pool / "run")
    assert "verdicts" in failed(report)
    assert any(f"{column!r} of" in fault.what for fault in report.faults)


def test_a_verdict_in_the_store_that_docs_do_not_follow_is_found(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    sidecar = next(p for p in sorted((pool / "run" / "store").glob("*/verdict/*.parquet")) if pq.read_table(p)["keep"].to_pylist().count(True) > 3)
    rewritten(pool / "run", sidecar, lambda t: at(at(t, "keep", t["keep"].to_pylist().index(True), False), "reason", t["keep"].to_pylist().index(True), "by hand"))
    assert "verdicts" in failed(checked(pool / "run"))


def test_rows_that_docs_lost_are_found(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    rewritten(pool / "run", docs_file(pool / "run"), lambda t: t.slice(0, t.num_rows - 1))
    assert {"rows", "funnel"} <= failed(checked(pool / "run"))


def test_a_funnel_that_counts_otherwise_than_docs_is_found(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    rewritten(pool / "run", pool / "run" / "funnel.parquet", lambda t: at(t, "documents", 0, t["documents"][0].as_py() + 1))
    report = checked(pool / "run")
    assert failed(report) == {"funnel"}
    assert "599 documents were read, funnel.parquet counts 600" in report.faults[-1].what


def published_file(folder: Path) -> Path:
    return next(iter(sorted((folder / "mixture").resolve().glob("data/*.parquet"))))


def lose(table: pa.Table) -> pa.Table:
    return table.slice(1)


def double(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(1), table.slice(1, 1)])


def alter(table: pa.Table) -> pa.Table:
    return at(table, "text", 0, table["text"][0].as_py() + " ")


def swap(table: pa.Table) -> pa.Table:
    texts = table["text"].to_pylist()
    other = next(i for i, text in enumerate(texts) if text != texts[0])
    return at(at(table, "text", 0, texts[other]), "text", other, texts[0])


@pytest.mark.parametrize(("change", "such"), [(lose, 1), (double, 2), (alter, 2), (swap, 4)], ids=["lost", "doubled", "altered", "swapped"])
def test_a_publication_that_is_not_the_selected_set_is_found(pool: Path, change: Callable[[pa.Table], pa.Table], such: int) -> None:
    run(recipe_for(pool), pool / "run")
    file = published_file(pool / "run")
    named = pq.read_table(file)["curate_identity"][0].as_py()
    rewritten(pool / "run", file, change)
    manifest = file.parent.parent / "manifest.json"
    said = json.loads(manifest.read_text())
    import hashlib

    lost = said["rows"] - pq.read_metadata(file).num_rows
    said["files"][0] |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "rows": said["rows"] - lost, "bytes": file.stat().st_size}
    said["rows"] -= lost
    manifest.write_text(json.dumps(said))
    bless(pool / "run", manifest)
    report = checked(pool / "run")
    assert failed(report) == ({"manifest", "publication"} if lost else {"publication"})
    told = [fault.what for fault in report.faults if fault.check == "publication"]
    assert len(told) == such
    assert all(f"({such} such)" in what for what in told)
    assert any(repr(named) in what for what in told)
    checked(pool / "run", repair=True)
    run(recipe_for(pool), pool / "run")
    what_holds(checked(pool / "run"))


def test_a_manifest_that_promises_another_sha256_is_found(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    manifest = published_file(pool / "run").parent.parent / "manifest.json"
    said = json.loads(manifest.read_text())
    said["files"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(said))
    bless(pool / "run", manifest)
    report = checked(pool / "run")
    assert any("its manifest says 000" in fault.what for fault in report.faults)


# -- inputs -----------------------------------------------------------------------------------------------------------


def test_an_input_that_changed_under_its_size_and_time_is_found_and_never_touched(pool: Path) -> None:
    lines = "".join(json.dumps({"id": str(i), "text": f"number {i:05d} of many documents", "source": "s"}) + "\n" for i in range(200))
    (pool / "lines").mkdir()
    file = pool / "lines" / "a.jsonl"
    file.write_text(lines)
    run(recipe_for(pool, paths=["lines"], stages=[], target=False), pool / "run")
    times = file.stat()
    file.write_text(lines.replace("number 00077", "Number 00077"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = checked(pool / "run", repair=True)
    assert failed(report) == {"inputs"}
    assert str(file) in report.faults[0].what
    assert report.removed == []
    assert "Number 00077" in file.read_text()


def test_an_input_that_is_gone_is_named_and_the_rest_is_checked(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    (pool / "pool" / "1.parquet").unlink()
    report = checked(pool / "run")
    assert failed(report) == {"inputs"}
    assert report.faults[0].what == f"{pool / 'pool' / '1.parquet'} is missing"
    kept = pc.sum(pc.equal(pq.read_table(docs_file(pool / "run"))["curate_keep"], True)).as_py()
    told = {check.name: check.what for check in report.checks}
    assert 0 < int(told["texts"].split()[0]) < kept


@pytest.mark.parametrize("damage", ["a hash", "a range", "the end"])
def test_a_cache_of_the_inputs_that_would_mislead_the_next_run_is_found(pool: Path, damage: str) -> None:
    write_rows(pool / "lines" / "a.jsonl", small_rows())
    recipe = recipe_for(pool, paths=["lines"])
    run(recipe, pool / "run")
    expected = lasting(pool / "run")
    file = pool / "run" / "files.json"
    [said] = read_sealed(file, list[SourceFile])
    if damage == "the end":
        os.truncate(file, file.stat().st_size - 5)
    elif damage == "a hash":
        write_sealed(file, [msgspec.structs.replace(said, content="0" * 32)], pool)
    else:
        detail = json.loads(said.detail)
        detail["ranges"][0][3] -= 1
        write_sealed(file, [msgspec.structs.replace(said, detail=json.dumps(detail, separators=(",", ":")))], pool)
    report = checked(pool / "run", repair=True)
    assert failed(report) == {"inputs"}
    assert report.removed == [file]
    run(recipe, pool / "run")
    assert lasting(pool / "run") == expected
    what_holds(checked(pool / "run"))


def test_a_target_that_changed_is_found(pool: Path) -> None:
    for name in ("guide", "test"):
        shutil.copy(SMALL / f"{name}.jsonl", pool / f"{name}.jsonl")
    recipe = recipe_for(pool) | {"targets": {"maths": {"guide": [str(pool / "guide.jsonl")], "test": [str(pool / "test.jsonl")]}}}
    run(recipe, pool / "run")
    what_holds(checked(pool / "run"))
    with open(pool / "guide.jsonl", "a") as file:
        file.write('{"id": "new", "text": "one more example of what is wanted"}\n')
    assert failed(checked(pool / "run")) == {"targets"}


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_holds_and_its_exit_code_what_does_not(pool: Path) -> None:
    recipe = write_recipe(pool / "recipe.yaml", recipe_for(pool))
    run_folder = pool / "run"
    assert call("run", recipe, "--run", run_folder, "--workers", 1, "-q").returncode == 0
    done = call("verify", run_folder, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("holds  ") for line in done.stdout.splitlines())
    assert "599 documents in docs" in done.stdout
    flip(published_file(run_folder), random.Random(2))
    bad = call("verify", run_folder, "--workers", 1, "--json")
    assert bad.returncode == 3
    assert bad.stderr == f"error: 1 faults in {run_folder}\n"
    told = msgspec.json.decode(bad.stdout)
    assert told["holds"] is False
    assert [check["check"] for check in told["checks"] if check["holds"] is False] == ["files"]
    assert [check["check"] for check in told["checks"] if check["holds"] is None] == ["publication"]
    [fault] = told["faults"]
    assert fault["what"].startswith(str(published_file(run_folder)))
    assert fault["removes"] == str((run_folder / "mixture").resolve())
    repaired = call("verify", run_folder, "--workers", 1, "--repair", "-q")
    assert repaired.returncode == 3
    assert f"removed {told['faults'][0]['removes']}" in repaired.stdout
    assert call("run", recipe, "--run", run_folder, "--workers", 1, "-q").returncode == 0
    assert call("verify", run_folder, "--workers", 1, "-q").stdout == ""


def test_a_folder_that_is_no_run_or_has_not_finished_is_told_apart(pool: Path) -> None:
    with pytest.raises(ConfigError, match="expected a run folder"):
        checked(pool)
    run(recipe_for(pool), pool / "run")
    (pool / "run" / "ledger.parquet").unlink()
    with pytest.raises(DataError, match="has finished"):
        checked(pool / "run")


def test_a_run_at_work_is_left_alone(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    with held(pool / "run"):
        for words in (["verify", pool / "run"], ["verify", pool / "run", "--repair"], ["prune", pool / "run"]):
            done = call(*words)
            assert done.returncode == 75, words
            assert f"is held by process {os.getpid()}" in done.stderr


def test_a_run_that_worked_meanwhile_makes_the_findings_void(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "phase" and event["phase"] == "files":
            with held(pool / "run"):
                pass

    with pytest.raises(RunHeldError, match="while it was verified"):
        checked(pool / "run", listener=listen)


def test_repair_waits_for_nobody_who_shares_the_store(pool: Path) -> None:
    for name in ("a", "b"):
        run(recipe_for(pool, name=name), pool / name, store=pool / "shared")
    with held(pool / "b"), pytest.raises(RunHeldError, match="is held by"):
        checked(pool / "a", repair=True)
    checked(pool / "a", repair=True)
