from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from run_folders import SMALL, published, recipe_for, run, small_rows, write_rows

import curate

ROWS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": f"plain {k}"} for k in range(20)],
    "messages": [{"messages": [{"role": "user", "content": f"q{k}"}, {"role": "assistant", "content": "a"}]} for k in range(20)],
    "conversations": [{"conversations": [{"from": "human", "value": f"q{k}"}, {"from": "gpt", "value": "a"}]} for k in range(20)],
    "completion": [{"prompt": f"q{k}", "completion": "a"} for k in range(20)],
    "alpaca": [{"instruction": f"q{k}", "input": "", "output": "a"} for k in range(20)],
}


def publish(tmp_path: Path, rows: list[dict[str, Any]], *, stages: Any = (), corpus: Any = None, **emission: Any) -> tuple[Path, Any]:
    (tmp_path / "pool").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool" / "rows.parquet")
    recipe = {"name": "my-card", "corpus": {"paths": [str(tmp_path / "pool")], **(corpus or {})}, "seed": 5, "stages": list(stages), "emit": emission}
    result = curate.run(recipe, run=tmp_path / "run", workers=1)
    assert result.mixture is not None
    return result.mixture, result


def front_matter(folder: Path) -> dict[str, Any]:
    start, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert start == ""
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def table_after(folder: Path, heading: str) -> list[list[str]]:
    text = (folder / "README.md").read_text(encoding="utf-8").split(heading)[1].split("\n\n")[1]
    return [[cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")] for line in text.splitlines()[2:]]


def test_the_front_matter_names_the_files_for_load_dataset(tmp_path: Path) -> None:
    folder, _ = publish(tmp_path, ROWS["text"], name="validation")
    front = front_matter(folder)
    assert front["configs"] == [{"config_name": "default", "data_files": [{"split": "validation", "path": "data/validation-*.parquet"}]}]
    assert front["size_categories"] == ["n<1K"]
    assert list(folder.glob(front["configs"][0]["data_files"][0]["path"])) == [folder / "data" / "validation-00000-of-00001.parquet"]


def test_the_counts_are_those_of_the_funnel(tmp_path: Path) -> None:
    rows = [{"text": "x" * (k % 5 + 1), "source": ["wiki|en", "two\nlines", "c"][k % 3]} for k in range(60)]
    stages = [{"length": {"min_bytes": 2}}, {"dedup_exact": {}}, {"select": {"how": "random", "budget": 3}}]
    folder, result = publish(tmp_path, rows, stages=stages, corpus={"source": "source"})
    expected = [
        ["length", "fewer than 2 bytes", "12", "0.00"], ["dedup_exact", "copy of another document", "44", "0.00"],
        ["select", "below the cut", "1", "0.00"], ["kept", "", "3", "0.00"],
    ]  # fmt: skip
    assert table_after(folder, "## What became of the documents") == expected
    sources = table_after(folder, "## Sources")
    assert [row[:2] for row in sources] == [["c", "20"], ["two lines", "20"], ["wiki\0en", "20"]]
    assert sum(int(row[2]) for row in sources) == 3
    funnel = result.sql("SELECT stage, sum(documents)::BIGINT AS n FROM funnel GROUP BY position, stage ORDER BY position").rows()
    assert [(row[0], int(row[2])) for row in expected] == [tuple(r) for r in funnel]


def test_settings_stand_in_the_card_and_paths_do_not(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    pq.write_table(pa.table({"id": [f"plain {k}" for k in range(20)], "s": [float(k) for k in range(20)]}), tmp_path / "secret" / "scores.parquet")
    by = {"file": str(tmp_path / "secret" / "scores.parquet"), "column": "s"}
    folder, _ = publish(tmp_path, ROWS["text"], stages=[{"select": {"by": by, "budget": 4, "as": "mine"}}], corpus={"id": "text"})
    text = (folder / "README.md").read_text()
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["stages"]
    assert settings[0]["select"]["by"] == {"file": "scores.parquet", "column": "s", "id": "id"}
    assert settings[0]["select"]["as"] == "mine"
    assert "Seed 5." in text
    assert "Versions: curate " in text
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"]["stages"][0]["by"]["file"] == "scores.parquet"
    assert not any(str(tmp_path).encode() in f.read_bytes() for f in folder.rglob("*") if f.is_file())


AXOLOTL: dict[str, dict[str, Any]] = {
    "text": {"type": "completion", "field": "text"},
    "messages": {"type": "chat_template", "field_messages": "messages", "message_property_mappings": {"role": "role", "content": "content"}},
    "conversations": {"type": "chat_template", "field_messages": "conversations", "message_property_mappings": {"role": "from", "content": "value"}},
    "completion": {"type": {"field_instruction": "prompt", "field_output": "completion", "format": "{instruction}\n", "no_input_format": "{instruction}\n"}},
    "alpaca": {"type": "alpaca"},
}
TURNS = {"observation_tag": "observation", "function_tag": "function_call", "system_tag": "system"}
LLAMA_FACTORY: dict[str, dict[str, Any]] = {
    "text": {"columns": {"prompt": "text"}},
    "messages": {"formatting": "sharegpt", "columns": {"messages": "messages"},
                 "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", **TURNS}},
    "conversations": {"formatting": "sharegpt", "columns": {"messages": "conversations"},
                      "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", **TURNS}},
    "completion": {"columns": {"prompt": "prompt", "response": "completion"}},
    "alpaca": {"columns": {"prompt": "instruction", "response": "output", "query": "input"}},
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_the_trainers_entries_name_the_columns_of_the_data(kind: str, tmp_path: Path) -> None:
    folder, _ = publish(tmp_path, ROWS[kind])
    entry = yaml.safe_load((folder / "trainers" / "axolotl.yaml").read_text())["datasets"]
    assert entry == [{"path": ".", "split": "train", **AXOLOTL[kind]}]
    factory = json.loads((folder / "trainers" / "dataset_info.json").read_text())
    assert factory == {"my_card": {"file_name": "../data", **LLAMA_FACTORY[kind]}}
    assert (folder / "trainers" / factory["my_card"]["file_name"]).resolve() == (folder / "data").resolve()
    stage = "`stage: pt`" if kind == "text" else "`stage: sft`"
    assert stage in (folder / "README.md").read_text()


def test_a_template_has_no_single_column_and_the_entry_says_so(tmp_path: Path) -> None:
    folder, _ = publish(tmp_path, ROWS["completion"], corpus={"text": "{prompt}\n{completion}"})
    assert "made of the columns prompt, completion" in (folder / "trainers" / "axolotl.yaml").read_text()


def test_the_card_says_which_trainer_cannot_read_compressed_json_lines(tmp_path: Path) -> None:
    folder, _ = publish(tmp_path, ROWS["text"], format="jsonl")
    assert "LLaMA-Factory does not read compressed JSON lines" in (folder / "README.md").read_text()
    assert front_matter(folder)["configs"][0]["data_files"][0]["path"] == "data/train-*.jsonl.zst"


def test_the_recipe_of_the_card_makes_the_same_data_again_from_files_cut_otherwise(tmp_path: Path) -> None:
    rows = small_rows()
    for n in range(3):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n::3])
    first = run(recipe_for(tmp_path, corpus={"license": "source", "licenses": ["maths", "notes", "Code"]}), tmp_path / "first").mixture
    write_rows(tmp_path / "other" / "all.parquet", rows[::-1])
    assert first is not None
    card = (first / "README.md").read_text()
    asked = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert asked["targets"]["maths"]["test"] == ["TEST_OF_MATHS"]
    asked["corpus"]["paths"] = [str(tmp_path / "other")]
    asked["targets"]["maths"] |= {"guide": [str(SMALL / "guide.jsonl")], "test": [str(SMALL / "test.jsonl")]}
    again = run(asked, tmp_path / "again").mixture
    assert again is not None
    for file in ("README.md", "manifest.json", "data/train-00000-of-00001.parquet"):
        assert (first / file).read_bytes() == (again / file).read_bytes(), file


