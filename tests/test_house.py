"""The house's own rules: where imports point, what an import loads, what files may be called, who may print."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted(p for p in (ROOT / "curate").glob("*.py"))
SCORERS = sorted((ROOT / "scorers").glob("*.py"))
PIPELINES = sorted((ROOT / "pipelines").glob("*.py"))
#: Who writes on the terminal, and ends the process: the command and what it shows.
SPEAKERS = {"__main__.py", "cli.py", "show.py"}
#: Tests of something that is no single module: a promise, a document, a sample.
OF_PROMISES = {
    "arrow_edge", "bad_input", "c_lint", "changing_input", "damage", "data_samples", "demo", "docs", "faults", "figures", "fuzz", "house", "invariance", "kill", "run", "scheduling", "sequences", "wheel",
}


def imports(file: Path, *, lazy: bool) -> Iterator[str]:
    """The modules that a file imports: when it is imported itself, or also later, inside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or (not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            skipped |= {inner for inner in ast.walk(node) if inner is not node}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reaches(file: Path, package: str, *, lazy: bool) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imports(file, lazy=lazy))


@pytest.mark.parametrize("file", CORE, ids=lambda f: f.name)
def test_the_core_imports_neither_scorers_nor_pipelines_when_it_is_imported(file: Path) -> None:
    for package in ("curate.scorers", "curate.pipelines"):
        assert not reaches(file, package, lazy=False), package


@pytest.mark.parametrize("file", CORE, ids=lambda f: f.name)
def test_the_core_names_no_scorer_at_all(file: Path) -> None:
    assert not reaches(file, "curate.scorers", lazy=True)


@pytest.mark.parametrize("file", CORE, ids=lambda f: f.name)
def test_the_core_reaches_into_pipelines_only_to_publish_to_compare_and_to_show(file: Path) -> None:
    if reaches(file, "curate.pipelines", lazy=True):
        assert file.name in {"runner.py", "api.py", "cli.py", "show.py"}


@pytest.mark.parametrize("file", SCORERS, ids=lambda f: f.name)
def test_scorers_never_import_pipelines(file: Path) -> None:
    assert not reaches(file, "curate.pipelines", lazy=True)


@pytest.mark.parametrize("file", [*CORE, *SCORERS, *PIPELINES], ids=lambda f: f"{f.parent.name}/{f.name}")
def test_nothing_imports_the_bare_folder_names_or_everything(file: Path) -> None:
    for package in ("scorers", "pipelines", "tests", "benchmarks"):
        assert not reaches(file, package, lazy=True)
    assert not any(name.endswith(".*") for name in imports(file, lazy=True))


@pytest.mark.parametrize("file", [*CORE, *SCORERS, *PIPELINES], ids=lambda f: f"{f.parent.name}/{f.name}")
def test_every_module_says_what_it_is(file: Path) -> None:
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert said
    assert said.split("\n")[0].endswith((".", ":", "`", "?"))


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    for folder in ("curate", "scorers", "pipelines", "native", "tests", "benchmarks", "data_samples"):
        for file in (ROOT / folder).rglob("*.[pch]*"):
            if "__pycache__" not in file.parts:
                assert file.stem not in drawers, file


def calls(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("file", [*CORE, *SCORERS, *PIPELINES], ids=lambda f: f"{f.parent.name}/{f.name}")
def test_the_library_never_prints_and_takes_over_no_logging(file: Path) -> None:
    if file.name in SPEAKERS:
        return
    for name in calls(file):
        assert name not in {"print", "click.echo", "logging.basicConfig", "exit", "sys.exit", "os._exit", "quit", "breakpoint"}, name
        assert not name.startswith(("sys.stdout.", "sys.stderr.", "logging.getLogger().", "warnings.simplefilter")), name


@pytest.mark.parametrize("file", [*CORE, *SCORERS, *PIPELINES], ids=lambda f: f"{f.parent.name}/{f.name}")
def test_nothing_is_left_to_do(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert word not in text, word
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert not ast.unparse(node.exc).startswith("NotImplemented"), node.lineno


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_curate_loads_nothing_heavy() -> None:
    loaded = modules_after("import curate")
    heavy = {"torch", "sklearn", "transformers", "faiss", "fasttext", "duckdb", "pyarrow", "polars", "numpy", "yaml", "click", "rich"}
    assert loaded & heavy == set()


def test_help_loads_no_table_library() -> None:
    loaded = modules_after("from curate.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass")
    assert loaded & {"pyarrow", "duckdb", "polars", "numpy", "torch", "rich"} == set()


def test_a_whole_run_loads_no_model_library() -> None:
    loaded = modules_after("import curate.api, curate.runner, curate.pipelines.emit, curate.pipelines.compare\nfrom curate import registry\nregistry.known()")
    assert loaded & {"torch", "sklearn", "transformers", "faiss", "fasttext", "pandas"} == set()


def test_what_curate_offers_is_there_and_nothing_else() -> None:
    import curate

    for name in curate.__all__:
        assert getattr(curate, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = curate.nothing


@pytest.mark.parametrize("name", ["scorers", "pipelines"])
def test_the_folders_are_no_top_level_packages(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert f"import curate.{name}, not {name}" in done.stderr


def test_the_symlinks_that_let_readers_follow_are_relative() -> None:
    for name in ("scorers", "pipelines"):
        link = ROOT / "curate" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_every_test_file_is_of_a_module_or_of_a_promise() -> None:
    stems = {p.stem for p in [*CORE, *SCORERS, *PIPELINES, *(ROOT / "native").glob("*.c")]}
    for file in (ROOT / "tests").rglob("test_*.py"):
        assert file.stem.removeprefix("test_") in stems | OF_PROMISES, file
