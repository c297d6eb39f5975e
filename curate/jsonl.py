"""JSON lines: one object per line, plain, gzip or zstd; blank lines are no rows.

Two passes read a file: `scan_jsonl`, when the corpus is opened, takes every row's keys and kinds and finds
where the parts begin; `read_jsonl` makes Arrow columns of a part. Both parse with orjson, so they agree on
what a row is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from curate.decompress import Break, find_break
from curate.errors import DataError
from curate.filenames import compression_of
from curate.filescan import BLOCK_BYTES, Chunk, Places, Range, open_bytes, reading
from curate.jsonshape import RowShapes, Shape
from curate.textview import TextPlan

Row = dict[str, Any]

_BLANK = b" \t\r"
_BOM = b"\xef\xbb\xbf"


class JsonColumn(NamedTuple):
    """How a JSON column becomes an Arrow one.

    typed: every value fits `type`; json: each value as JSON text; scalar: strings as they are, other
    values as their JSON (ids and sources); string: what is no string becomes null (the text, whose bad rows
    are reported).
    """

    type: pa.DataType
    mode: Literal["typed", "json", "scalar", "string"]


class JsonScan(NamedTuple):
    """The shapes of all columns, in order of first appearance, the ranges of the parts, and where it breaks off.

    `broken` None: the whole file is sound.
    """

    columns: dict[str, Shape]
    ranges: list[Range]
    broken: Break | None = None


class Fault(NamedTuple):
    """Why a line is no row: `reason` counts alike faults together, `where` is the place within the line."""

    reason: str
    where: str


def json_kind(value: Any) -> str:
    """Return the type word that messages use for a JSON value."""
    names = {bool: "bool", int: "int64", float: "double", str: "string", list: "list", dict: "object"}
    return names.get(type(value), "null")


def parse_line(line: bytes) -> Row | Fault:
    """Parse one line that is not blank."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            return Fault("invalid UTF-8", f" at byte {wrong.start} of the line")
        return Fault(f"bad JSON: {error.msg}", f" at character {error.pos} of the line")
    return row if type(row) is dict else Fault(f"not a JSON object: {json_kind(row)}", "")


def _line_blocks(stream: Any, size: int | None, *, whole: bool = False) -> Iterator[list[bytes]]:
    """Yield the lines of the next `size` bytes, or of all, without their newlines, some at a time.

    With `whole` a last line that has no newline is left out.
    """
    held: list[bytes] = []
    left = size
    while left is None or left > 0:
        data = stream.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left))
        if not data:
            break
        if left is not None:
            left -= len(data)
        lines = data.split(b"\n")
        last = lines.pop()
        if lines:
            # Joined once per line, so that a line of many blocks is not copied once per block.
            lines[0] = b"".join([*held, lines[0]])
            held = []
            yield lines
        held.append(last)
    rest = b"".join(held)
    if rest and not whole:
        yield [rest]


def _is_blank(line: bytes) -> bool:
    return line[:1] != b"{" and not line.strip(_BLANK)


def scan_jsonl(path: str, part_bytes: int, *, strict: bool) -> JsonScan:
    """Read a whole file once: every row's keys and kinds, and the line boundaries that cut it into parts.

    A compressed file is one range, 0..0. With `strict` the first bad line raises DataError, and so does
    compressed data that is damaged; without, bad lines count as rows and are reported when they are read,
    and all that damage took counts as one row more, the last.
    """
    shapes = RowShapes()
    with reading(path):
        compressed = compression_of(path)
        if compressed is None:
            with open_bytes(path) as stream:
                return JsonScan(shapes.columns, _scan(path, stream, shapes, part_bytes, strict))
        try:
            with open_bytes(path, compression=compressed) as stream:
                ranges = _scan(path, stream, shapes, None, strict)
            broken = None
        except (OSError, EOFError, pa.ArrowException):
            broken = find_break(path, compressed)
            shapes = RowShapes()
            with open_bytes(path, compression=compressed, sound=broken.sound) as stream:
                ranges = _scan(path, stream, shapes, None, strict, whole=bool(broken.reason))
    rows = ranges[0].rows if ranges else 0
    if broken is not None and broken.reason:
        if strict:
            raise _broken_off(path, rows, broken)
        rows += 1
    return JsonScan(shapes.columns, [Range(0, 0, 0, rows, ranges[0].bytes if ranges else 0)] if rows else [], broken)


def _broken_off(path: str, row: int, broken: Break) -> DataError:
    return DataError(
        f"expected sound compressed data, got {broken.reason}: {path}, row {row} (0-based; line "
        f"{line_number(path, 0, row, broken.sound) + 1}, after byte {broken.sound} of the text); fetch or write it again, "
        "leave it out of `paths`, or set `on_error: quarantine` to keep the rows before the damage and count the rest as one"
    )


