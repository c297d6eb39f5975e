"""`curate train` as it is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import curate
from curate.cli import main
from curate.errors import ConfigError
from curate.pipelines.train import settings, spec_of

WORDS = [
    "config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 48}", "batch_tokens=64", "steps=3", "precision=fp32",
]  # fmt: skip


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    return int(str(ended.value.code))


def table(folder: Path) -> Path:
    rows = [[(i + j) % 20 for j in range(16)] for i in range(12)]
    pq.write_table(pa.table({"input_ids": rows}), folder / "tokens.parquet")
    return folder / "tokens.parquet"


def test_the_command_trains_and_the_same_again_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(table(tmp_path)), *(w for word in WORDS for w in ("--set", word))]
    assert call(*words) == 0
    first = capsys.readouterr()
    assert "train: step 3 of 3: loss" in first.err
    assert (tmp_path / "models" / "tokens" / "model" / "model.safetensors").is_file()
    assert call(*words) == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert again.out == first.out


def test_wrong_words_are_told_together_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(str(table(tmp_path)), "--set", "stepps=3", "--set", "schedule=round") == 2
    said = capsys.readouterr().err
    assert "did you mean 'steps'" in said
    assert "expected one of cosine, linear, wsd, constant" in said
    assert call(str(tmp_path / "nothing")) == 2


def test_settings_nest() -> None:
    assert settings(["adapter.r=8", "train.steps=2"]) == {"adapter": {"r": 8}, "steps": 2}
    with pytest.raises(ConfigError, match=r"expected a\.b=value"):
        settings(["steps"])
    assert spec_of({"steps": 2}).steps == 2


def test_the_recipe_side_loads_no_model_library() -> None:
    program = "import sys, curate.pipelines.train; sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


SMALL = {"config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}, "batch_tokens": 64, "steps": 3, "precision": "fp32"}


def recipe(folder: Path, train: Mapping[str, Any] | None = SMALL, columns: Mapping[str, Any] | None = None) -> Path:
    """A pool of forty documents with their tokens, of which thirty are long enough."""
    rows = [{"text": f"document {i} " + "x" * i, "input_ids": [(i + j) % 20 for j in range(16)]} for i in range(40)]
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in (columns or rows[0])}), folder / "pool.parquet")
    values = {"corpus": {"paths": ["pool.parquet"]}, "seed": 5, "stages": [{"length": {"min_bytes": 22}}]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values | ({"train": dict(train)} if train is not None else {})))
    return folder / "recipe.yaml"


def test_a_recipe_is_carried_out_and_its_mixture_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert call(str(recipe(tmp_path)), "--run", str(run), "--workers", "1") == 0
    kept = curate.open_run(run).sql("SELECT count(*) FROM selected").item()
    assert 0 < kept < 40
    key = (run / "model").readlink().parts[1]
    assert (run / "model" / "config.json").is_file()
    with duckdb.connect(str(run / "catalog.duckdb"), read_only=True) as con:
        found = con.sql("SELECT model, step, loss > 0, tokens FROM training ORDER BY step").fetchall()
    assert found == [(key, 1, True, 64), (key, 2, True, 128), (key, 3, True, 192)]
    assert curate.open_run(run).sql("SELECT count(*) FROM training").item() == 3
    capsys.readouterr()

    # the run's folder instead of the recipe is the same training; another setting is another one beside it
    assert call(str(run), "--set", "train.steps=3") == 0
    assert (run / "model").readlink().parts[1] == key
    assert call(str(run), "--set", "steps=2") == 0
    assert (run / "model").readlink().parts[1] != key
    assert curate.open_run(run).sql("SELECT count(*) FROM training").item() == 5
    assert curate.run(tmp_path / "recipe.yaml", run=run, workers=1).outcome.kept == kept
    assert curate.open_run(run).sql("SELECT count(DISTINCT model) FROM training").item() == 2
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(run)])
    assert ended.value.code in (0, None)


def test_a_recipe_without_a_section_or_a_mixture_without_tokens_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(str(recipe(tmp_path, train=None)), "--run", str(tmp_path / "a")) == 2
    assert "expected a section train" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert call(str(recipe(tmp_path, columns={"text": ""})), "--run", str(tmp_path / "b"), "--workers", "1", "-q") == 2
    assert "expected a mixture with tokens" in capsys.readouterr().err
    assert call(str(recipe(tmp_path, train={"stepps": 3, **SMALL})), "--run", str(tmp_path / "c")) == 2
    assert "train.stepps: unknown setting; did you mean 'steps'" in capsys.readouterr().err


def test_torchrun_is_given_a_run_not_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert call(str(recipe(tmp_path)), "--run", str(tmp_path / "a")) == 2
    assert "torchrun -m curate train RUN" in capsys.readouterr().err