def test_the_card_tells_licences_overlaps_cuts_and_the_pool(tmp_path: Path) -> None:
    test = [json.loads(line) for line in (SMALL / "test.jsonl").read_text().splitlines()]
    rows = [{"id": f"r{i}", "source": "s", "text": f"a text, number {i} of many", "terms": ["MIT", "mit ", "GPL", None][i % 4]} for i in range(40)]
    rows += [{"id": "copied", "source": "s", "text": test[0]["text"], "terms": "MIT"}]
    write_rows(tmp_path / "pool" / "a.parquet", rows)
    stages = [{"dsir": {}}, {"select": {"by": "dsir", "budget": 10}}]
    recipe = recipe_for(tmp_path, stages=stages, corpus={"license": "terms", "licenses": ["MIT"]})
    result = run(recipe, tmp_path / "run")
    folder = result.mixture
    assert folder is not None
    licences = {row[0]: row[1:3] for row in table_after(folder, "## Licences\n\nColumn `terms`; allowed: MIT.")}
    assert licences == {"mit": ["21", "10"], "gpl": ["10", "0"], "(none)": ["10", "0"]}
    assert table_after(folder, "## Overlap with the targets\n\nDocuments of the pool whose text equals one of a target's files. Copies of a test or a tuning file are dropped.") == [
        ["maths", "guide", "40", "0", "0"], ["maths", "test", "40", "1", "0"],
    ]  # fmt: skip
    low, high = result.sql("SELECT min(select_score), max(select_score) FROM selected").row(0)
    text = (folder / "README.md").read_text()
    assert f"from {low:.6g} to {high:.6g}." in text
    mark = json.loads((folder / "manifest.json").read_text())["pool"]["fingerprint"]
    assert f"Pool: 41 documents, fingerprint `{mark}`" in text
    for change in ({"text": "another"}, {"id": "other"}):
        rows[0] |= change
        write_rows(tmp_path / "pool" / "a.parquet", rows)
        changed = run(recipe, tmp_path / "run").mixture
        assert changed is not None
        assert json.loads((changed / "manifest.json").read_text())["pool"]["fingerprint"] != mark


