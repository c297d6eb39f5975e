"""What of a row is the text: a column, a template over columns, or the turns of instruction data.

A `TextPlan` is decided once from the names and types of the columns; `render` applies it to arrays:

    inputs {"prompt": ["Add 1 and 2", null], "response": ["3", "4"]}    plan "{prompt}\\n{response}"
    text   ["Add 1 and 2\\n3", null]
    bad    [null, "null text: column 'prompt'"]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import ConfigError

TEXT = "__text__"
BAD = "__bad__"

Checked: TypeAlias = tuple[pa.Array, pa.Array | None]  # values, and the reasons of bad rows
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
View = Literal["all", "user", "assistant", "last_turn"]
Kind = Literal["column", "template", "messages", "conversations", "completion", "alpaca"]

# Role words seen in published instruction data, by the view that they belong to.
ROLES: dict[str, frozenset[str]] = {
    "user": frozenset({"user", "human", "prompter"}),
    "assistant": frozenset({"assistant", "gpt", "model", "bot", "chatgpt", "bard", "bing"}),
}
TURN_KEYS: dict[str, tuple[str, str]] = {"messages": ("role", "content"), "conversations": ("from", "value")}
PAIRS: tuple[tuple[str, str], ...] = (("prompt", "completion"), ("prompt", "response"))
ALPACA_OPTIONAL = ("system", "input", "history")

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|([{}])")


class TextPlan(msgspec.Struct, frozen=True):
    """How a row's text is made; plain data, so that it travels to workers.

    `columns` are the columns read, in the order in which they are first used. `pieces` is the template as
    (is_column, literal or name) pairs; `keys` are the names of a turn's role and content fields.
    """

    kind: Kind
    columns: tuple[str, ...]
    view: View = "all"
    pieces: tuple[tuple[bool, str], ...] = ()
    keys: tuple[str, str] = ("role", "content")


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return "there are a, b, c; did you mean 'b'?", for a name that is not among `names`."""
    shown = ", ".join(repr(known) for known in sorted(names)[:30]) or "none"
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"the columns are {shown}" + (f"; did you mean {close[0]!r}?" if close else "")


def plan_text(text: str, view: View, names: Sequence[str], turns: Mapping[str, tuple[str, str]]) -> TextPlan:
    """Decide how text is made from what the recipe says and the columns that there are.

    `names` are the corpus' columns; `turns` maps each column that holds a list of turns to the names of
    its role and content fields. Raises ConfigError for an unknown column, a malformed template, or a view
    of a text that has no turns.
    """
    if "{" in text or "}" in text:
        return _plan_template(text, view, names)
    if text in names:
        if text in turns:
            return _plan_turns(text, view, turns)
        return _plan_column(text, view)
    by_name = text.split("/")
    if len(by_name) == 2 and tuple(by_name) in PAIRS:
        return _plan_pair(by_name[0], by_name[1], view, names)
    if text == "alpaca":
        return _plan_alpaca(view, names)
    if text == "text":
        plan = _recognise(view, names, turns)
        if plan is not None:
            return plan
    instead = (
        " (nor messages, conversations, prompt with completion or response, instruction with output)"
        if text == "text"
        else ""
    )
    raise ConfigError(
        f"expected a column {text!r} for the text, and found none{instead}; {did_you_mean(text, names)}; "
        'set `text:` to a column, or to a template such as "{prompt}\\n{response}"'
    )


def _recognise(view: View, names: Sequence[str], turns: Mapping[str, tuple[str, str]]) -> TextPlan | None:
    for column in TURN_KEYS:
        if column in turns:
            return _plan_turns(column, view, turns)
    for prompt, answer in PAIRS:
        if prompt in names and answer in names:
            return _plan_pair(prompt, answer, view, names)
    if "instruction" in names and "output" in names:
        return _plan_alpaca(view, names)
    return None


def _plan_column(text: str, view: View) -> TextPlan:
    if view != "all":
        raise ConfigError(
            f"expected instruction data for `view: {view}`, got the plain text column {text!r}, which has no "
            "turns; leave `view` out, or set `text:` to messages, conversations, prompt/completion, "
            "prompt/response or alpaca"
        )
    return TextPlan(kind="column", columns=(text,))


def _plan_turns(column: str, view: View, turns: Mapping[str, tuple[str, str]]) -> TextPlan:
    keys = turns[column]
    kind: Kind = "messages" if keys == TURN_KEYS["messages"] else "conversations"
    return TextPlan(kind=kind, columns=(column,), view=view, keys=keys)


def _need(wanted: Sequence[str], names: Sequence[str], what: str) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        known = did_you_mean(missing[0], names)
        raise ConfigError(f"expected a column {missing[0]!r} for {what}, and found none; {known}")


