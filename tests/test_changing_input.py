"""Inputs that vanish or change while a run works: refused by name, and what was stored is not of the wrong text."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from faulty import run_words
from run_folders import (
    call,
    check_final_names,
    end_group,
    lasting,
    leftovers,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

TESTS = Path(__file__).parent
STAGES = [{"length": {"min_bytes": 20}}, {f"{TESTS / 'gate.py'}:Gate": {}}, {"dedup_exact": {}}, {"dsir": {}}]
LATER, NOW = "2.parquet", "0.parquet"  # the gate stands in the first part: it is being read, the third is not yet


def vanish(file: Path) -> None:
    file.unlink()


def shrink(file: Path) -> None:
    pq.write_table(pq.read_table(file)[:5], file)


def grow(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.take([*range(table.num_rows), 0]), file)


def other_text_of_equal_size(file: Path) -> None:
    """As many bytes, another letter, and the time as it was."""
    then = file.stat()
    content = bytearray(file.read_bytes())
    at = next(i for i in range(200, len(content)) if content[i : i + 2] == b"e ")
    content[at] = ord("a")
    file.write_bytes(bytes(content))
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))


@pytest.mark.parametrize("which", [NOW, LATER])
@pytest.mark.parametrize("change", [vanish, shrink, grow, other_text_of_equal_size], ids=lambda change: change.__name__)
def test_an_input_that_changes_while_it_is_read_is_refused_by_name(tmp_path: Path, change: Callable[[Path], None], which: str) -> None:
    for n in range(3):
        rows = [row | {"id": f"{row['id']}-{n}"} for row in small_rows()[n * 60 : n * 60 + 60]]
        path = write_rows(tmp_path / "pool" / f"{n}.parquet", rows)
        pq.write_table(pq.read_table(path), path, compression="none", use_dictionary=False, write_page_checksum=False)
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=STAGES, ids=False))
    changed, run = tmp_path / "pool" / which, tmp_path / "run"
    before = changed.read_bytes()
    for name in ("reached", "open"):
        os.mkfifo(tmp_path / name)
    process = subprocess.Popen(run_words(recipe, run, workers=1), stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        (tmp_path / "reached").read_text()  # returns when the run stands at the gate
        change(changed)
        (tmp_path / "open").write_text("go")
        said = process.communicate(timeout=60)[1]
    finally:
        end_group(process)
    assert process.returncode == 3, said
    assert str(changed) in said
    assert "Traceback" not in said
    assert "run again" in said or "leave it out of `paths`" in said
    assert not (run / "mixture").exists()
    check_final_names(run)
    # What the same command makes of the inputs as they are now is what a fresh run makes of them.
    if not changed.exists():
        changed.write_bytes(before)
    again = call(*run_words(recipe, run, workers=1)[3:])
    assert again.returncode == 0, again.stderr
    fresh = call(*run_words(recipe, tmp_path / "fresh", workers=1)[3:])
    assert fresh.returncode == 0, fresh.stderr
    expected, found = lasting(tmp_path / "fresh"), lasting(run)
    published = {k for k in expected if k.startswith("mixture/")}
    assert {k: found[k] for k in published} == {k: expected[k] for k in published}
    assert {k: v for k, v in found.items() if k in expected and k.startswith("store/")} == {k: v for k, v in expected.items() if k.startswith("store/")}
    assert leftovers(run) == []
