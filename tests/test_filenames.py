"""From the paths of a recipe to files: order, formats, and what is left out."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from curate.corpus import TEXT, load_table
from curate.errors import ConfigError, DataError
from curate.filenames import Format, format_of, list_files


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"text": "' + name + '"}\n')


def listed(folder: Path, *paths: str, format: Format | None = None) -> list[str]:
    return [os.path.relpath(path, folder) for path, _ in list_files(paths, folder, format)]


def test_folders_are_searched_recursively_and_sorted_by_path(tmp_path: Path) -> None:
    make(tmp_path, "p/b.jsonl", "p/a/z.jsonl", "p/a-b/a.jsonl", "p/a/sub/c.jsonl", "q.jsonl")
    expected = ["p/a/sub/c.jsonl", "p/a/z.jsonl", "p/a-b/a.jsonl", "p/b.jsonl"]
    assert listed(tmp_path, "p") == expected
    assert listed(tmp_path, "p/**/*.jsonl") == expected
    assert listed(tmp_path, str(tmp_path / "p")) == expected
    assert listed(tmp_path, "q.jsonl", "p") == ["q.jsonl", *expected]


def test_hidden_files_and_companions_are_left_out_of_folders(tmp_path: Path) -> None:
    make(
        tmp_path, "p/a.jsonl", "p/.hidden.jsonl", "p/_SUCCESS", "p/_meta/x.jsonl", "p/README.md", "p/LICENSE"
    )
    make(tmp_path, "p/dataset_info.json", "p/state.json", "p/.git/x.jsonl")
    assert listed(tmp_path, "p") == ["p/a.jsonl"]
    assert listed(tmp_path, "p", format="jsonl") == ["p/a.jsonl"]


def test_an_unknown_extension_says_which_are_known(tmp_path: Path) -> None:
    make(tmp_path, "p/a.jsonl", "p/b.data")
    for path in ("p", "p/b.data", "p/*"):
        with pytest.raises(ConfigError, match=r"got .*b\.data; known extensions are \.parquet.*`format:`"):
            listed(tmp_path, path)
    assert listed(tmp_path, "p", format="jsonl") == ["p/a.jsonl", "p/b.data"]


@pytest.mark.parametrize(
    "paths", [["p/a.jsonl", "p/a.jsonl"], ["p", "p/*.jsonl"], ["p/a.jsonl", "link.jsonl"]]
)
def test_a_file_named_twice_is_refused(tmp_path: Path, paths: list[str]) -> None:
    make(tmp_path, "p/a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "p/a.jsonl")
    with pytest.raises(ConfigError, match="named twice"):
        listed(tmp_path, *paths)


@pytest.mark.parametrize("path", ["nope.jsonl", "p/*.parquet", "empty", "nope/**/*.jsonl"])
def test_a_path_that_matches_nothing_is_named(tmp_path: Path, path: str) -> None:
    make(tmp_path, "p/a.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        listed(tmp_path, "p", path)
    assert repr(path) in str(caught.value)


def test_no_path_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one path"):
        listed(tmp_path)


def test_names_with_glob_characters_are_files_first(tmp_path: Path) -> None:
    make(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert listed(tmp_path, "a[1].jsonl") == ["a[1].jsonl"]


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jsonl")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/link").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    assert listed(tmp_path, "p") == ["p/link/a.jsonl"]


def test_a_broken_link_is_an_error_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl.*broken link|broken link.*x\.jsonl"):
        load_table(["x.jsonl"], base=tmp_path)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.parquet", "parquet"),
        ("A.PARQUET", "parquet"),
        ("a.arrow", "arrow"),
        ("a.feather", "arrow"),
        ("a.ipc", "arrow"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.json", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.b.jsonl.zst", "jsonl"),
        ("a.csv", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("a", None),
    ],
)
def test_the_name_says_the_format(name: str, format: str | None) -> None:
    assert format_of(name) == format


def test_compression_is_known_by_the_bytes_where_the_name_is_silent(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert load_table(["x.jsonl"], base=tmp_path).column(TEXT).to_pylist() == ["a"]