def _plan_pair(prompt: str, answer: str, view: View, names: Sequence[str]) -> TextPlan:
    _need((prompt, answer), names, f"`text: {prompt}/{answer}`")
    return TextPlan(kind="completion", columns=(prompt, answer), view=view)


def _plan_alpaca(view: View, names: Sequence[str]) -> TextPlan:
    _need(("instruction", "output"), names, "`text: alpaca`")
    optional = tuple(name for name in ALPACA_OPTIONAL if name in names)
    return TextPlan(kind="alpaca", columns=("instruction", "output", *optional), view=view)


def _plan_template(text: str, view: View, names: Sequence[str]) -> TextPlan:
    if view != "all":
        raise ConfigError(
            f"expected instruction data for `view: {view}`, got a template, which has no turns; leave it out"
        )
    pieces: list[tuple[bool, str]] = []

    def literal(value: str) -> None:
        if not value:
            return
        if pieces and not pieces[-1][0]:
            value = pieces.pop()[1] + value
        pieces.append((False, value))

    end = 0
    for match in _PIECE.finditer(text):
        literal(text[end : match.start()])
        end = match.end()
        if match.group(2) is not None:
            raise ConfigError(
                f"expected braces in pairs in the template {text!r}, got a lone {match.group(2)!r} at "
                f"character {match.start()}; write {match.group(2) * 2!r} for the character itself"
            )
        if match.group(1) is None:
            literal(match.group(0)[0])
            continue
        _need((match.group(1),), names, f"the template {text!r}")
        pieces.append((True, match.group(1)))
    literal(text[end:])
    columns = tuple(dict.fromkeys(value for is_column, value in pieces if is_column))
    if not columns:
        raise ConfigError(
            f"expected at least one column in the template {text!r}, got none; "
            "write {name} where a column's value belongs"
        )
    return TextPlan(kind="template", columns=columns, pieces=tuple(pieces))


def turn_keys(kind: pa.DataType) -> tuple[str, str] | None:
    """Return the names of the role and content fields if `kind` is a list of turns, else None."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(check(kind) for check in lists) or not pa.types.is_struct(kind.value_type):
        return None
    fields = {field.name: field.type for field in kind.value_type}
    for role, content in TURN_KEYS.values():
        if role in fields and content in fields and is_text(fields[content]):
            return role, content
    return None


def is_text(kind: pa.DataType) -> bool:
    """Say whether arrays of this type can be read as UTF-8: strings, bytes, nulls, dictionaries of them."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_null,
    )
    return any(check(kind) for check in checks)


