"""Write unicode_tables.h: lower-casing and character classes of Unicode 14, fixed whatever Python runs later.

Run with CPython 3.11 (its `str` and `re` have Unicode 14.0.0) in an environment that has `regex==2022.8.17`
(the last release with Unicode 14 tables):

    python3.11 -m venv unicode-env
    unicode-env/bin/pip install regex==2022.8.17
    unicode-env/bin/python native/make_unicode.py native/unicode_tables.h

Everything is derived by asking: `str.lower()` for the mapping, `re` and `regex` for the classes, and whether
a capital sigma becomes final next to a character, which tells cased from case-ignorable. No file is read.

Per code point one record: what to add to it to lower-case it, and flags about the lower-cased result.
"""

from __future__ import annotations

import re
import sys
import unicodedata

import regex

BLOCK = 128
OTHER, WORD, SPACE = 0, 1, 2
SIGMA_PLAIN, SIGMA_CASED, SIGMA_IGNORABLE = 0, 1, 2
SPECIAL = 1 << 6
SIGMA = 1 << 7


def classify(word: bool, space: bool) -> int:
    if word and space:
        raise SystemExit("a character is both word and space")
    return WORD if word else SPACE if space else OTHER


def sigma_role(char: str) -> int:
    """Return how str.lower() treats this character beside a capital sigma; ignorable wins over cased."""
    if (char + "Σ").lower().endswith("ς"):
        return SIGMA_CASED
    return SIGMA_IGNORABLE if ("A" + char + "Σ").lower().endswith("ς") else SIGMA_PLAIN


def record_of(code: int) -> tuple[int, int]:
    if 0xD800 <= code <= 0xDFFF:
        return 0, 0
    char = chr(code)
    lower = char.lower()
    flags = sigma_role(char) << 4
    if len(lower) > 1:
        if char != "İ":
            raise SystemExit(f"U+{code:04X} has {len(lower)} characters in lower case, as only U+0130 may")
        return 0, flags | SPECIAL
    if len(lower.encode()) * 2 > len(char.encode()) * 3:
        raise SystemExit(f"U+{code:04X} grows by more than half; the kernel's scratch is too small")
    in_re = classify(bool(re.match(r"\w", lower)), bool(re.match(r"\s", lower)))
    in_regex = classify(bool(regex.match(r"\w", lower)), bool(regex.match(r"\s", lower)))
    if char == "Σ":
        flags |= SIGMA
    return ord(lower) - code, flags | in_re | in_regex << 2


def rows(values: list[int], per_line: int) -> str:
    lines = [values[i : i + per_line] for i in range(0, len(values), per_line)]
    return "\n".join("    " + ",".join(map(str, line)) + "," for line in lines)


def main(path: str) -> None:
    if sys.version_info[:2] != (3, 11) or unicodedata.unidata_version != "14.0.0":
        raise SystemExit("run this with CPython 3.11 (Unicode 14.0.0)")
    if regex.match(r"\w", "\U00011f02"):
        raise SystemExit("run this with regex 2022.8.17 (Unicode 14); a newer one is installed")
    records: dict[tuple[int, int], int] = {}
    indices = [records.setdefault(record_of(code), len(records)) for code in range(0x110000)]
    if len(records) > 256:
        raise SystemExit(f"{len(records)} records do not fit a byte")
    blocks: dict[tuple[int, ...], int] = {}
    stage1 = [
        blocks.setdefault(tuple(indices[i : i + BLOCK]), len(blocks)) for i in range(0, len(indices), BLOCK)
    ]
    if len(blocks) > 256:
        raise SystemExit(f"{len(blocks)} blocks do not fit a byte")
    stage2 = [index for block in blocks for index in block]
    text = f"""/* Written by make_unicode.py (CPython 3.11, regex 2022.8.17: Unicode 14.0.0). Do not edit.
 *
 * record = unicode_records[unicode_stage2[unicode_stage1[code >> 7] * 128 + (code & 127)]]
 */
#ifndef CURATE_UNICODE_TABLES_H
#define CURATE_UNICODE_TABLES_H

#include <stdint.h>

/* Flags: bits 0-1 the class in `re`, bits 2-3 the class in `regex`, both of the lower-cased character
 * ({OTHER} other, {WORD} word, {SPACE} space). Bits 4-5, of the character itself, beside a capital sigma:
 * {SIGMA_PLAIN} neither, {SIGMA_CASED} cased, {SIGMA_IGNORABLE} case-ignorable.
 * Bit 6: two characters in lower case. Bit 7: the capital sigma itself. */
typedef struct {{
    int32_t lower_delta;
    uint8_t flags;
}} unicode_record;

static const unicode_record unicode_records[{len(records)}] = {{
{chr(10).join(f"    {{{delta}, {flags}}}," for delta, flags in records)}
}};

static const uint8_t unicode_stage1[{len(stage1)}] = {{
{rows(stage1, 32)}
}};

static const uint8_t unicode_stage2[{len(stage2)}] = {{
{rows(stage2, 32)}
}};

#endif
"""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
