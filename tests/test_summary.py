"""The summary for machines: one JSON object, also of a run that failed, to a file that is checked first."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from run_folders import call, counts, recipe_for, small_rows, write_recipe, write_rows

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in two files, and a recipe."""
    rows = small_rows()
    for n in range(2):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n::2])
    write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path))
    return tmp_path


def told(pool: Path, *words: object, recipe: str = "recipe.yaml") -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = call("run", pool / recipe, "--run", pool / "run", "--workers", 1, "-q", "--summary-json", pool / "s.json", *words)
    assert sorted(p.name for p in pool.iterdir() if "making" in p.name) == []
    return done, json.loads((pool / "s.json").read_text())


def test_the_summary_of_a_run_says_what_its_folder_says(pool: Path) -> None:
    done, found = told(pool)
    assert (done.returncode, found["exit_code"], found["error"], found["unchanged"]) == (0, 0, None, False)
    assert (found["run"], found["recipe"]) == (str(pool / "run"), str(pool / "recipe.yaml"))
    assert found["documents"] == 599
    assert {(d["stage"], d["reason"]): d["documents"] for d in found["dropped"]} | {("kept", None): found["kept"]} == counts(pool / "run")
    assert found["published"] == str((pool / "run" / "mixture").resolve())
    assert found["parts"] == {"read": 2, "unchanged": 0, "renamed": 0, "changed": 0, "new": 2, "removed": 0}
    assert [s["label"] for s in found["stages"]] == ["quarantine", "overlap", "length", "dedup_exact", "dsir", "select"]
    _, again = told(pool)
    assert again["unchanged"]
    assert again["parts"] == {"read": 0, "unchanged": 2, "renamed": 0, "changed": 0, "new": 0, "removed": 0}
    same = ("documents", "kept", "bytes", "dropped", "published", "warnings")
    assert {k: again[k] for k in same} == {k: found[k] for k in same}


def test_its_keys_are_those_of_the_page(pool: Path) -> None:
    _, found = told(pool)
    _, _, rest = (DOCS / "cli.md").read_text().partition("\n## The summary\n")
    table = rest.partition("\n## ")[0]
    keys = [key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)]
    assert sorted(keys) == sorted(found)
    for key in [*found["parts"], *found["stages"][0], *found["dropped"][0]]:
        assert f"`{key}`" in table


def test_a_run_that_fails_says_so_in_the_summary_with_its_exit_code(pool: Path) -> None:
    write_rows(pool / "pool" / "bad.jsonl", [{"id": "x", "source": "web", "text": None}])
    done, found = told(pool)
    assert done.returncode == found["exit_code"] == 3
    assert found["error"]["kind"] == "DataError"
    assert "bad.jsonl" in found["error"]["message"]
    assert [found[k] for k in ("run", "unchanged", "documents", "parts", "stages", "dropped", "published", "warnings")] == [None] * 8


def test_a_recipe_that_is_wrong_says_so_too(pool: Path) -> None:
    write_recipe(pool / "wrong.yaml", recipe_for(pool, stages=[{"lenght": {}}]))
    done, found = told(pool, recipe="wrong.yaml")
    assert done.returncode == found["exit_code"] == 2
    assert (found["error"]["kind"], "lenght" in found["error"]["message"]) == ("ConfigError", True)


@pytest.mark.parametrize("where", ["nowhere/s.json", "pool"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(pool: Path, where: str) -> None:
    done = call("run", pool / "recipe.yaml", "--run", pool / "run", "--summary-json", pool / where)
    assert done.returncode == 2
    assert "--summary-json: expected" in done.stderr
    assert not (pool / "run").exists()


def test_an_interrupted_run_says_130(pool: Path) -> None:
    (pool / "slow.py").write_text(
        "import os, signal\nimport msgspec\nimport pyarrow as pa\n\n\n"
        "class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):\n    pass\n\n\n"
        "class Stop:\n    version = 1\n    Params = Params\n\n"
        "    def __init__(self, params, context):\n        pass\n\n"
        "    def reads(self):\n        return ['__text__']\n\n"
        "    def fields(self):\n        return pa.schema([('value', pa.int64())])\n\n"
        "    def apply(self, state, batch):\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return pa.record_batch([pa.array([0] * batch.num_rows)], names=['value'])\n"
    )
    write_recipe(pool / "recipe.yaml", recipe_for(pool, stages=[{f"{pool / 'slow.py'}:Stop": {}}]))
    done, found = told(pool)
    assert done.returncode == found["exit_code"] == 130
