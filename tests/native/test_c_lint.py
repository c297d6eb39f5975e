"""Reads the C files for habits that a compiler does not check."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"
BINDING = NATIVE / "_native.c"
KERNELS = sorted(path for path in NATIVE.glob("*.[ch]") if path != BINDING)
FUNCTION_LINES = 60


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def without_comments(path: Path) -> str:
    """The code with its line numbers: comments become as many empty lines."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lengths: a function opens on a line at the margin that ends in '{', and closes with '}' at the margin."""
    opened: tuple[str, int] | None = None
    before = ""
    for number, line in enumerate(without_comments(path).splitlines()):
        if opened is None and line.endswith("{") and not line.startswith((" ", "typedef", "struct", "enum")):
            name = re.search(r"(\w+)\s*\(", before + line)
            if name and "=" not in line:
                opened = (name[1], number)
        elif opened and line.startswith("}"):
            yield opened[0], number - opened[1] + 1
            opened = None
        before = line if line and not line.endswith((";", "}")) else ""


def test_the_lint_sees_the_functions() -> None:
    names = {name for name, _ in functions(BINDING)}
    assert {"text_hold", "py_ngrams_score", "noise_call", "module_exec"} <= names
    assert {"fill", "block_mixed", "tokens_next"} <= {name for name, _ in functions(NATIVE / "tokens.c")}


@pytest.mark.parametrize("path", [BINDING, *KERNELS], ids=lambda path: path.name)
def test_functions_are_of_a_human_size(path: Path) -> None:
    assert [found for found in functions(path) if found[1] > FUNCTION_LINES] == []


def test_every_capsule_is_checked_at_once() -> None:
    lines = lines_of(BINDING)
    for number, line in enumerate(lines):
        if "PyCapsule_GetPointer" in line:
            assert re.match(r"\s*if \(!\w+\)", lines[number + 1]), f"line {number + 1}: {line}"


def test_nothing_leaves_or_touches_python_while_the_gil_is_released() -> None:
    inside = False
    for number, line in enumerate(lines_of(BINDING), 1):
        if "Py_BEGIN_ALLOW_THREADS" in line:
            assert not inside, f"line {number}"
            inside = True
        elif "Py_END_ALLOW_THREADS" in line:
            assert inside, f"line {number}"
            inside = False
        elif inside:
            assert not re.search(r"\b(return|goto|break|Py[A-Z]?\w*_\w+)\b", line), f"line {number}: {line}"
    assert not inside


def test_every_arrow_buffer_is_read_with_its_offset_in_mind() -> None:
    reads = [line for line in lines_of(BINDING) if "->buffers[" in line]
    assert len(reads) >= 4
    assert [line for line in reads if "offset" not in line] == []


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_kernels_know_neither_python_nor_memory_management(path: Path) -> None:
    code = without_comments(path)
    assert "Python.h" not in code
    for word in (
        r"\bPy\w+",
        r"\bmalloc\b",
        r"\bcalloc\b",
        r"\brealloc\b",
        r"\bfree\b",
        r"\berrno\b",
        r"\bexit\b",
        r"\bprintf\b",
    ):
        assert not re.search(word, code), f"{path.name} uses {word}"


@pytest.mark.parametrize("path", [BINDING, *KERNELS], ids=lambda path: path.name)
def test_there_are_no_global_variables(path: Path) -> None:
    """At the margin, what is not a function, type or preprocessor line is const, or one of Python's own tables."""
    for line in without_comments(path).splitlines():
        if re.match(r"(static )?[a-zA-Z_][\w ]*[\w\]] = |static [a-z_0-9 ]+\w(\[\w*\])?;", line):
            known = re.search(r"\bconst\b|PyMethodDef|PyModuleDef", line)
            assert known, f"{path.name}: {line}"


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_every_kernel_begins_with_its_contract(path: Path) -> None:
    first = lines_of(path)[0]
    header = path.with_suffix(".h")
    assert first.startswith("/*") or (
        path.suffix == ".c" and header.exists() and lines_of(header)[0].startswith("/*")
    )


def test_the_build_is_portable_and_lists_every_file() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        (extension,) = tomllib.load(file)["tool"]["setuptools"]["ext-modules"]
    flags = " ".join(extension["extra-compile-args"])
    assert "-ffp-contract=off" in flags
    assert "-march" not in flags
    assert "fast-math" not in flags
    assert sorted(extension["sources"]) == sorted(f"native/{path.name}" for path in NATIVE.glob("*.c"))
    assert sorted(extension["depends"]) == sorted(f"native/{path.name}" for path in NATIVE.glob("*.h"))
