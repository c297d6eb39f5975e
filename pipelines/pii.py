"""Personal data: e-mail and public IP addresses, phone, IBAN and card numbers, keys of common services.

    tag      counts by kind, nothing else
    redact   what is found is replaced by <EMAIL>, <IP>, <PHONE>, <IBAN>, <CARD>, <SECRET>
    drop     documents that hold more than `max` of them in all are dropped

Numbers with check digits are checked (ISO 7064 mod 97-10 for IBANs, with the length of the country; Luhn for cards),
IP addresses must be public, so that a version number or an example is no find. Names and street addresses are not
looked for: no pattern has them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import spans
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, VALUE, Context, measure

Kind = Literal["email", "ip", "phone", "iban", "card", "secret"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: A find: start and stop in characters, and what it is.
Find = tuple[int, int, Kind]


class PiiParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kinds` are looked for; `max` is how many finds a document may have with mode: drop."""

    mode: Literal["tag", "redact", "drop"] = "redact"
    kinds: tuple[Kind, ...] = KINDS
    max: int = 0

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ConfigError(f"expected at least one of {', '.join(KINDS)} in kinds, got none")
        if self.max < 0 or (self.max and self.mode != "drop"):
            raise ConfigError(f"max is how many finds mode: drop lets pass, 0 or more; got max: {self.max} with mode: {self.mode}")


@register("pii")
class Pii:
    """Finds personal data by pattern and check digit; counts it, replaces it, or drops the document."""

    version = 1
    Params = PiiParams
    judge_params = ("max",)

    def __init__(self, params: PiiParams, context: Context) -> None:
        self.params = params
        self._label = context.label

    def verbs(self) -> tuple[str, ...]:
        return ("apply", "judge") if self.params.mode == "drop" else ("apply",)

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """value: finds in all; one count for each kind; with mode: redact the spans."""
        counts = [measure(VALUE, pa.int64(), means="count", larger_is_better=False), *((kind, pa.int64()) for kind in self.params.kinds)]
        return pa.schema([*counts, *([(spans.FIELD, spans.SPANS)] if self.params.mode == "redact" else [])])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        counts: dict[str, list[int]] = {kind: [] for kind in self.params.kinds}
        rows: list[list[dict[str, Any]]] = []
        for text in batch.column(0).to_pylist():
            found = finds(text or "", self.params.kinds)
            for kind in self.params.kinds:
                counts[kind].append(sum(f[2] == kind for f in found))
            if self.params.mode == "redact":
                rows.append(_spans(text, found) if found else [])
        columns = [pa.array(counts[kind], pa.int64()) for kind in self.params.kinds]
        total = columns[0]
        for column in columns[1:]:
            total = pc.add(total, column)
        changed = [pa.array(rows, spans.SPANS)] if self.params.mode == "redact" else []
        return pa.record_batch([total, *columns, *changed], schema=self.fields())

    def judge_reads(self) -> list[str]:
        return [self._label]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        keep = pc.less_equal(batch.column(0), self.params.max)
        return keep, pc.if_else(keep, pa.scalar(None, pa.string()), pa.scalar("personal data"))


def finds(text: str, kinds: tuple[Kind, ...] = KINDS) -> list[Find]:
    """What of `kinds` a text holds: sorted, disjoint; of two that overlap, the one that was checked more."""
    found: list[Find] = []
    for kind in _TRUST:
        if kind not in kinds:
            continue
        for start, stop in _FINDERS[kind](text):
            if not any(start < other[1] and other[0] < stop for other in found):
                found.append((start, stop, kind))
    return sorted(found)


def _spans(text: str, found: list[Find]) -> list[dict[str, Any]]:
    """Finds as spans of the text's UTF-8."""
    row, at, size = [], 0, 0
    plain = text.isascii()
    for start, stop, kind in found:
        if plain:
            first, last = start, stop
        else:
            first = size + len(text[at:start].encode())
            last = first + len(text[start:stop].encode())
            at, size = stop, last
        row.append({"start": first, "stop": last, "text": f"<{kind.upper()}>"})
    return row


# -- e-mail

_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,24})(?![A-Za-z0-9_@]|-[A-Za-z0-9])")
#: What stands behind the last dot of a file's name: photo@2x.png is no address.
_FILES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "pdf", "js", "ts", "css", "html", "htm", "py", "rb", "java", "go", "rs", "php", "json", "xml", "yaml", "yml", "md", "txt")
)


def _emails(text: str) -> Iterator[tuple[int, int]]:
    at = text.find("@")
    while at >= 0:
        start = at
        while start > 0 and at - start < 65 and text[start - 1] in _LOCAL:
            start -= 1
        if at - start <= 64:
            while start < at and text[start] in ".'-%+":  # punctuation of the sentence, not of the address
                start += 1
            match = _DOMAIN.match(text, at + 1)
            local = text[start:at]
            if local and match and match[1].lower() not in _FILES and ".." not in local and local[-1] != ".":
                yield start, match.end()
        at = text.find("@", at + 1)