def test_the_card_names_no_folder_that_against_names(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "a.parquet", [{"id": "x", "source": "s", "text": "a text"}])
    write_rows(tmp_path / "secret" / "old" / "b.parquet", [{"id": "y", "source": "s", "text": "another text"}])
    run(recipe_for(tmp_path, paths=("secret/old",), stages=[], target=False), tmp_path / "secret" / "run")
    stages = [{"dedup_exact": {"against": [str(tmp_path / "secret" / "run")]}}]
    folder = run(recipe_for(tmp_path, stages=stages, target=False), tmp_path / "run").mixture
    assert folder is not None
    assert not any(str(tmp_path).encode() in f.read_bytes() for f in folder.rglob("*") if f.is_file())


def test_a_setting_that_changes_no_row_is_told_as_it_is_now(tmp_path: Path) -> None:
    """A state that was frozen and one fitted anew give the same rows here; the card is that of the recipe that was run last."""
    write_rows(tmp_path / "pool" / "0.parquet", [row | {"id": str(n), "text": f"{row['text']} {n}"} for n, row in enumerate(small_rows()[:80])])
    for folder, state in (("run", "frozen"), ("run", "refit"), ("fresh", "refit")):
        run(recipe_for(tmp_path, stages=[{"dsir": {"state": state}}, {"select": {"by": "dsir", "how": "top_k", "budget": 20}}]), tmp_path / folder)
    assert published(tmp_path / "run") == published(tmp_path / "fresh")
