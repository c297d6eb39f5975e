"""Turn the plain mappings of a recipe into parameter structs, and collect every problem with its path.

msgspec checks one value against one type; it stops at the first problem of a struct. A person wants all
problems of a recipe at once, so fields are converted one by one here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from curate.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)


class Problems:
    """What is wrong with a recipe so far: `where: what`, in the order in which it was found."""

    def __init__(self, found: Iterable[str] = ()) -> None:
        self.found = list(found)

    def add(self, where: str, what: str) -> None:
        self.found.append(f"{where}: {what}")

    def raise_if_any(self, title: str) -> None:
        """Raise one ConfigError that lists all of them."""
        if self.found:
            count = len(self.found)
            plural = "problem" if count == 1 else "problems"
            raise ConfigError(
                f"{title}: {count} {plural}\n" + "\n".join(f"  - {line}" for line in self.found)
            )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'? (known: a, b)`, without the guess where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"{guess} (known: {', '.join(names) if names else 'none'})"


def build(kind: type[S], values: Any, where: str, problems: Problems) -> S | None:
    """Convert `values` to the struct `kind`; None, and lines added to `problems`, where that cannot be."""
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        problems.add(where, f"expected a mapping of settings, got {type(values).__name__} {values!r}")
        return None
    before = len(problems.found)
    hints = get_type_hints(kind, include_extras=True)
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    for key in values:
        if key not in fields:
            problems.add(f"{where}.{key}", f"unknown setting{did_you_mean(str(key), fields)}")
    for name, field in fields.items():
        if name not in values:
            if field.required:
                problems.add(where, f"the setting {name!r} is missing")
            continue
        try:
            msgspec.convert(values[name], hints[field.name])
        except msgspec.ValidationError as error:
            problems.add(
                f"{where}.{name}", f"{_expected(hints[field.name], str(error))}, got {values[name]!r}"
            )
    if len(problems.found) > before:
        return None
    try:
        return msgspec.convert(dict(values), kind)
    except (msgspec.ValidationError, ConfigError) as error:
        problems.add(where, _plain(str(error)))
        return None


def _expected(hint: Any, message: str) -> str:
    """What a setting should have been: the words it may be, or msgspec's own wording without its `got`."""
    words = [
        value
        for member in (hint, *get_args(hint))
        if get_origin(member) is Literal
        for value in get_args(member)
    ]
    if words and "enum" in message:
        return f"expected one of {', '.join(str(word) for word in words)}"
    return (
        _plain(message)
        .split(", got ")[0]
        .replace(" | null", "")
        .replace("str", "text")
        .replace("int", "a whole number")
    )


def _plain(message: str) -> str:
    """Put msgspec's words (`Expected `int`, got `str` - at `$`) into ours."""
    message = message.split(" - at `$")[0]
    return message[:1].lower() + message[1:].replace("`", "")