def plain_array(array: pa.Array) -> pa.Array:
    """Decode dictionaries and runs, unwrap extension types and views: what kernels and casts understand."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_array(array.storage)
    if pa.types.is_dictionary(kind):
        return plain_array(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain_array(pc.run_end_decode(array))
    plain = plain_type(kind)
    return array if plain.equals(kind) else array.cast(plain)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `plain_array` gives for arrays of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def taken(array: pa.Array, rows: Rows) -> pa.Array:
    """Copy some rows, given in order, out of an array of any type."""
    try:
        return array.take(pa.array(rows))
    except pa.ArrowNotImplementedError:
        if not len(rows):
            return array.slice(0, 0)
        # Arrow has no such kernel for views of strings, wherever inside they are; it can join slices of them.
        ends = np.flatnonzero(np.diff(rows, append=-2) != 1) + 1
        starts = np.concatenate([[0], ends[:-1]])
        pieces = [array.slice(rows[a], b - a) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return pa.concat_arrays(pieces)


def merge_bad(first: pa.Array | None, second: pa.Array | None) -> pa.Array | None:
    """Keep the first reason of each row. None stands for no reason anywhere."""
    if first is None or second is None:
        return second if first is None else first
    return pc.coalesce(first, second)


def reasons(mask: pa.Array, reason: str) -> pa.Array | None:
    """Return `reason` where the boolean `mask` is true and null elsewhere; None if it is true nowhere."""
    if not pc.any(mask).as_py():
        return None
    return pc.if_else(mask, pa.scalar(reason, pa.string()), pa.scalar(None, pa.string()))


def checked_utf8(array: pa.Array, reason: str = "invalid UTF-8") -> Checked:
    """Return `array` with invalid UTF-8 made null, and the reasons of the rows where that was.

    Strings anywhere inside (lists, structs) are checked. `validate(full=True)` reads valid text at several
    GB/s on one core; rows are looked at singly only in a batch that failed.
    """
    try:
        array.validate(full=True)
        return array, None
    except pa.ArrowInvalid as error:
        # Wrong offsets or lengths are no matter of one row, and not safe to look at further.
        if "UTF8" not in str(error):
            raise
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.binary_view()).cast(pa.binary()).view(pa.string())  # kernels know no views
    mask = np.zeros(len(array), dtype=np.bool_)
    for row in range(len(array)):
        try:
            # A copy, not a slice: validation of a sliced list reads the children of the other rows too.
            taken(array, np.array([row])).validate(full=True)
        except pa.ArrowInvalid:
            mask[row] = True
    bad = pa.array(mask)
    return pc.if_else(bad, pa.scalar(None, array.type), array), reasons(bad, reason)


def _as_text(array: pa.Array, where: str = "") -> Checked:
    """Read one input as text: (string or large_string, reasons). Nulls stay null and give no reason here."""
    array = plain_array(array)
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return checked_utf8(array, f"invalid UTF-8{where}")
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string()), None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        # The same buffers under the name of a string: old writers leave the annotation out.
        string = pa.large_string() if pa.types.is_large_binary(kind) else pa.string()
        return checked_utf8(array.view(string), f"invalid UTF-8{where}")
    return pa.nulls(len(array), pa.string()), reasons(array.is_valid(), f"not a string: {kind}{where}")


def _null_text(array: pa.Array, bad: pa.Array | None, reason: str = "null text") -> pa.Array | None:
    if array.null_count == 0:
        return bad
    return merge_bad(bad, reasons(array.is_null(), reason))


def render(plan: TextPlan, inputs: Mapping[str, pa.Array], rows: int) -> Checked:
    """Make the text of a batch.

    `inputs` has an array of length `rows` for each of `plan.columns`. Returns (text, bad): text is string
    or large_string, valid UTF-8, null exactly where bad has a reason; bad is null where the row is fine, or
    None if all rows are.
    """
    if plan.kind == "column":
        text, bad = _as_text(inputs[plan.columns[0]])
        return text, _null_text(text, bad)
    if plan.kind == "template":
        text, bad = _render_template(plan, inputs, rows)
    elif plan.kind == "completion":
        text, bad = _render_pair(plan, inputs)
    elif plan.kind == "alpaca":
        text, bad = _render_alpaca(plan, inputs, rows)
    else:
        text, bad = _render_turns(plan, inputs[plan.columns[0]])
    return _blank(text, bad), bad


def _blank(text: pa.Array, bad: pa.Array | None) -> pa.Array:
    return text if bad is None else pc.if_else(bad.is_valid(), pa.scalar(None, text.type), text)


def _strings(name: str, array: pa.Array) -> Checked:
    """Read a column that the text is put together from; a reason says which column it was."""
    text, bad = _as_text(array, f" in column {name!r}")
    return (text.cast(pa.string()) if pa.types.is_large_string(text.type) else text), bad


def _render_template(plan: TextPlan, inputs: Mapping[str, pa.Array], rows: int) -> Checked:
    values: dict[str, pa.Array] = {}
    bad: pa.Array | None = None
    for name in plan.columns:
        array = plain_array(inputs[name])
        if not is_text(array.type) and not pa.types.is_nested(array.type):
            array = array.cast(pa.string())
        values[name], wrong = _strings(name, array)
        bad = merge_bad(bad, wrong)
        bad = _null_text(values[name], bad, f"null text: column {name!r}")
    parts = [values[value] if is_column else pa.scalar(value) for is_column, value in plan.pieces]
    return pc.binary_join_element_wise(*parts, ""), bad


def _render_pair(plan: TextPlan, inputs: Mapping[str, pa.Array]) -> Checked:
    bad: pa.Array | None = None
    sides = []
    for name in plan.columns:
        side, wrong = _strings(name, inputs[name])
        bad = _null_text(side, merge_bad(bad, wrong), f"null text: column {name!r}")
        sides.append(side)
    if plan.view == "user":
        return sides[0], bad
    if plan.view in ("assistant", "last_turn"):
        return sides[1], bad
    return pc.binary_join_element_wise(*sides, "\n"), bad


def _render_alpaca(plan: TextPlan, inputs: Mapping[str, pa.Array], rows: int) -> Checked:
    bad: pa.Array | None = None
    side: dict[str, pa.Array] = {}
    for name in plan.columns:
        if name == "history":
            continue
        side[name], wrong = _strings(name, inputs[name])
        bad = merge_bad(bad, wrong)
        if name in ("instruction", "output"):
            bad = _null_text(side[name], bad, f"null text: column {name!r}")
    if plan.view == "last_turn":
        return side["output"], bad
    history: pa.Array = pa.nulls(rows, pa.string())
    if "history" in inputs:
        history, wrong = _history(inputs["history"], plan.view)
        bad = merge_bad(bad, wrong)
    none = pa.nulls(rows, pa.string())
    asked = [history, side["instruction"], side.get("input", none)]
    if plan.view == "assistant":
        parts = [history, side["output"]]
    elif plan.view == "user":
        parts = asked
    else:
        parts = [side.get("system", none), *asked, side["output"]]
    # Alpaca writes "" for an input that there is none of; a line of its own for it would be noise.
    parts = [pc.if_else(pc.equal(part, ""), pa.scalar(None, pa.string()), part) for part in parts]
    text = pc.binary_join_element_wise(*parts, "\n", null_handling="skip")
    return text, bad


def _history(array: pa.Array, view: View) -> Checked:
    """Join earlier [question, answer] pairs (list<list<string>>): one string per row, null for none."""
    none = pa.nulls(len(array), pa.string())
    if pa.types.is_null(array.type):
        return none, None
    wanted = pa.list_(pa.list_(pa.string()))
    try:
        array = array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        reason = f"not a list of lists of strings: {array.type} in column 'history'"
        return none, reasons(array.is_valid(), reason)
    array, bad = checked_utf8(array, "invalid UTF-8 in column 'history'")
    pair_row = _owners(array)
    pairs = array.flatten()
    turn_pair = _owners(pairs)
    content = pairs.flatten()
    # The place of a turn within its pair: 0 asks, 1 answers.
    first = np.searchsorted(turn_pair, turn_pair, side="left")
    answers = (np.arange(len(turn_pair)) - first) % 2 == 1
    keep = content.is_valid().to_numpy(zero_copy_only=False)
    if view != "all":
        keep = keep & (answers if view == "assistant" else ~answers)
    return _join(content, pair_row[turn_pair], keep, len(array)), bad


def _render_turns(plan: TextPlan, array: pa.Array) -> Checked:
    """Join the wanted turns of each row; a row without any has the empty text, a null row is bad."""
    array = plain_array(array)
    rows = len(array)
    if turn_keys(array.type) is None:
        if pa.types.is_null(array.type):
            return pa.nulls(rows, pa.string()), reasons(array.is_null(), "null text")
        bad = _null_text(array, None)
        wrong = reasons(array.is_valid(), f"not a list of turns: {array.type}")
        return pa.nulls(rows, pa.string()), merge_bad(bad, wrong)
    bad = _null_text(array, None)
    row_of = _owners(array)
    turns = array.flatten()
    role_key, content_key = plan.keys
    content = plain_array(pc.struct_field(turns, content_key))
    text, wrong = _as_text(content)
    if wrong is not None:
        which = np.unique(row_of[wrong.is_valid().to_numpy(zero_copy_only=False)])
        mask = np.zeros(rows, dtype=np.bool_)
        mask[which] = True
        bad = merge_bad(bad, reasons(pa.array(mask), "invalid UTF-8"))
    keep = text.is_valid().to_numpy(zero_copy_only=False)
    if plan.view in ROLES:
        keep = keep & _has_role(pc.struct_field(turns, role_key), ROLES[plan.view])
    elif plan.view == "last_turn":
        keep = keep & _last(row_of, keep)
    return _join(text.cast(pa.string()), row_of, keep, rows), bad


def _owners(lists: pa.Array) -> Rows:
    """Return the row of each element of `lists.flatten()`, which leaves out what null lists hide."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    return np.repeat(np.arange(len(lists), dtype=np.int64), lengths)


