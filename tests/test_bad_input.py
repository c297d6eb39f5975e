"""Bad input through the command: exit 3 with the file and the row, nothing under a final name; or set aside and counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from run_folders import (
    call,
    chosen_texts,
    counts,
    docs,
    leftovers,
    published_rows,
    recipe_for,
    run,
    write_recipe,
    write_rows,
)

from curate.errors import DataError
from curate.readers import scan_parquet

GOOD = [{"id": f"d{n}", "text": f"document {n} of the pool", "source": "s"} for n in range(40)]
LINES = [json.dumps(row) for row in GOOD]


def truncated_parquet(pool: Path) -> str:
    write_rows(pool / "bad.parquet", GOOD)
    whole = (pool / "bad.parquet").read_bytes()
    (pool / "bad.parquet").write_bytes(whole[: len(whole) // 2])
    return "bad.parquet"


def damaged_parquet(pool: Path) -> str:
    write_rows(pool / "bad.parquet", GOOD)
    whole = bytearray((pool / "bad.parquet").read_bytes())
    for at in range(60, 260):
        whole[at] ^= 0xA5
    (pool / "bad.parquet").write_bytes(bytes(whole))
    return "bad.parquet"


def truncated_gzip(pool: Path) -> str:
    packed = gzip.compress("\n".join(LINES).encode())
    (pool / "bad.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    return "bad.jsonl.gz"


def text_that_is_no_gzip(pool: Path) -> str:
    (pool / "bad.jsonl.gz").write_text("\n".join(LINES))
    return "bad.jsonl.gz"


def an_empty_parquet_file_of_no_bytes(pool: Path) -> str:
    (pool / "bad.parquet").write_bytes(b"")
    return "bad.parquet"


def a_bad_line(pool: Path) -> str:
    (pool / "bad.jsonl").write_text("\n".join([*LINES[:3], '{"id": "x", "text": "half', *LINES[4:8]]))
    return "bad.jsonl, row 3 "


def a_line_that_is_no_object(pool: Path) -> str:
    (pool / "bad.jsonl").write_text("\n".join([*LINES[:2], "[1, 2]", *LINES[4:8]]))
    return "bad.jsonl, row 2 "


def a_null_text(pool: Path) -> str:
    rows: list[dict[str, Any]] = [dict(row) for row in GOOD]
    rows[17]["text"] = None
    write_rows(pool / "bad.parquet", rows)
    return "bad.parquet, row 17 "


def a_missing_text(pool: Path) -> str:
    (pool / "bad.jsonl").write_text("\n".join([*LINES[:5], '{"id": "x"}']))
    return "bad.jsonl, row 5 "


def a_number_for_a_text(pool: Path) -> str:
    (pool / "bad.jsonl").write_text("\n".join([*LINES[:4], '{"id": "x", "text": 7}']))
    return "bad.jsonl, row 4 "


def invalid_utf8(pool: Path) -> str:
    raw = pa.array([b"fine", b"not \xff fine", b"fine too"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": text, "source": ["s", "s", "s"]}), pool / "bad.parquet")
    return "bad.parquet, row 1 "


def invalid_utf8_in_a_line(pool: Path) -> str:
    (pool / "bad.jsonl").write_bytes(LINES[0].encode() + b'\n{"id": "x", "text": "\xff"}\n')
    return "bad.jsonl, row 1 "


def a_null_id(pool: Path) -> str:
    rows: list[dict[str, Any]] = [dict(row) for row in GOOD]
    rows[8]["id"] = None
    write_rows(pool / "bad.parquet", rows)
    return "bad.parquet, row 8 "


def a_repeated_id(pool: Path) -> str:
    rows = [dict(row) for row in GOOD]
    rows[31]["id"] = "d4"
    write_rows(pool / "bad.parquet", rows)
    return "bad.parquet, row 31 "


def a_row_too_short_for_its_header(pool: Path) -> str:
    (pool / "bad.csv").write_text("id,text,source\na,one,s\nb,two,s\nc,three\n")
    return "bad.csv, row 2 "


BAD: list[Callable[[Path], str]] = [
    truncated_parquet, damaged_parquet, truncated_gzip, text_that_is_no_gzip, an_empty_parquet_file_of_no_bytes, a_bad_line,
    a_line_that_is_no_object, a_null_text, a_missing_text, a_number_for_a_text, invalid_utf8, invalid_utf8_in_a_line, a_null_id,
    a_repeated_id, a_row_too_short_for_its_header,
]  # fmt: skip


def nothing_was_published(folder: Path) -> None:
    for name in ("docs", "mixture", "mixtures", "funnel.parquet", "catalog.duckdb", "parts.parquet"):
        assert not (folder / name).exists(), name
    if folder.exists():
        assert leftovers(folder) == []


@pytest.mark.parametrize("spoil", BAD)
def test_bad_data_exit_with_3_and_name_the_file_and_the_row(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    (tmp_path / "pool").mkdir()
    where = spoil(tmp_path / "pool")
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=[{"length": {"min_bytes": 2}}], target=False))
    done = call("run", recipe, "--run", tmp_path / "run", "--workers", 1, "-q")
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "pool" / where) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    nothing_was_published(tmp_path / "run")


def test_bad_data_found_by_a_worker_are_told_alike(tmp_path: Path) -> None:
    for n in range(6):
        write_rows(tmp_path / "pool" / f"{n}.parquet", [row | {"id": f"{n}-{row['id']}"} for row in GOOD])
    a_null_text(tmp_path / "pool")
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=[{"length": {"min_bytes": 2}}], target=False))
    done = call("run", recipe, "--run", tmp_path / "run", "--workers", 2, "-q")
    assert done.returncode == 3
    assert "bad.parquet, row 17 " in done.stderr
    assert "on_error: quarantine" in done.stderr
    assert "Traceback" not in done.stderr
    nothing_was_published(tmp_path / "run")


def test_a_good_run_stays_published_when_bad_data_come(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "good.parquet", GOOD)
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=[], target=False))
    assert call("run", recipe, "--run", tmp_path / "run", "--workers", 1, "-q").returncode == 0
    before = (tmp_path / "run" / "mixture").resolve()
    (tmp_path / "pool" / "bad.jsonl").write_text('{"id": "new", "text": null, "source": "s"}\n')
    assert call("run", recipe, "--run", tmp_path / "run", "--workers", 1, "-q").returncode == 3
    assert (tmp_path / "run" / "mixture").resolve() == before
    assert docs(tmp_path / "run").num_rows == 40
    (tmp_path / "pool" / "bad.jsonl").unlink()
    assert call("run", recipe, "--run", tmp_path / "run", "--workers", 1, "-q").returncode == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [("0.jsonl", b""), ("0.jsonl", b"\n\n"), ("0.csv", b"id,text,source\n"), ("0.parquet", None)],
    ids=["no bytes", "blank lines", "a header alone", "no rows"],
)
def test_an_empty_corpus_exits_with_3(tmp_path: Path, name: str, content: bytes | None) -> None:
    (tmp_path / "pool").mkdir()
    if content is None:
        pq.write_table(pa.schema([("id", pa.string()), ("text", pa.string()), ("source", pa.string())]).empty_table(), tmp_path / "pool" / name)
    else:
        (tmp_path / "pool" / name).write_bytes(content)
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=[], target=False))
    done = call("run", recipe, "--run", tmp_path / "run", "-q")
    assert done.returncode == 3, done.stderr
    assert "expected at least one row" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", '{"text": ""}\n', '{"text": "  "}\n'], ids=["no rows", "an empty text", "white space"])
def test_an_empty_target_exits_with_3_and_names_it(tmp_path: Path, text: str) -> None:
    write_rows(tmp_path / "pool" / "0.parquet", GOOD)
    (tmp_path / "guide.jsonl").write_text(text)
    recipe = recipe_for(tmp_path, stages=[{"dsir": {}}], target=False) | {"targets": {"maths": {"guide": "guide.jsonl"}}}
    done = call("run", write_recipe(tmp_path / "recipe.yaml", recipe), "--run", tmp_path / "run", "--workers", 1, "-q")
    assert done.returncode == 3, done.stderr
    assert "guide" in done.stderr
    assert "Traceback" not in done.stderr
    nothing_was_published(tmp_path / "run")


def test_a_bad_line_in_a_guide_exits_with_3_and_its_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "0.parquet", GOOD)
    (tmp_path / "guide.jsonl").write_text('{"text": "fine"}\n{"text": null}\n')
    recipe = recipe_for(tmp_path, stages=[{"dsir": {}}], target=False) | {"targets": {"maths": {"guide": "guide.jsonl"}}}
    done = call("run", write_recipe(tmp_path / "recipe.yaml", recipe), "--run", tmp_path / "run", "--workers", 1, "-q")
    assert done.returncode == 3, done.stderr
    assert f"{tmp_path / 'guide.jsonl'}, row 1 " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("corpus", "what"),
    [({"text": "body"}, "'body'"), ({"id": "key"}, "'key'"), ({"source": "origin"}, "'origin'"), ({"text": "{prompt} {text}"}, "prompt")],
)
def test_a_missing_column_exits_with_2(tmp_path: Path, corpus: dict[str, str], what: str) -> None:
    write_rows(tmp_path / "pool" / "0.parquet", GOOD)
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=[], target=False, corpus=corpus))
    done = call("run", recipe, "--run", tmp_path / "run", "-q")
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_damaged_sidecar_is_named_with_the_remedy_and_the_remedy_works(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "0.parquet", GOOD)
    recipe = recipe_for(tmp_path, stages=[{"length": {"min_bytes": 2}}], target=False)
    run(recipe, tmp_path / "run")
    sidecar = next(f for f in sorted((tmp_path / "run" / "store").rglob("*-all.parquet")))
    sidecar.write_bytes(sidecar.read_bytes()[:100])
    (tmp_path / "pool" / "0.parquet").rename(tmp_path / "pool" / "1.parquet")
    done = call("run", write_recipe(tmp_path / "recipe.yaml", recipe), "--run", tmp_path / "run", "--workers", 1, "-q")
    assert done.returncode == 3
    assert f"{sidecar} is damaged" in done.stderr
    assert "curate verify RUN --repair" in done.stderr
    sidecar.unlink()
    assert run(recipe, tmp_path / "run").outcome.kept == 40


# -- quarantine ----------------------------------------------------------------------------------------------------------


def test_quarantine_sets_bad_rows_aside_with_their_reasons_and_counts_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "0.parquet", GOOD)
    bad = ['{"id": "x", "text": null, "source": "s"}', '{"id": "y", "text": 7, "source": "s"}', "not json", '{"id": null, "text": "t", "source": "s"}', "[]"]
    good = [json.dumps(row | {"id": f"new-{row['id']}"}) for row in GOOD[:5]]
    (tmp_path / "pool" / "bad.jsonl").write_bytes("\n".join([*good, *bad]).encode() + b'\n{"id": "u", "text": "\xff", "source": "s"}\n')
    stages: list[dict[str, Any]] = [{"length": {"min_bytes": 2}}, {"dedup_exact": {}}, {"select": {"how": "random", "budget": "50%"}}]
    recipe = recipe_for(tmp_path, stages=stages, target=False, corpus={"on_error": "quarantine"})
    done = call("run", write_recipe(tmp_path / "recipe.yaml", recipe), "--run", tmp_path / "run", "--workers", 1)
    assert done.returncode == 0, done.stderr
    found = counts(tmp_path / "run")
    assert sum(found.values()) == 40 + 5 + 6
    aside = {reason: n for (stage, reason), n in found.items() if stage == "quarantine"}
    assert sum(aside.values()) == 6
    assert all(aside)
    assert found[("dedup_exact", "copy of another document")] == 5
    assert found[("kept", None)] == 20 == len(published_rows(tmp_path / "run"))
    assert "quarantine" in done.stdout
    rows = [row for row in docs(tmp_path / "run").to_pylist() if row["curate_drop_stage"] == "quarantine"]
    assert sorted(row["row"] for row in rows) == [5, 6, 7, 8, 9, 10]
    assert all(row["curate_identity"] is None and row["curate_drop_reason"] for row in rows)


def test_quarantined_rows_reach_no_fit_and_no_score(tmp_path: Path) -> None:
    write_rows(tmp_path / "clean" / "0.jsonl", GOOD)
    write_rows(tmp_path / "dirty" / "0.jsonl", [*GOOD[:9], {"id": "b", "text": None, "source": "s"}, *GOOD[9:]])
    chosen = []
    for name in ("clean", "dirty"):
        recipe = recipe_for(tmp_path, paths=[f"{name}/*"], corpus={"on_error": "quarantine"})
        run(recipe, tmp_path / f"run-{name}")
        chosen.append((tmp_path / f"run-{name}" / "mixture" / "data" / "train-00000-of-00001.parquet").read_bytes())
    assert chosen[0] == chosen[1]


def packed(name: str, lines: list[str]) -> bytes:
    text = "\n".join(lines).encode() + b"\n"
    if name.endswith(".csv.gz"):
        text = b"id,text,source\n" + b"".join(f"{row['id']},{row['text']},s\n".encode() for row in GOOD)
    return zstandard.ZstdCompressor(write_checksum=True).compress(text) if name.endswith(".zst") else gzip.compress(text, mtime=0)


def run_of(tmp_path: Path, on_error: str) -> Any:
    recipe = recipe_for(tmp_path, stages=[], target=False, corpus={"on_error": on_error})
    return call("run", write_recipe(tmp_path / "recipe.yaml", recipe), "--run", tmp_path / "run", "--workers", 1)


@pytest.mark.parametrize("name", ["bad.jsonl.gz", "bad.csv.gz"])
def test_of_a_truncated_file_the_rows_before_the_break_are_kept_and_the_rest_counts_as_one(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "pool" / "0.parquet", [row | {"id": f"other-{row['id']}"} for row in GOOD])
    whole = packed(name, LINES)
    (tmp_path / "pool" / name).write_bytes(whole[: len(whole) - 40])
    done = run_of(tmp_path, "quarantine")
    assert done.returncode == 0, done.stderr
    reason = f"truncated gzip: the file ends at byte {len(whole) - 40}, within its data"
    assert f"{name}: {reason}" in done.stdout + done.stderr
    found = counts(tmp_path / "run")
    left = found[("kept", None)] - 40
    assert found == {("kept", None): 40 + left, ("quarantine", reason): 1}
    assert 5 < left < 40
    assert [row["text"] for row in published_rows(tmp_path / "run") if row["id"] == f"d{left - 1}"] == [f"document {left - 1} of the pool"]
    assert not [row for row in published_rows(tmp_path / "run") if row["id"] == f"d{left}"]
    refused = run_of(tmp_path, "fail")
    assert refused.returncode == 3
    assert f"{name}, row {left} " in refused.stderr
    assert reason in refused.stderr
    (tmp_path / "pool" / name).write_bytes(whole)
    assert run_of(tmp_path, "quarantine").returncode == 0
    assert counts(tmp_path / "run") == {("kept", None): 80}


def test_a_last_line_that_damage_follows_is_not_trusted_whatever_it_holds(tmp_path: Path) -> None:
    lines = ['{"text": "one", "more": {"a": 1}}', '{"text": "two", "more": {"a": 2}}', '{"text": "three", "more": 5}']
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "bad.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()) + b"and this")
    recipe = {"corpus": {"paths": [str(tmp_path / "pool")], "on_error": "quarantine"}, "stages": []}
    done = call("run", write_recipe(tmp_path / "recipe.yaml", recipe), "--run", tmp_path / "run", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert sorted(counts(tmp_path / "run").values()) == [1, 2]
    assert chosen_texts(tmp_path / "run") == ["one", "two"]


@pytest.mark.parametrize("name", ["bad.jsonl.gz", "bad.jsonl.zst"])
def test_of_a_damaged_member_no_row_is_trusted_and_those_before_it_are(tmp_path: Path, name: str) -> None:
    first, second = packed(name, LINES[:15]), bytearray(packed(name, LINES[15:]))
    second[len(second) // 2] ^= 4
    write_rows(tmp_path / "pool" / "0.parquet", [row | {"id": f"other-{row['id']}"} for row in GOOD[:3]])
    (tmp_path / "pool" / name).write_bytes(first + bytes(second))
    done = run_of(tmp_path, "quarantine")
    assert done.returncode == 0, done.stderr
    found = counts(tmp_path / "run")
    assert found.pop(("kept", None)) == 3 + 15
    [((stage, reason), rows)] = found.items()
    assert (stage, rows) == ("quarantine", 1)
    assert reason is not None
    assert reason.startswith("damaged ")
    assert f"between byte {len(first)} and " in reason


def test_a_damaged_row_group_is_set_aside_and_its_rows_are_counted(tmp_path: Path) -> None:
    rows = [row | {"n": n} for n, row in enumerate(GOOD)]
    pool = tmp_path / "pool" / "0.parquet"
    pool.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), pool, row_group_size=8, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(pool.read_bytes())
    column = pq.ParquetFile(pool).metadata.row_group(2).column(3)  # `n`, which nothing but docs/ reads
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    pool.write_bytes(bytes(data))
    done = run_of(tmp_path, "quarantine")
    assert done.returncode == 0, done.stderr
    assert "0.parquet: damaged row group 2 (8 rows): " in done.stdout + done.stderr
    found = counts(tmp_path / "run")
    assert found.pop(("kept", None)) == 32
    assert list(found.values()) == [8]
    assert [row["n"] for row in docs(tmp_path / "run").to_pylist()] == [n if not 16 <= n < 24 else None for n in range(40)]
    refused = run_of(tmp_path, "fail")
    assert refused.returncode == 3
    assert "0.parquet" in refused.stderr


def test_a_csv_row_that_does_not_fit_is_counted_though_it_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "bad.csv").write_bytes(b"\xef\xbb\xbfid,text,source\na,one \xc3\xa9,s\nb,two \xff,s,more,\nc,three \xfe,s\nd,four,s\n")
    done = run_of(tmp_path, "quarantine")
    assert done.returncode == 0, done.stderr
    assert counts(tmp_path / "run") == {("kept", None): 2, ("quarantine", "expected 3 fields, got 5"): 1, ("quarantine", "invalid UTF-8"): 1}
    assert sorted(row["text"] for row in published_rows(tmp_path / "run")) == ["four", "one \u00e9"]


def test_a_footer_that_would_end_the_process_is_refused_by_name(tmp_path: Path) -> None:
    pool = tmp_path / "pool" / "0.parquet"
    write_rows(pool, GOOD)
    whole = pool.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    refused = []
    for at in range(len(whole) - 8 - footer, len(whole) - 8):
        pool.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            scan_parquet(str(pool), 1000)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(str(pool) in said for said in refused)
    assert any("histogram" in said for said in refused)


@pytest.mark.parametrize("ids", [True, False])
def test_a_pool_of_nothing_but_bad_rows_balances(tmp_path: Path, ids: bool) -> None:
    write_rows(tmp_path / "pool" / "0.jsonl", [{"id": f"{n}", "text": None, "source": "s"} for n in range(5)])
    write_rows(tmp_path / "pool" / "1.jsonl", GOOD[:3])
    stages: list[dict[str, Any]] = [{"length": {"min_bytes": 2}}, {"dedup_exact": {"normalize": ["case"]}}, {"dsir": {}}]
    recipe = recipe_for(tmp_path, stages=stages, ids=ids, corpus={"on_error": "quarantine"})
    run(recipe, tmp_path / "run")
    assert counts(tmp_path / "run") == {("quarantine", "null text"): 5, ("kept", None): 3}
