"""Slow and obvious Python twins of the native kernels. Tests compare the kernels with these; hand-written expectations
stand apart from them.

`re`, `str.lower` and `unicodedata` follow the Unicode of the Python that runs; the kernels have Unicode 14. Where that
is another one, `known_characters` leaves what has not been the same in all of them since.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

MASK = 2**64 - 1
FIRST = (
    0x243F6A8885A308D3,
    0x13198A2E03707344,
    0xA4093822299F31D0,
    0x082EFA98EC4E6C89,
    0x452821E638D01377,
    0xBE5466CF34E90C6C,
)

# Wide \s of the `regex` package: the property White_Space.
WHITE_SPACE = frozenset(
    [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)
# Alphabetic characters that are neither letters, marks nor letter-numbers: circled and squared letters.
OTHER_ALPHABETIC = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
# Assigned since Unicode 3.2, worth testing, and compared between Unicode 14.0, 15.0 and 15.1: no property differs.
LATER = (
    (0x10A0, 0x10FF),
    (0x13A0, 0x13FD),
    (0x1C90, 0x1CBA),
    (0x2C00, 0x2C5F),
    (0xA640, 0xA69D),
    (0xAB70, 0xABBF),
    (0x10570, 0x1057A),
    (0x11000, 0x1106F),
    (0x1D400, 0x1D7FF),
    (0x1E900, 0x1E943),
    (0x1F130, 0x1F189),
    (0x1F300, 0x1F64F),
    (0x20000, 0x2A6DD),
)


@cache
def known_characters() -> tuple[str, ...]:
    """Every character on which this Python's tables and Unicode 14 agree."""
    scalars = (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    if unicodedata.unidata_version == "14.0.0":
        return tuple(map(chr, scalars))
    old = unicodedata.ucd_3_2_0.category
    return tuple(
        chr(code)
        for code in scalars
        if old(chr(code)) != "Cn" or any(low <= code <= high for low, high in LATER)
    )


def is_regex_word(char: str) -> bool:
    category = unicodedata.category(char)
    if category[0] in "LM" or category in ("Nd", "Nl", "Pc"):
        return True
    return char in "\u200c\u200d" or any(low <= ord(char) <= high for low, high in OTHER_ALPHABETIC)


def regex_class(char: str) -> str:
    return "word" if is_regex_word(char) else "space" if ord(char) in WHITE_SPACE else "other"


def tokens(text: str, tokenizer: str = "wordpunct", char_class: str = "re") -> list[str]:
    lower = text.lower()
    if char_class == "re":
        return re.findall(r"\w+|[^\w\s]+" if tokenizer == "wordpunct" else r"\S", lower)
    found: list[str] = []
    before = "space"
    for char in lower:
        here = regex_class(char)
        if here != "space":
            if tokenizer == "wordpunct" and here == before:
                found[-1] += char
            else:
                found.append(char)
        before = here
    return found


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + k]) for k in range(1, n + 1) for i in range(len(words) - k + 1)]


def fold(a: int, b: int) -> int:
    product = a * b
    return (product >> 64) ^ (product & MASK)


def mix64_token(token: bytes, k: Sequence[int] = FIRST) -> int:
    chain, at = 0, 0

    def word(i: int) -> int:
        return int.from_bytes(token[i : i + 8].ljust(8, b"\0"), "little")

    while len(token) - at > 16:
        chain = fold(word(at) ^ k[0] ^ chain, word(at + 8) ^ k[1])
        at += 16
    product = (word(at) ^ k[0] ^ chain) * (word(at + 8) ^ k[1])
    return fold((product & MASK) ^ k[2] ^ len(token), (product >> 64) ^ k[3])


def mix64(ngram: Sequence[str]) -> int:
    value = mix64_token(ngram[0].encode())
    for token in ngram[1:]:
        value = fold(value ^ FIRST[4], mix64_token(token.encode()) ^ FIRST[5])
    return value


def bucket(ngram: Sequence[str], buckets: int, hash_name: str) -> int:
    if hash_name == "sha256":
        return int(hashlib.sha256(" ".join(ngram).encode()).hexdigest(), 16) % buckets
    return (mix64(ngram) * buckets) >> 64


def counts(words: Sequence[str], n: int, buckets: int, hash_name: str) -> Counter[int]:
    return Counter(bucket(ngram, buckets, hash_name) for ngram in ngrams(words, n))


def score(words: Sequence[str], n: int, hash_name: str, ratio: Sequence[float]) -> float:
    """The sum in the order that native/ngrams.h states, for words of at least one token."""
    total = 0.0
    for k in range(1, n + 1):
        lanes = [0.0] * 4
        for end in range(k - 1, len(words)):
            lanes[end % 4] += ratio[bucket(words[end - k + 1 : end + 1], len(ratio), hash_name)]
        total += (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    return total


def finalise(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def noise_bits(key: int, stream: int) -> int:
    before = finalise((stream + 0x9E3779B97F4A7C15) & MASK)
    after = finalise((stream + 0xD1B54A32D192ED03) & MASK)
    return finalise((finalise(key ^ before) + after) & MASK)


#: Blocks of Unicode whose scripts put no spaces between words, and the punctuation and forms that go with them.
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3000-\u312f\u31a0-\ua4cf\ua980-\ua9ff"
    "\uaa60-\uaadf\uf900-\ufaff\uff00-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)


def white_space_tokens(text: str, unit: str) -> list[str]:
    """What MinHash calls a token: scripts sets spaces around the characters of UNSPACED and splits."""
    if unit == "char":
        return [char for char in text.lower() if not char.isspace()]
    return (UNSPACED.sub(r" \g<0> ", text.lower()) if unit == "scripts" else text.lower()).split()


def shingles(text: str, n: int, unit: str) -> list[tuple[str, ...]]:
    """Runs of n tokens; the whole of a shorter text that has one."""
    found = white_space_tokens(text, unit)
    runs = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return runs or ([tuple(found)] if found else [])


def shingle_hash(shingle: Sequence[str]) -> int:
    """native/minhash.h's g; C0 is odd, so it is its own multiplier."""
    total = 0
    for token in shingle:
        total = (total * FIRST[0] + mix64_token(token.encode())) & MASK
    return fold(total ^ FIRST[4], FIRST[5])


SECOND = (0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917, 0x9216D5D98979FB1B)


def projection(grams: set[int], dim: int) -> list[int]:
    """native/embed.h's sums of one set."""
    words = {g: [fold(((g + (i + 1) * SECOND[0]) & MASK) ^ SECOND[1], SECOND[2]) for i in range((dim + 63) // 64)] for g in grams}
    return [sum(1 if word[j // 64] >> (j % 64) & 1 else -1 for word in words.values()) for j in range(dim)]