def _has_role(role: pa.Array, wanted: frozenset[str]) -> Mask:
    # Few distinct words stand in many turns; bytes, so that a role of invalid UTF-8 is merely unknown.
    role = plain_array(role)
    if not is_text(role.type) or pa.types.is_null(role.type):
        return np.zeros(len(role), dtype=np.bool_)
    coded = role.cast(pa.large_binary()).dictionary_encode()
    hits = [
        word is not None and word.decode("utf-8", "replace").strip().lower() in wanted
        for word in coded.dictionary.to_pylist()
    ]
    codes = coded.indices.fill_null(len(hits)).to_numpy()
    mask: Mask = np.asarray([*hits, False], dtype=np.bool_)[codes]
    return mask


def _last(row_of: Rows, keep: Mask) -> Mask:
    """Mark the last kept turn of each row; `row_of` is sorted."""
    places = np.flatnonzero(keep)
    last = np.zeros(len(keep), dtype=np.bool_)
    if len(places):
        owner = row_of[places]
        last[places[np.append(owner[1:] != owner[:-1], True)]] = True
    return last


def _join(content: pa.Array, row_of: Rows, keep: Mask, rows: int) -> pa.Array:
    """Join with newlines the kept strings of each row; `row_of` is sorted. Every row gets a string."""
    counts = np.bincount(row_of[keep], minlength=rows)
    offsets = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    lists = pa.ListArray.from_arrays(pa.array(offsets), content.filter(pa.array(keep)))
    return pc.binary_join(lists, "\n")


def column_text(column: pa.Array) -> pa.Array:
    """A column of the pool as a stage compares it in the text's stead: large_string, null as the empty text; others as they print."""
    return pc.fill_null(column.cast(pa.large_string()), "")