def _scan(
    path: str, stream: Any, shapes: RowShapes, part_bytes: int | None, strict: bool, *, whole: bool = False
) -> list[Range]:
    """Go through the lines; `whole` leaves out a last line without its newline."""
    ranges: list[Range] = []
    start = offset = first_row = row_number = line_number = 0
    for lines in _line_blocks(stream, None, whole=whole):
        for line in lines:
            line_number += 1
            begin = offset
            offset += len(line) + 1
            if line_number == 1 and line.startswith(_BOM):
                line = line[len(_BOM) :]
            if _is_blank(line):
                continue
            if part_bytes is not None and begin - start >= part_bytes and row_number > first_row:
                ranges.append(Range(start, begin, first_row, row_number - first_row, begin - start))
                start, first_row = begin, row_number
            row = parse_line(line)
            if type(row) is dict:
                shapes.add(row)
            else:
                assert isinstance(row, Fault)
                if row_number == 0 and line.lstrip(_BLANK)[:1] == b"[":
                    raise _array_error(path)
                if strict:
                    raise bad_line(path, row_number, line_number, row)
            row_number += 1
    if row_number > first_row:
        ranges.append(Range(start, offset, first_row, row_number - first_row, offset - start))
    return ranges


def bad_line(path: str, row: int, line: int, fault: Fault) -> DataError:
    """Make the error for a line that is no JSON object; `row` counts from 0 in the file, `line` from 1."""
    return DataError(
        f"expected one JSON object per line, got {fault.reason}{fault.where}: {path}, row {row} (0-based; "
        f"line {line}); fix the line, or set `on_error: quarantine` to set such rows aside and count them"
    )


def _array_error(path: str) -> DataError:
    return DataError(
        f"expected one JSON object per line, got a JSON array: {path}, row 0 (line 1); write one "
        "object per line, for instance with `jq -c '.[]' FILE.json > FILE.jsonl`"
    )


def line_number(path: str, start: int, row: int, sound: int | None = None) -> int:
    """Return the line, counting from 1, of the row `row` of the part that begins at byte `start`.

    Reads the file up to there, or to its last line: for messages, not for every row. `sound` is as for
    `open_bytes`.
    """
    with reading(path), open_bytes(path, sound=sound) as stream:
        lines = 0
        left = start
        while left > 0:
            data = stream.read(min(BLOCK_BYTES, left))
            if not data:
                break
            lines += data.count(b"\n")
            left -= len(data)
        for block in _line_blocks(stream, None, whole=sound is not None):
            for line in block:
                lines += 1
                if lines == 1 and line.startswith(_BOM):
                    line = line[len(_BOM) :]
                if not _is_blank(line):
                    if row == 0:
                        return lines
                    row -= 1
    return lines


def read_jsonl(
    path: str,
    start: int,
    stop: int,
    columns: Mapping[str, JsonColumn],
    plan: TextPlan | None,
    rows: Places | None,
    batch_bytes: int,
    sound: int | None = None,
    whole: bool = False,
) -> Iterator[Chunk]:
    """Yield the rows of the bytes start..stop (0..0: a whole compressed file), about `batch_bytes` at a time.

    `columns` are the columns wanted and how they are carried, `plan` what the text needs; `sound` is as for
    `open_bytes`, and `whole` leaves out a last line without its newline.
    """
    with reading(path), open_bytes(path, start, sound=sound) as stream:
        held: list[bytes] = []
        numbers: list[int] = []
        size = 0
        number = 0
        wanted = None if rows is None else set(rows.tolist())
        last = None if rows is None else int(rows[-1]) if len(rows) else -1
        first = start == 0
        for lines in _line_blocks(stream, None if stop == 0 else stop - start, whole=whole):
            if first and lines[0].startswith(_BOM):
                lines[0] = lines[0][len(_BOM) :]
            first = False
            for line in lines:
                if _is_blank(line):
                    continue
                if wanted is None or number in wanted:
                    held.append(line)
                    numbers.append(number)
                    size += len(line)
                number += 1
                if size >= batch_bytes:
                    yield _chunk(held, numbers, columns, plan)
                    held, numbers, size = [], [], 0
            if last is not None and number > last:
                break
        if held:
            yield _chunk(held, numbers, columns, plan)


def _chunk(
    lines: Sequence[bytes],
    numbers: Sequence[int],
    columns: Mapping[str, JsonColumn],
    plan: TextPlan | None,
) -> Chunk:
    faults = Faults(len(lines))
    rows: list[Row] = []
    for place, line in enumerate(lines):
        row = parse_line(line)
        if isinstance(row, Fault):
            faults.add(place, row.reason)
            row = {}
        rows.append(row)
    made = {name: _column([row.get(name) for row in rows], how) for name, how in columns.items()}
    inputs = {} if plan is None else _inputs(rows, plan, faults)
    return Chunk(np.asarray(numbers, dtype=np.int64), made, inputs, faults.array())