# -- IP addresses

_IPV4 = re.compile(r"\d(?<![\w.]\d)(?<!\W[vV] \d)\d{0,2}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d)", re.ASCII)
#: 2000::/3 is all that is given out of the public addresses.
_IPV6 = re.compile(r"[23](?<![\w:.][23])[0-9a-fA-F]{3}:[0-9a-fA-F:]{3,35}(?:\.\d{1,3}\.\d{1,3}\.\d{1,3})?(?![\w:])", re.ASCII)


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                public = ipaddress.ip_address(match[0]).is_global
            except ValueError:
                continue
            if public and not match[0].startswith("0."):
                yield match.span()


# -- phone numbers

#: With the country's code and 8 to 13 digits; or of North America, in groups.
_PHONE = re.compile(
    r"[+(1-9](?<![\w+.,][+(1-9])(?:"
    r"(?<=\+)[1-9]\d{0,2}[ .\-/]?(?:\(0?\d{1,4}\)[ .\-/]?)?\d(?:[ .\-/]?\d){5,12}"
    r"|(?<![\-/].)(?:(?<=1)[ .\-]\([2-9]|(?<=\()[2-9])\d{2}\) ?[2-9]\d{2}[.\-]\d{4}"
    r"|(?<![\-/].)(?:(?<=1)[ .\-][2-9]|(?<=[2-9]))\d{2}([.\-])[2-9]\d{2}\1\d{4}"
    r")(?!\w|[.\-]\d)",
    re.ASCII | re.DOTALL,
)


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        digits = sum(c.isdigit() for c in match[0])
        if 8 <= digits <= 13:
            yield match.span()


# -- account and card numbers

#: Characters of an IBAN by country, from the registry of SWIFT.
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z]\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])", re.ASCII)


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        wanted = _IBAN_LENGTHS.get(match[0][:2], 0)
        stop, count = match.start(), 0
        while stop < match.end() and count < wanted:
            count += text[stop] != " "
            stop += 1
        whole = text[match.start() : stop].replace(" ", "")
        ends = stop == match.end() or text[stop] == " "
        if wanted and count == wanted and ends and int("".join(str(int(c, 36)) for c in whole[4:] + whole[:4])) % 97 == 1:
            yield match.start(), stop


_CARD = re.compile(r"[2-6](?<![\w.\-][2-6])\d{3}(?:[ \-]?\d){9,15}(?![\w]|[.\-]\d)", re.ASCII)
_ISSUERS = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|6(?:011|4[4-9]|5)|35(?:2[89]|[3-8])|62")
_CARD_LENGTHS = {"4": (13, 16, 19), "5": (16,), "2": (16,), "34": (15,), "37": (15,), "3": (14, 16), "6": (16, 17, 18, 19)}


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = match[0].replace(" ", "").replace("-", "")
        lengths = _CARD_LENGTHS.get(digits[:2]) or _CARD_LENGTHS.get(digits[0], ())
        if len(digits) in lengths and _ISSUERS.match(digits) and len(set(digits)) > 1 and _luhn(digits):
            yield match.span()


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(c), 10)) for c in digits[-2::-2])
    return (sum(int(c) for c in digits[-1::-2]) + sum(doubled)) % 10 == 0


# -- keys and tokens

_SECRET = re.compile(
    r"(?<![A-Za-z0-9_\-])(?:"
    r"A(?:KIA|SIA)[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{82}"
    r"|glpat-[0-9A-Za-z_\-]{20}"
    r"|xox[abeoprs]-[0-9A-Za-z\-]{10,250}"  # Slack
    r"|AIza[0-9A-Za-z_\-]{35}"  # Google
    r"|[sr]k_live_[0-9A-Za-z]{24,99}"  # Stripe
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_\-]{32,200}"
    r"|hf_[A-Za-z0-9]{34}"
    r"|npm_[A-Za-z0-9]{36}"
    r"|SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"  # SendGrid
    r"|eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}"  # a signed JSON web token
    r")(?![A-Za-z0-9_\-])"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[A-Za-z0-9+/=\s:,.\-]*?-----END (?:[A-Z]+ )?PRIVATE KEY-----",
    re.ASCII,
)
#: Every pattern above holds one of these; looking for them first is ten times as fast.
_MARKS = ("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AIza", "k_live_", "sk-", "hf_", "npm_", "SG.", "eyJ",
          "PRIVATE KEY-----")  # fmt: skip


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    if any(mark in text for mark in _MARKS):
        yield from (match.span() for match in _SECRET.finditer(text))


_FINDERS = {"secret": _secrets, "iban": _ibans, "card": _cards, "email": _emails, "ip": _addresses, "phone": _phones}
#: Of two overlapping finds the one that was checked more stays.
_TRUST: tuple[Kind, ...] = ("secret", "iban", "card", "email", "ip", "phone")
