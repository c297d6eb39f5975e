"""The same documents and the same bytes, however many work and however the input is cut, named and ordered."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    SMALL,
    Rows,
    counts,
    docs_without_place,
    published,
    published_rows,
    recipe_for,
    run,
    small_rows,
    write_rows,
)

# Texts without ids: each of them is its own name, so copies of one text are one document in several places.
MORE_COPIES = [("copied twice, to the byte", "a"), ("copied twice, to the byte", "b"), ("copied in one source, to the byte", "c")]
RECIPES: dict[str, list[dict[str, Any]]] = {
    "resample": [
        {"length": {"min_bytes": 20}},
        {"dedup_exact": {}},
        {"dsir": {}},
        {"select": {"by": "dsir", "how": "resample", "temperature": 40, "budget": "20%"}},
    ],
    "top_k in bytes, copies and all": [{"dsir": {"ngrams": 1}}, {"select": {"by": "dsir", "budget": "0.03MB"}}],
    "a sampled fit and words": [
        {"dedup_exact": {"normalize": ["nfc", "case", "space"], "keep": "longest"}},
        {"dsir": {"fit": 5000, "hash": "sha256", "min_tokens": 3}},
        {"select": {"by": "dsir", "how": "resample", "budget": "0.004Mwords"}},
    ],
    "a coarse score with ties at the cut": [{"select": {"by": "length(source)", "budget": 100}}],
    "random, then balanced": [
        {"select": {"how": "random", "budget": 400, "as": "first"}},
        {"select": {"how": "random_balanced", "budget": 60}},
    ],
}


def pool_rows() -> Rows:
    rows = small_rows()
    for n, (text, source) in enumerate(MORE_COPIES * 2):
        rows.append({"id": f"again-{n}", "text": text, "source": source, "score": 0.5})
    return rows


def shuffled(rows: Rows, seed: int) -> Rows:
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows


def in_one_file(folder: Path, rows: Rows) -> dict[str, Any]:
    write_rows(folder / "pool" / "all.parquet", rows)
    return {}


def in_one_jsonl_file(folder: Path, rows: Rows) -> dict[str, Any]:
    write_rows(folder / "pool" / "all.jsonl", rows)
    return {}


def in_twenty_shuffled_files(folder: Path, rows: Rows) -> dict[str, Any]:
    mixed = shuffled(rows, 1)
    for n in range(20):
        # names that sort in another order than they were written in
        write_rows(folder / "pool" / f"{(n * 7) % 20:02d}-x.parquet", mixed[n::20], row_group=9)
    return {}


def in_small_parts(folder: Path, rows: Rows) -> dict[str, Any]:
    write_rows(folder / "pool" / "renamed.parquet", shuffled(rows, 2), row_group=17)
    return {"corpus": {"part_bytes": 9_000}}


def in_lines_cut_into_parts(folder: Path, rows: Rows) -> dict[str, Any]:
    write_rows(folder / "pool" / "lines.jsonl", shuffled(rows, 3))
    return {"corpus": {"part_bytes": 20_000}}


LAYOUTS: list[Callable[[Path, Rows], dict[str, Any]]] = [
    in_one_jsonl_file,
    in_twenty_shuffled_files,
    in_small_parts,
    in_lines_cut_into_parts,
]


def without_ids(rows: Rows) -> Rows:
    return [{k: v for k, v in row.items() if k != "id"} for row in rows]


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_cut_into_files_and_parts_does_not_show(tmp_path: Path, name: str, ids: bool) -> None:
    rows = pool_rows() if ids else without_ids(pool_rows())
    in_one_file(tmp_path / "one", rows)
    run(recipe_for(tmp_path / "one", stages=RECIPES[name], ids=ids), tmp_path / "one" / "run")
    expected = published(tmp_path / "one" / "run")
    documents = docs_without_place(tmp_path / "one" / "run")
    assert len(published_rows(tmp_path / "one" / "run")) > 10
    # twenty shuffled files always; the other layouts take turns, and all of them with the recipe that is shown first
    others = [LAYOUTS[0], *LAYOUTS[2:]]
    turn = list(RECIPES).index(name) + ids
    for layout in LAYOUTS if turn == ids else [LAYOUTS[1], others[turn % 3]]:
        folder = tmp_path / layout.__name__
        more = layout(folder, rows)
        run(recipe_for(folder, stages=RECIPES[name], ids=ids, **more), folder / "run")
        assert published(folder / "run") == expected, layout.__name__
        assert counts(folder / "run") == counts(tmp_path / "one" / "run"), layout.__name__
        if ids:
            assert docs_without_place(folder / "run") == documents, layout.__name__


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
def test_four_workers_write_what_one_writes(tmp_path: Path, ids: bool) -> None:
    rows = pool_rows() if ids else without_ids(pool_rows())
    in_twenty_shuffled_files(tmp_path, rows)
    recipe = recipe_for(tmp_path, ids=ids, stages=RECIPES["resample"])
    run(recipe, tmp_path / "one", workers=1)
    run(recipe, tmp_path / "four", workers=4)
    assert published(tmp_path / "four") == published(tmp_path / "one")
    one = [f.read_bytes() for f in sorted((tmp_path / "one" / "docs").iterdir())]
    assert [f.read_bytes() for f in sorted((tmp_path / "four" / "docs").iterdir())] == one


def test_shards_and_jsonl_do_not_show_the_cut_either(tmp_path: Path) -> None:
    rows = without_ids(pool_rows())
    found = []
    for n, layout in enumerate([in_one_file, *LAYOUTS]):
        folder = tmp_path / str(n)
        more = layout(folder, rows)
        emit = {"format": "jsonl", "shard_bytes": 9_000}
        run(recipe_for(folder, stages=[{"dsir": {}}, {"select": {"by": "dsir", "budget": 150}}], ids=False, emit=emit, **more), folder / "run")
        found.append(published(folder / "run"))
    assert sum(name.endswith(".jsonl.zst") for name in found[0]) > 3
    assert all(other == found[0] for other in found[1:])


def test_files_whose_columns_stand_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = without_ids(small_rows())
    turned = [dict(reversed(row.items())) for row in rows]
    for name, first, second in (("a", rows[:300], turned[300:]), ("b", turned[300:], rows[:300])):
        write_rows(tmp_path / name / "pool" / "0.parquet", first)
        write_rows(tmp_path / name / "pool" / "1.parquet", second)
        run(recipe_for(tmp_path / name, ids=False), tmp_path / name / "run")
    assert published(tmp_path / "a" / "run") == published(tmp_path / "b" / "run")


def test_optional_keys_of_json_lines_do_not_order_the_columns_by_place(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if v is not None} for row in without_ids(small_rows())]
    rows = [row | ({"extra": {"ab"[n % 4 // 2]: 1, "ba"[n % 4 // 2]: [n]}} if n % 25 == 0 else {"note": "x"} if n % 3 == 0 else {}) for n, row in enumerate(rows)]
    for n in range(3):
        write_rows(tmp_path / str(n) / "pool" / "0.jsonl", shuffled(rows, n))
        run(recipe_for(tmp_path / str(n), ids=False), tmp_path / str(n) / "run")
    assert published(tmp_path / "0" / "run") == published(tmp_path / "1" / "run") == published(tmp_path / "2" / "run")


def test_the_folder_of_the_recipe_and_of_the_run_is_nowhere_in_a_publication(tmp_path: Path) -> None:
    in_one_file(tmp_path, small_rows())
    run(recipe_for(tmp_path), tmp_path / "run")
    for file in (tmp_path / "run" / "mixture").rglob("*"):
        if file.is_file():
            assert str(tmp_path).encode() not in file.read_bytes()
            assert str(SMALL).encode() not in file.read_bytes()


def test_copies_of_one_text_share_their_fate_where_no_id_tells_them_apart(tmp_path: Path) -> None:
    rows = [{"text": f"document {n % 40} of the pool", "source": "s"} for n in range(120)]
    in_one_file(tmp_path, rows)
    run(recipe_for(tmp_path, ids=False, target=False, stages=[{"select": {"how": "random", "budget": 30}}]), tmp_path / "run")
    chosen = [row["text"] for row in published_rows(tmp_path / "run")]
    assert len(chosen) == 30
    assert sorted(chosen.count(text) for text in set(chosen)) == [3] * 10