class Faults:
    """The first reason of each bad row of a chunk."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.found: dict[int, str] = {}

    def add(self, place: int, reason: str) -> None:
        self.found.setdefault(place, reason)

    def array(self) -> pa.Array | None:
        if not self.found:
            return None
        return pa.array([self.found.get(place) for place in range(self.rows)], pa.string())


def _json_text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson reads 1,024 levels and writes 254.
        return _deep_json_text(value)


def _deep_json_text(value: Any) -> str:
    """Write JSON without recursion."""
    written: list[str] = []
    todo: list[tuple[bool, Any]] = [(False, value)]
    while todo:
        is_mark, item = todo.pop()
        if is_mark:
            written.append(item)
            continue
        if type(item) is list:
            inner: list[tuple[bool, Any]] = [
                entry for element in item for entry in ((True, ","), (False, element))
            ]
            opening, closing = "[", "]"
        elif type(item) is dict:
            inner = []
            for key, element in item.items():
                inner += [(True, ","), (False, key), (True, ":"), (False, element)]
            opening, closing = "{", "}"
        else:
            written.append(orjson.dumps(item).decode())
            continue
        todo.append((True, closing))
        todo.extend(reversed(inner[1:]))
        todo.append((True, opening))
    return "".join(written)


def _column(values: list[Any], how: JsonColumn) -> pa.Array:
    if how.mode == "json":
        values = [None if value is None else _json_text(value) for value in values]
    elif how.mode == "scalar":
        values = [value if value is None or type(value) is str else _json_text(value) for value in values]
    elif how.mode == "string":
        values = [value if type(value) is str else None for value in values]
    return pa.array(values, how.type)


def _inputs(rows: list[Row], plan: TextPlan, faults: Faults) -> dict[str, pa.Array]:
    """Make the arrays that the text is put together from; a value of the wrong kind is null and a fault."""
    inputs: dict[str, pa.Array] = {}
    for name in plan.columns:
        values = [row.get(name) for row in rows]
        where = "" if plan.kind == "column" else f" in column {name!r}"
        if plan.kind in ("messages", "conversations"):
            inputs[name] = _turns(values, plan.keys, faults)
        elif plan.kind == "alpaca" and name == "history":
            inputs[name] = _checked(values, _is_history, pa.list_(pa.list_(pa.string())), _no_history, faults)
        else:
            if plan.kind == "template":
                values = _scalar_texts(values)
            inputs[name] = _checked(values, _is_string, pa.string(), _no_string(where), faults)
    return inputs


def _scalar_texts(values: list[Any]) -> list[Any]:
    """Write numbers and booleans as a cast of an Arrow column writes them.

    From each value alone, not from the column's type: another file's values must not change this row's text.
    """
    made = [_json_text(value) if type(value) in (int, bool) else value for value in values]
    floats = [place for place, value in enumerate(values) if type(value) is float]
    texts = pa.array([values[place] for place in floats], pa.float64()).cast(pa.string()).to_pylist()
    for place, text in zip(floats, texts, strict=True):
        made[place] = text
    return made


def _checked(
    values: list[Any],
    fine: Callable[[Any], bool],
    kind: pa.DataType,
    reason: Callable[[Any], str],
    faults: Faults,
) -> pa.Array:
    for place, value in enumerate(values):
        if value is not None and not fine(value):
            faults.add(place, reason(value))
            values[place] = None
    return pa.array(values, kind)


def _no_string(where: str) -> Callable[[Any], str]:
    return lambda value: f"not a string: {json_kind(value)}{where}"


def _is_string(value: Any) -> bool:
    return type(value) is str


def _is_history(value: Any) -> bool:
    return type(value) is list and all(
        type(pair) is list and all(turn is None or type(turn) is str for turn in pair) for pair in value
    )


def _no_history(value: Any) -> str:
    return f"not a list of lists of strings: {json_kind(value)} in column 'history'"


def _turns(values: list[Any], keys: tuple[str, str], faults: Faults) -> pa.Array:
    """Keep of each turn its role and content, whatever else it carries."""
    made: list[list[Row] | None] = []
    for place, value in enumerate(values):
        reason = None if value is None else _turn_fault(value, keys)
        if value is None or reason is not None:
            if reason is not None:
                faults.add(place, reason)
            made.append(None)
        else:
            made.append([{key: turn.get(key) for key in keys} for turn in value])
    return pa.array(made, pa.list_(pa.struct([(key, pa.string()) for key in keys])))


def _turn_fault(value: Any, keys: tuple[str, str]) -> str | None:
    if type(value) is not list:
        return f"not a list of turns: {json_kind(value)}"
    for turn in value:
        if type(turn) is not dict:
            return f"a turn is not an object: {json_kind(turn)}"
        for key in keys:
            if turn.get(key) is not None and type(turn[key]) is not str:
                return f"a turn's {key} is not a string: {json_kind(turn[key])}"
    return None
