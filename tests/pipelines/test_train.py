"""`curate train` as it is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
