"""The documentation is true: its commands, queries, code, settings and links are tried, its outputs compared.

`python tests/test_docs.py` writes the outputs of docs/sql.md anew; the difference is reviewed like code.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click
import duckdb
import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

import curate
from curate import registry, show
from curate.catalog import OpenRun
from curate.cli import cli, main
from curate.conformance import check_stage
from curate.corpus import TEXT, CorpusSpec, read_part
from curate.guards import GuardsSpec
from curate.recipe import CompareSpec, EmitSpec, TargetSpec
from curate.tokenizing import TokenizeSpec
from curate.trainspec import ForgettingSpec, TrainSpec

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SMALL = ROOT / "data_samples" / "small"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SQL_BLOCK = re.compile(r"```sql\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def sql_output(run: Path, query: str, scratch: Path) -> str:
    """What `curate sql` prints for a query."""
    out = scratch / "printed"
    show.write_table(OpenRun(run).arrow(query), "table", str(out))
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that docs/sql.md asks."""
    folder = tmp_path_factory.mktemp("docs") / "run"
    curate.run(DOCS / "examples" / "small.yaml", run=folder, workers=1)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the checkout's root, to run the blocks of a page in."""
    shutil.copytree(SMALL, tmp_path / "data_samples" / "small")
    shutil.copytree(
        DOCS / "examples", tmp_path / "docs" / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- SQL ----------------------------------------------------------------------------------------------------------

QUESTIONS = SQL_BLOCK.findall(text_of(DOCS / "sql.md"))


def test_the_page_of_queries_has_ten_at_least() -> None:
    assert len(QUESTIONS) >= 10


@pytest.mark.parametrize(("query", "printed"), QUESTIONS, ids=[f"query{i}" for i, _ in enumerate(QUESTIONS)])
def test_a_query_of_the_documentation_prints_what_the_page_shows(
    query: str, printed: str, run: Path, tmp_path: Path
) -> None:
    assert printed, "the page must show the query's output"
    assert sql_output(run, query, tmp_path) == printed


@pytest.mark.parametrize("query", [query for query, _ in QUESTIONS])
def test_a_query_of_the_documentation_gives_the_plain_client_the_same(
    query: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with duckdb.connect(str(run / "catalog.duckdb"), read_only=True) as con:
        assert con.sql(query).fetchall() == [
            tuple(row.values()) for row in OpenRun(run).arrow(query).to_pylist()
        ]


def test_the_pages_of_docs_name_every_view_and_its_columns(run: Path) -> None:
    page = text_of(DOCS / "sql.md")
    with OpenRun(run).connection(texts=True) as con:
        views = [
            row[0] for row in con.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        ]
        assert sorted(views) == ["docs", "funnel", "parts", "selected", "stages", "texts"]
        for view in ("funnel", "stages", "parts", "texts"):
            line = next(row for row in page.splitlines() if row.startswith(f"| `{view}` |"))
            for column in con.sql(f"SELECT * FROM {view} LIMIT 0").columns:
                assert f"`{column}`" in line, f"docs/sql.md does not name {view}.{column}"


def test_the_queries_in_the_commands_of_all_pages_run(run: Path) -> None:
    queries = {q for page in PAGES for q in re.findall(r'curate sql runs/\S+ "(SELECT[^"]*)"', text_of(page))}
    assert len(queries) >= 4
    for query in sorted(queries):
        if "shout" not in query:
            OpenRun(run).arrow(query)


def test_two_catalogs_attach_at_once_as_the_page_says(run: Path) -> None:
    with duckdb.connect() as con:
        for name in ("a", "b"):
            con.execute(f"ATTACH '{run / 'catalog.duckdb'}' AS {name} (READ_ONLY)")
        assert con.sql(
            "SELECT count(*) FROM a.selected JOIN b.selected USING (curate_identity)"
        ).fetchall() == [(114,)]


# -- texts through the catalog ----------------------------------------------------------------------------------------

AWKWARD = [
    "plain", "two\nlines", 'a "quoted" word, and a comma', "", " ", "Café \u2014 na\u00efve", "\u4f60\u597d", "\U0001f469\u200d\U0001f4bb", "tab\there",
    "null", "NULL", "007", "true", "{\"a\": 1}", "back\\slash \\n", "'single'", "a\r\nb", "ends with a space ", "[1, 2]", "1e5",
]  # fmt: skip


def write_corpus(file: Path, texts: list[str]) -> None:
    rows = [{"number": i, "text": text} for i, text in enumerate(texts)]
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=7)
    elif file.suffix == ".jsonl":
        file.write_bytes(
            b"".join(msgspec.json.encode(row) + b"\n\n" for row in rows)
        )  # a blank line is no row
    else:
        pa.csv.write_csv(
            pa.Table.from_pylist(rows),
            file,
            pa.csv.WriteOptions(delimiter="\t" if file.suffix == ".tsv" else ",", quoting_style="needed"),
        )


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize(
    "texts",
    [AWKWARD, [f"document {i} " + "word " * (i % 50) for i in range(20_000)]],
    ids=["awkward", "many"],
)
def test_the_plain_client_reads_the_texts_that_curate_reads(
    name: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pool").mkdir()
    write_corpus(tmp_path / "pool" / name, texts)
    write_corpus(tmp_path / "pool" / f"b{name}", texts[::-1])
    recipe = {"corpus": {"paths": [str(tmp_path / "pool")]}, "stages": [{"length": {"min_bytes": 0}}]}
    curate.run(recipe, run=tmp_path / "run", workers=1, publish=False)
    opened = OpenRun(tmp_path / "run")
    layout = opened.layout()
    expected = {
        (part.number << 32) + row: text
        for part in opened.parts()
        for row, text in enumerate(
            t for batch in read_part(layout, part) for t in batch.column(TEXT).to_pylist()
        )
    }
    assert list(expected.values()) == [*texts, *texts[::-1]]
    monkeypatch.chdir("/")
    with duckdb.connect(str(tmp_path / "run" / "catalog.duckdb"), read_only=True) as con:
        found = dict(con.sql("SELECT doc, text FROM texts").fetchall())
    assert found == expected
    table = opened.arrow("SELECT doc, text FROM texts")
    assert dict(zip(table["doc"].to_pylist(), table["text"].to_pylist(), strict=True)) == expected


def test_the_names_of_folders_and_files_mean_nothing_to_the_catalog(tmp_path: Path) -> None:
    place = tmp_path / "t=20" / "it's [1]*"  # a partition's name, a quote, a pattern
    (place / "pool").mkdir(parents=True)
    shutil.copy(SMALL / "pool" / "part-00000.parquet", place / "pool" / "a[1].parquet")
    (place / "pool" / "b?.jsonl").write_text('{"id": "x", "text": "a line"}\n')
    (place / "pool" / "c*.csv").write_text('id,text\ny,"a, row"\n')
    recipe = {
        "corpus": {"paths": [str(place / "pool")], "id": "id"},
        "stages": [{"length": {"min_bytes": 1}}],
    }
    curate.run(recipe, run=place / "run", workers=1, publish=False)
    with duckdb.connect(str(place / "run" / "catalog.duckdb"), read_only=True) as con:
        assert con.sql("SELECT curate_identity, text FROM texts WHERE length(curate_identity) = 1 ORDER BY 1").fetchall() == [
            ("x", "a line"), ("y", "a, row"),
        ]  # fmt: skip
        assert con.sql("SELECT count(*) FROM docs JOIN texts USING (doc)").fetchall() == [(301,)]
        assert "t" not in con.sql("SELECT * FROM docs LIMIT 0").columns


# -- code -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["README.md", "docs/python.md", "docs/dsir.md", "docs/new_scorer.md", "docs/corpora.md", "docs/leakage.md", "docs/minhash.md", "docs/stages.md"]
)
def test_the_python_of_a_page_runs(page: str, place: Path) -> None:
    found = blocks(ROOT / page, "python")
    assert found
    names: dict[str, Any] = {"__name__": "page"}
    for block in found:
        exec(compile(block, page, "exec"), names)


def test_every_page_with_python_is_run() -> None:
    with_python = {str(page.relative_to(ROOT)) for page in PAGES if blocks(page, "python")}
    run_here = {"README.md", "docs/python.md", "docs/dsir.md", "docs/new_scorer.md", "docs/corpora.md", "docs/leakage.md", "docs/minhash.md", "docs/stages.md"}
    elsewhere = {"docs/split.md"}  # needs a target file of the reader's own
    assert with_python - run_here <= elsewhere | {
        "docs/select.md",
        "docs/emit.md",
        "docs/dedup_exact.md",
        "docs/judge.md",
    }


def test_the_scorer_on_the_page_is_the_tested_file() -> None:
    assert blocks(DOCS / "new_scorer.md", "python")[0] == text_of(DOCS / "examples" / "shout.py")


def test_the_scorer_is_about_forty_lines_long() -> None:
    assert len(text_of(DOCS / "examples" / "shout.py").splitlines()) <= 45


def test_the_suite_prints_what_the_page_of_the_scorer_shows() -> None:
    lines = [
        f"{'holds' if check.holds else 'FAILS'}  {check.name}"
        for check in check_stage("shout.py:Shout", base=DOCS / "examples")
    ]
    assert "\n".join(lines) in blocks(DOCS / "new_scorer.md", "console")[0]


def test_the_recipe_with_the_scorer_gives_what_its_page_shows(place: Path) -> None:
    [recipe] = blocks(DOCS / "new_scorer.md", "yaml")
    without_comments = "".join(
        line for line in text_of(DOCS / "examples" / "calm.yaml").splitlines(True) if not line.startswith("#")
    )
    assert recipe == without_comments
    curate.run("docs/examples/calm.yaml", run="runs/calm", workers=1)
    shown = blocks(DOCS / "new_scorer.md", "console")[1]
    [query] = re.findall(r'curate sql runs/calm "(.*?)"', shown)
    assert shown.endswith(sql_output(Path("runs/calm"), query, place))


# -- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "docs/recipe.md"])
def test_the_recipe_on_the_page_works_as_it_stands(page: str, tmp_path: Path) -> None:
    recipe = blocks(ROOT / page, "yaml")[0]
    assert yaml.safe_load(recipe)["stages"][2] == {"dsir": {"hash": "sha256"}}
    (tmp_path / "recipe.yaml").write_text(recipe)
    shutil.copytree(SMALL, tmp_path, dirs_exist_ok=True)
    result = curate.run(tmp_path / "recipe.yaml", run=tmp_path / "run", workers=1)
    assert result.outcome.documents == 599
    assert result.outcome.kept == 28  # 5 % of the 572 that are eligible, rounded down


def test_the_page_of_recipes_shows_the_problems_as_they_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {
        "corpus": {"paths": [str(SMALL / "pool")]},
        "stages": [{"length": {"min_byte": 20}}, {"dsir": {"ngrams": "two"}}, {"selekt": {}}],
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(curate.ConfigError) as failed:
        curate.check("recipe.yaml")
    shown = re.sub(
        r"^  ",
        "",
        re.findall(r"```text\n(.*?)```", text_of(DOCS / "recipe.md"), re.DOTALL)[0],
        flags=re.MULTILINE,
    )
    assert f"error: {failed.value}" == shown.strip()


SECTIONS: list[tuple[str, type]] = [
    ("corpus", CorpusSpec), ("targets", TargetSpec), ("emit", EmitSpec), ("compare", CompareSpec), ("guards", GuardsSpec),
    *((name, cls.Params) for name, cls in registry.known().items()),  # type: ignore[attr-defined]
]  # fmt: skip


def table_under(page: Path, heading: str) -> dict[str, list[str]]:
    """The first table below a heading: its rows by the word in the first cell."""
    _, _, rest = text_of(page).partition(f"\n{heading}\n")
    assert rest, f"{page.name} has no heading {heading!r}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def written(field: msgspec.structs.FieldInfo) -> str:
    """A default as the page writes it."""
    if field.required:
        return "needed"
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return f"`{default}`" if isinstance(default, str) else msgspec.json.encode(default).decode()


@pytest.mark.parametrize(("name", "struct"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_every_setting_stands_on_the_page_with_its_default(name: str, struct: type) -> None:
    found = {key.strip("`"): row[0] for key, row in table_under(DOCS / "recipe.md", f"### {name}").items()}
    assert found == {field.encode_name: written(field) for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(("name", "struct"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_every_word_that_a_setting_may_be_stands_on_the_page(name: str, struct: type) -> None:
    rows = {
        key.strip("`"): " ".join(row) for key, row in table_under(DOCS / "recipe.md", f"### {name}").items()
    }
    for setting, hint in get_type_hints(struct).items():
        for word in words_in(hint):
            assert f"`{word}`" in rows[setting] or setting == "format", (
                f"{name}.{setting} may be {word}; the page does not say so"
            )


def words_in(hint: Any) -> list[str]:
    from typing import Literal

    members = [
        hint,
        *get_args(hint),
        *(inner for arg in get_args(hint) for inner in get_args(arg) if get_origin(arg) is not Literal),
    ]
    return [str(word) for member in members if get_origin(member) is Literal for word in get_args(member)]


def test_the_options_of_dsir_stand_on_its_own_page_with_their_defaults() -> None:
    found = {key.strip("`"): row[0] for key, row in table_under(DOCS / "dsir.md", "## Options").items()}
    params = registry.lookup("dsir").Params  # type: ignore[attr-defined]
    assert found == {field.encode_name: written(field) for field in msgspec.structs.fields(params)}


@pytest.mark.parametrize(
    ("page", "heading", "struct"),
    [("train.md", "## Settings", TrainSpec), ("train.md", "## Forgetting", ForgettingSpec), ("tokenize.md", "## Settings", TokenizeSpec)],
)
def test_the_settings_of_a_training_and_its_data_stand_on_their_pages_with_their_defaults(page: str, heading: str, struct: type) -> None:
    rows = table_under(DOCS / page, heading)
    assert {key.strip("`"): row[0] for key, row in rows.items()} == {f.encode_name: written(f) for f in msgspec.structs.fields(struct)}
    for setting, hint in get_type_hints(struct).items():
        for word in words_in(hint):
            assert f"`{word}`" in " ".join(rows[f"`{setting}`"]), f"{setting} may be {word}"


# -- the command ------------------------------------------------------------------------------------------------------


def section_of(command: str) -> str:
    page = text_of(DOCS / "cli.md")
    _, _, rest = page.partition(f"\n## curate {command}\n")
    assert rest, f"docs/cli.md has no section on curate {command}"
    return rest.split("\n## ")[0]


def test_the_page_of_the_command_has_every_command_and_no_other() -> None:
    assert set(re.findall(r"^## curate (\w+)$", text_of(DOCS / "cli.md"), re.MULTILINE)) == set(cli.commands)
    assert set(re.findall(r"^\| `curate (\w+)", text_of(ROOT / "README.md"), re.MULTILINE)) == set(
        cli.commands
    )


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_a_command_has_the_options_that_its_section_says(command: str) -> None:
    options = [p for p in cli.commands[command].params if isinstance(p, click.Option)]
    rows = re.findall(r"^\| (`-.*?) \| (.*?) \|", section_of(command), re.MULTILINE)
    documented = {word for cell, _ in rows for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}
    assert documented == {word for option in options for word in option.opts}
    defaults = {re.findall(r"--[a-z-]+", cell)[0]: said for cell, said in rows}
    for option in options:
        said = defaults[next(word for word in option.opts if word.startswith("--"))]
        if option.required:
            assert said == "needed"
        elif option.show_default:
            assert said.strip("`") == str(option.default)


def test_every_call_of_the_command_on_any_page_has_known_words() -> None:
    calls = 0
    for page in PAGES:
        for line in re.findall(r"^(?:    |\$ |  \$ )(curate [a-z]+ .*)$", text_of(page), re.MULTILINE):
            words = shlex.split(line.replace("...", ""), comments=True)
            assert words[1] in cli.commands, f"{page.name}: {line}"
            known = {word for p in cli.commands[words[1]].params for word in p.opts} | {"--help"}
            used = {
                word.split("=")[0].strip("[]")
                for word in words[2:]
                if word.strip("[").startswith("-") and len(word.strip("[-")) > 0
            }
            assert used <= known, f"{page.name}: {line}"
            calls += 1
    assert calls > 15


def test_the_exit_codes_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \|", text_of(DOCS / "cli.md"), re.MULTILINE)
    assert rows == ["0", "1", "2", "3", "74", "75", "130"]
    for error in (
        curate.ConfigError,
        curate.DataError,
        curate.StageError,
        curate.InternalError,
        curate.MachineError,
        curate.RunHeldError,
    ):
        assert str(error.exit_code) in rows
        assert f"`{error.__name__}`" in text_of(DOCS / "python.md")


def test_the_events_of_a_run_are_those_on_the_page(run: Path, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    curate.run(DOCS / "examples" / "small.yaml", run=tmp_path / "run", workers=1, listener=heard.append)
    _, _, rest = text_of(DOCS / "cli.md").partition("\n## Events\n")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", rest, re.MULTILINE))
    assert {event["event"] for event in heard} <= set(rows)
    for event in heard:
        for value in set(event) - {"time", "event"}:
            assert f"`{value}`" in rows[event["event"]], f"{event['event']}.{value}"


def test_help_answers_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("", *cli.commands):
        with pytest.raises(SystemExit) as ended:
            main([*([command] if command else []), "--help"])
        assert ended.value.code == 0
        assert "Usage:" in capsys.readouterr().out


def test_the_functions_of_the_python_page_have_the_arguments_it_says() -> None:
    import inspect

    for call in re.findall(
        r"^    curate\.(\w+\([^)]*\)(?:,[^)]*\))?) ->", text_of(DOCS / "python.md"), re.MULTILINE
    ):
        name, _, said = call.partition("(")
        said_names = [
            part.split("=")[0].strip()
            for part in re.sub(r"\(\)", "", said).rstrip(")").split(",")
            if part.strip()
        ]
        said_names = [n for n in said_names if n not in ("*", "")]
        assert said_names == list(inspect.signature(getattr(curate, name)).parameters), name


# -- the run folder ---------------------------------------------------------------------------------------------------


def test_every_file_of_a_run_folder_stands_on_its_page(run: Path) -> None:
    page = blocks(DOCS / "run_folder.md", "text")[0]
    for path in run.iterdir():
        if path.name not in (".docs", ".sql"):
            assert path.name in page, f"docs/run_folder.md does not name {path.name}"
    for path in (run / "mixture").iterdir():
        assert path.name in page


def test_what_the_page_calls_safe_to_delete_is_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def bytes_of_the_run() -> dict[str, bytes]:
        curate.run(DOCS / "examples" / "small.yaml", run=folder, workers=1)
        files = [
            folder / "funnel.parquet",
            *sorted((folder / "docs").iterdir()),
            *sorted((folder / "mixture").rglob("*")),
        ]
        return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}

    before = bytes_of_the_run()
    for names in (
        ["store"],
        ["mixtures"],
        ["docs", ".docs", "catalog.duckdb"],
        ["events.jsonl"],
        ["parts.parquet", "files.json"],
    ):
        for name in names:
            path = folder / name
            assert f"`{name}" in text_of(DOCS / "run_folder.md")
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if names == ["store"]:
            assert OpenRun(folder).arrow("SELECT count(*) AS n FROM selected")["n"].to_pylist() == [114]
        assert bytes_of_the_run() == before, names


# -- links ------------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links() -> list[tuple[Path, str]]:
    return [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page))
        if "://" not in link
    ]


@pytest.mark.parametrize(("page", "link"), links(), ids=lambda value: str(getattr(value, "name", value)))
def test_a_link_leads_somewhere(page: Path, link: str) -> None:
    file, _, heading = link.partition("#")
    to = (page.parent / file) if file else page
    assert to.exists(), f"{page.name} links to {link}"
    if heading:
        headings = re.findall(r"^#+ (.*)$", text_of(to), re.MULTILINE)
        assert heading in [anchor(h) for h in headings], f"{page.name} links to {link}"


def test_the_map_names_every_page() -> None:
    page = text_of(DOCS / "index.md")
    assert [p.name for p in DOCS.glob("*.md") if p.name != "index.md" and f"({p.name})" not in page] == []


def test_the_tree_in_the_readme_is_the_tree() -> None:
    tree = next(block for block in blocks(ROOT / "README.md", "text") if block.startswith("curate/"))
    named = {line.split("/")[0] for line in tree.splitlines()}
    for folder in named - {"benchmarks"}:
        assert (ROOT / folder).is_dir()
    made = {"build", "dist", "runs"}
    folders = {
        path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))
    }
    folders = {name for name in folders - made if not name.endswith(".egg-info")}
    assert folders <= named


def rewrite() -> None:
    page = DOCS / "sql.md"
    with tempfile.TemporaryDirectory() as folder:
        curate.run(DOCS / "examples" / "small.yaml", run=Path(folder) / "run", workers=1)

        def block(match: re.Match[str]) -> str:
            printed = sql_output(Path(folder) / "run", match[1], Path(folder))
            return f"```sql\n{match[1]}```\n\n```text\n{printed}```\n"

        page.write_text(SQL_BLOCK.sub(block, text_of(page)), encoding="utf-8")


if __name__ == "__main__":
    os.chdir(ROOT)
    rewrite()


def test_every_row_of_the_faults_table_has_a_code_and_names_tests_that_exist() -> None:
    defined = {name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)\(", text_of(file), re.MULTILINE)}
    page = re.sub(r"\\\|", "/", text_of(DOCS / "reliability.md"))
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 25
    for row in rows:
        assert len(row) == 6, row
        assert re.search(r"\d", row[2]), row
        named = re.findall(r"`(test_\w+)`", row[4])
        assert named, row
        assert set(named) <= defined, set(named) - defined


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\n'), ("a.csv", b'text,n\r\nx,1\r\r\none,2\r\n"two",3\r\n"a ""b"" c",4\r\n'),
     ("b.jsonl", gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))],
    ids=["a mark before JSON", "odd line ends in csv", "gzip under a plain name"],
)
def test_a_file_that_the_plain_client_refuses_is_read_by_curate_sql(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / name).write_bytes(content)
    curate.run({"corpus": {"paths": [str(tmp_path / "pool")]}, "stages": []}, run=tmp_path / "run", workers=1, publish=False)
    opened = OpenRun(tmp_path / "run")
    expected = [text for part in opened.parts() for batch in read_part(opened.layout(), part) for text in batch.column(TEXT).to_pylist()]
    assert "two" in expected
    with duckdb.connect(str(tmp_path / "run" / "catalog.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = 'texts'").fetchall() == [(0,)]
    found = opened.arrow("SELECT doc, text FROM texts ORDER BY doc")
    assert found["text"].to_pylist() == expected
