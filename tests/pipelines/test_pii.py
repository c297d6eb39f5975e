"""Personal data: what is found and what only looks like it, on texts whose truth is known."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import call, counts, docs, published_rows, recipe_for, run, write_rows

from curate.errors import ConfigError
from curate.pipelines.pii import KINDS, PiiParams, finds

Draw = random.Random


def luhn(body: str) -> str:
    """The body with the digit that completes it, by the published algorithm: double every second digit from the right."""
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def iban(country: str, body: str) -> str:
    """An IBAN with its check digits: 98 less the remainder of body, country, 00 by 97, letters being 10 to 35."""
    number = "".join(str(string.digits.index(c)) if c.isdigit() else str(10 + string.ascii_uppercase.index(c)) for c in f"{body}{country}00")
    return f"{country}{98 - int(number) % 97:02d}{body}"


def digits(draw: Draw, n: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(n))


def word(draw: Draw, letters: str = string.ascii_lowercase) -> str:
    return "".join(draw.choice(letters) for _ in range(draw.randint(3, 9)))


def email(draw: Draw) -> str:
    local = draw.choice([word(draw), f"{word(draw)}.{word(draw)}", f"{word(draw)}+{word(draw)}", f"{word(draw)}_{digits(draw, 2)}"])
    return f"{local}@{draw.choice(['', 'mail.'])}{word(draw)}.{draw.choice(['com', 'org', 'de', 'co.uk', 'museum'])}"


def ip(draw: Draw) -> str:
    if draw.random() < 0.2:
        return f"2a00:1450:4001:{draw.randrange(1, 65536):x}::{draw.randrange(1, 65536):x}"
    return f"{draw.choice([8, 23, 80, 93, 130, 185, 212])}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


def phone(draw: Draw) -> str:
    area, exchange = str(draw.randint(200, 999)), str(draw.randint(200, 999))
    number = digits(draw, 4)
    return draw.choice(
        [f"+1 {area}-{exchange}-{number}", f"({area}) {exchange}-{number}", f"{area}-{exchange}-{number}", f"{area}.{exchange}.{number}",
         f"+49 {draw.randint(30, 999)} {digits(draw, 7)}", f"+44{digits(draw, 10)}", f"+33 {draw.randint(1, 9)} {digits(draw, 2)} {digits(draw, 2)} {digits(draw, 2)} {digits(draw, 2)}"]
    )  # fmt: skip


def account(draw: Draw) -> str:
    country, form = draw.choice([("DE", "d18"), ("NL", "u4d10"), ("GB", "u4d14"), ("FR", "d23"), ("ES", "d20")])
    body = "".join(word(draw, string.ascii_uppercase)[:1] for _ in range(4)) + digits(draw, int(form[3:])) if form[0] == "u" else digits(draw, int(form[1:]))
    whole = iban(country, body)
    return whole if draw.random() < 0.5 else " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))


def card(draw: Draw) -> str:
    number = luhn(draw.choice(["4", "51", "55"]).ljust(3, "9") + digits(draw, 12))
    return draw.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4)), "-".join(number[i : i + 4] for i in range(0, 16, 4))])


def secret(draw: Draw) -> str:
    letters = string.ascii_letters + string.digits
    return draw.choice(
        ["AKIA" + "".join(draw.choice(string.ascii_uppercase + string.digits) for _ in range(16)), "ghp_" + "".join(draw.choice(letters) for _ in range(36)),
         "hf_" + "".join(draw.choice(letters) for _ in range(34)), "AIza" + "".join(draw.choice(letters) for _ in range(35))]
    )  # fmt: skip


PLANTS: dict[str, Callable[[Draw], str]] = {"email": email, "ip": ip, "phone": phone, "iban": account, "card": card, "secret": secret}


def decoy(draw: Draw) -> str:
    """What looks like it and is nothing of it."""
    wrong = luhn("4" + digits(draw, 14))
    off = iban("DE", digits(draw, 18))
    return draw.choice(
        [f"192.168.{draw.randrange(256)}.{draw.randrange(256)}", f"127.0.0.{draw.randrange(256)}", f"v{draw.randrange(9)}.{draw.randrange(20)}.{draw.randrange(20)}.{draw.randrange(20)}",
         f"{draw.randrange(1900, 2030)}-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d}", f"{draw.randrange(24):02d}:{draw.randrange(60):02d}:{draw.randrange(60):02d}",
         f"icon@{draw.randrange(2, 4)}x.png", f"@{word(draw)}", f"{word(draw)}@localhost", wrong[:-1] + str((int(wrong[-1]) + 1) % 10), off[:2] + f"{(int(off[2:4]) + 1) % 97:02d}" + off[4:],
         f"${draw.randrange(1000)},{digits(draw, 3)}.00", f"0x{draw.randrange(2**32):08x}", f"std::{word(draw)}::{word(draw)}", f"3.14159265358979{digits(draw, 3)}", f"978-3-{digits(draw, 4)}-{digits(draw, 4)}-{draw.randrange(10)}",
         f"sk-{word(draw)}", f"ISO {digits(draw, 4)}-{draw.randrange(9)}", f"{digits(draw, 3)}-{digits(draw, 2)}", f"fe80::{draw.randrange(1, 9999):x}", f"#{digits(draw, 10)}"]
    )  # fmt: skip


def test_precision_and_recall_on_texts_whose_truth_is_known() -> None:
    draw = random.Random(20)
    truth: Counter[str] = Counter()
    found: Counter[str] = Counter()
    wrong: list[tuple[str, str]] = []
    for _ in range(3000):
        pieces: list[tuple[str, str | None]] = []
        for _ in range(draw.randint(1, 8)):
            kind = draw.choice([*PLANTS, None, None, None])
            pieces.append((PLANTS[kind](draw), kind) if kind else (decoy(draw), None))
        text, place = "", {}
        for piece, kind in pieces:
            text += draw.choice([f"{word(draw)} ", f"Größe {word(draw)}: ", f"\n{word(draw)} (", f"“{word(draw)}” "])
            if kind:
                place[len(text), len(text) + len(piece)] = kind
                truth[kind] += 1
            text += piece + draw.choice([" ", ", ", ")\n", ". ", "; "])
        for start, stop, kind in finds(text):
            if place.get((start, stop)) == kind:
                found[kind] += 1
            else:
                wrong.append((kind, text[max(0, start - 10) : stop + 10]))
    missed = {kind: 1 - found[kind] / truth[kind] for kind in KINDS}
    assert all(share <= 0.005 for share in missed.values()), missed
    assert len(wrong) <= 0.005 * sum(found.values()), wrong[:10]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to a.b@c.org.", [("a.b@c.org", "email")]),
        ("'jo@x.de'", [("jo@x.de", "email")]),
        ("user@host, user@host.", []),
        ("DNS 1.1.1.1, mask 255.255.255.0, net 10.1.2.3", [("1.1.1.1", "ip")]),
        ("see section 3.2.1.4.5", []),
        ("2001:4860:4860::8888", [("2001:4860:4860::8888", "ip")]),
        ("GB82 WEST 1234 5698 7654 32 is the registry's example", [("GB82 WEST 1234 5698 7654 32", "iban")]),
        ("GB83 WEST 1234 5698 7654 32", []),
        ("4111 1111 1111 1111", [("4111 1111 1111 1111", "card")]),
        ("4111 1111 1111 1112, 4111111111111111.5", []),
        ("clause 252.227-7013", []),
        ("3782 822463 10005", [("3782 822463 10005", "card")]),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", [("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "secret")]),
    ],
)
def test_by_hand(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(text[start:stop], kind) for start, stop, kind in finds(text)] == expected


@given(st.text(st.sampled_from("a@.com 12+()-é\n4"), max_size=60))
def test_finds_are_sorted_disjoint_and_inside(text: str) -> None:
    at = 0
    for start, stop, _ in finds(text):
        assert at <= start < stop <= len(text)
        at = stop


ROWS = [
    {"id": "a", "text": "Grüße an jo@example.org — und +49 30 1234567.", "source": "s"},
    {"id": "b", "text": "nothing to see here, 192.168.0.1", "source": "s"},
    {"id": "c", "text": "key AKIAIOSFODNN7EXAMPLE and 8.8.8.8 and 8.8.4.4", "source": "s"},
]


def test_redacted_text_is_what_everybody_sees(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "0.jsonl", ROWS)
    run(recipe_for(tmp_path, stages=[{"pii": {}}], target=False), tmp_path / "run")
    texts = {row["id"]: row["text"] for row in published_rows(tmp_path / "run")}
    assert texts == {
        "a": "Grüße an <EMAIL> — und <PHONE>.",
        "b": ROWS[1]["text"],
        "c": "key <SECRET> and <IP> and <IP>",
    }
    assert {d["id"]: (d["pii"], d["pii_ip"], d["curate_bytes"]) for d in docs(tmp_path / "run").to_pylist()} == {
        name: (n, ips, len(texts[name].encode())) for name, n, ips in (("a", 2, 0), ("b", 0, 0), ("c", 3, 2))
    }
    told = call("explain", tmp_path / "run", "a")
    assert "<EMAIL>" in told.stdout
    assert "jo@example.org" not in told.stdout


def test_drop_takes_what_holds_too_many_and_tag_takes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool" / "0.jsonl", ROWS)
    run(recipe_for(tmp_path, stages=[{"pii": {"mode": "drop", "max": 2}}], target=False), tmp_path / "run")
    assert counts(tmp_path / "run") == {("pii", "personal data"): 1, ("kept", None): 2}
    run(recipe_for(tmp_path, stages=[{"pii": {"mode": "tag", "kinds": ["ip"]}}], target=False), tmp_path / "run")
    assert counts(tmp_path / "run") == {("kept", None): 3}
    assert {row["id"]: row["text"] for row in published_rows(tmp_path / "run")} == {row["id"]: row["text"] for row in ROWS}


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="mode: drop lets pass"):
        PiiParams(max=3)
    with pytest.raises(ConfigError, match="at least one of"):
        PiiParams(kinds=())
