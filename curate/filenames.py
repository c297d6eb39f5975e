"""From the paths of a recipe to an ordered list of files, and what their names say of their format."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from curate.errors import ConfigError, DataError

Format = Literal["parquet", "arrow", "jsonl", "csv", "tsv"]
Compression = Literal["gzip", "zstd"]

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
COMPRESSED: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

# What stands beside the data in published folders; none of it is documents.
COMPANION_NAMES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
COMPANION_SUFFIXES = (".md", ".txt", ".crc", ".yaml", ".yml", ".py", ".lock", ".sha256", ".idx")
COMPANION_STEMS = ("license", "licence", "readme", "notice", "changelog")


def format_of(path: str) -> Format | None:
    """Return the format that a file's name says, or None for an unknown extension."""
    stem = os.path.basename(path).lower()
    root, last = os.path.splitext(stem)
    if last in COMPRESSED:
        inner = SUFFIXES.get(os.path.splitext(root)[1])
        # Parquet and Arrow compress inside; around them nothing could be read by ranges.
        return inner if inner in ("jsonl", "csv", "tsv") else None
    return SUFFIXES.get(last)


def compression_of(path: str) -> Compression | None:
    """Return how a text file is compressed: by its name, else by its first bytes."""
    by_name = COMPRESSED.get(os.path.splitext(path.lower())[1])
    if by_name is not None:
        return by_name
    with open(path, "rb") as file:
        head = file.read(4)
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def list_files(paths: Sequence[str], base: Path, format: Format | None) -> list[tuple[str, Format]]:
    """Expand files, folders and globs into (absolute path, format), in the order in which they are read.

    Folders are searched recursively; folders and globs are sorted by path. Hidden files (a leading . or
    _) and the companions of published data sets are left out of folders, not of globs or names. Raises
    ConfigError for a path that matches nothing, an unknown extension, or a file that is reached twice.
    """
    if not paths:
        raise ConfigError("expected at least one path, got none; name files, folders or globs under `paths`")
    found: list[tuple[str, Format]] = []
    seen: dict[str, str] = {}
    for given in paths:
        for path in _expand(given, base, format):
            real = os.path.realpath(path)
            if real in seen:
                also = f"{given!r}" if seen[real] == given else f"{seen[real]!r} and {given!r}"
                raise ConfigError(f"expected each file once, got {path} named twice, by {also}; name it once")
            seen[real] = given
            found.append((path, _format_or_raise(path, format)))
    return found


def _format_or_raise(path: str, format: Format | None) -> Format:
    known = format or format_of(path)
    if known is not None:
        return known
    names = ", ".join(SUFFIXES)
    raise ConfigError(
        f"expected a file of a known format, got {path}; known extensions are {names} (text also with .gz "
        f"or .zst); set `format:` to one of {', '.join(dict.fromkeys(SUFFIXES.values()))}"
    )


def _expand(given: str, base: Path, format: Format | None) -> list[str]:
    path = os.path.abspath(os.path.join(base, os.path.expanduser(given)))
    if os.path.isdir(path):
        return _folder_or_raise(given, path, format)
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(given):
        raise ConfigError(
            f"expected a file, a folder or a glob that exists, got {given!r}, which matches nothing at {path}"
        )
    files: list[str] = []
    for match in sorted(glob.glob(path, recursive=True), key=_by_parts):
        if not os.path.isdir(match):
            files.append(match)
        elif "**" not in given:
            # A glob over folders (pool/*) takes what is in them; ** has gone down by itself.
            files.extend(_walk(match, format))
    if not files:
        raise ConfigError(
            f"expected a glob that matches files, got {given!r}, which matches nothing under {base}"
        )
    return files


def _folder_or_raise(given: str, path: str, format: Format | None) -> list[str]:
    files = _walk(path, format)
    if not files:
        raise ConfigError(
            f"expected a folder with data files, got {given!r}, which has none under {path}; "
            f"known extensions are {', '.join(SUFFIXES)}"
        )
    return files


def _by_parts(path: str) -> list[str]:
    # By parts, so that a/z.jsonl stands before a-b/a.jsonl whatever the separator's place in the alphabet.
    return path.split(os.sep)


def _walk(folder: str, format: Format | None, above: tuple[str, ...] = ()) -> list[str]:
    """List the data files below a folder, following links, each folder once per branch."""
    real = os.path.realpath(folder)
    if real in above:
        return []
    files: list[str] = []
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"expected a readable folder, got {folder}: {error.strerror}; check its permissions"
        ) from error
    for name in entries:
        path = os.path.join(folder, name)
        if name.startswith((".", "_")):
            continue
        if os.path.isdir(path):
            files.extend(_walk(path, format, (*above, real)))
        elif not _is_companion(name):
            files.append(path)
    return sorted(files, key=_by_parts) if not above else files


def _is_companion(name: str) -> bool:
    low = name.lower()
    return (
        low in COMPANION_NAMES
        or low.endswith(COMPANION_SUFFIXES)
        or (low.startswith(COMPANION_STEMS) and format_of(low) is None)
    )
