"""Stages by name, from a module, and from a user's own file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curate import registry
from curate.errors import ConfigError

STAGE = "class Mine:\n    version = 1\n\n    class Params:\n        pass\n"


def test_the_built_in_stages_are_known_by_the_methods_names() -> None:
    assert {"length", "dedup_exact", "dsir", "select"} <= set(registry.known())
    assert registry.lookup("dsir").__module__ == "curate.scorers.dsir"


def test_a_name_taken_twice_names_both_modules() -> None:
    class Other:
        pass

    with pytest.raises(ConfigError, match=r"two stages are named 'dsir': curate\.scorers\.dsir and test_registry"):
        registry.register("dsir")(Other)
    assert registry.lookup("dsir").__module__ == "curate.scorers.dsir"


def test_an_unknown_name_is_told_with_the_nearest_and_the_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown stage 'dsri'; did you mean 'dsir'\? \(known: .*length"):
        registry.lookup("dsri")


def test_a_file_is_found_from_the_recipes_folder_and_its_bytes_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STAGE)
    cls = registry.lookup("mine.py:Mine", tmp_path)
    assert cls.name == "mine"  # type: ignore[attr-defined]
    first = registry.source_hash(cls)
    assert len(first) == 32
    (tmp_path / "mine.py").write_text(STAGE.replace("1", "2"))
    edited = registry.lookup("mine.py:Mine", tmp_path)
    assert edited.version == 2  # type: ignore[attr-defined]
    assert registry.source_hash(edited) != first
    assert registry.source_hash(cls) == first
    assert not (tmp_path / "__pycache__").exists()
    assert registry.source_hash(registry.lookup("dsir")) == ""


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(STAGE + f"    where = {name!r}\n")
    found = [registry.lookup("mine.py:Mine", tmp_path / name).where for name in ("a", "b")]  # type: ignore[attr-defined]
    assert found == ["a", "b"]


def test_a_class_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STAGE)
    with pytest.raises(ConfigError, match=r"has no class 'Mien'; did you mean 'Mine'\?"):
        registry.lookup("mine.py:Mien", tmp_path)
    with pytest.raises(ConfigError, match="expected a Python file with a stage, got nothing at"):
        registry.lookup("yours.py:Mine", tmp_path)


def test_looking_up_names_imports_no_model_library() -> None:
    program = "import sys; from curate import registry; registry.known(); print([m for m in ('torch', 'sklearn', 'transformers', 'duckdb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
