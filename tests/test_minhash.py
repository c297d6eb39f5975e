from __future__ import annotations

import doctest
import hashlib
import json
import math
import random

import numpy as np
import pyarrow as pa
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import _native, minhash, ngrams
from curate.errors import ConfigError, DataError
from curate.minhash import MinhashSpec

LEVELS = tuple(ngrams.SIMD_LEVELS)
FOX = "The quick brown fox jumps over the lazy dog"
THREE = [FOX, "ÜBER naïve İstanbul", "one"]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with each set of instructions; all must give the same bits."""
    monkeypatch.setenv("CURATE_SIMD", request.param)
    return str(request.param)


def expected(text: str, spec: MinhashSpec, unit: str) -> tuple[list[int], int, int]:
    """A twin of the native scheme: signature, shingles, sum."""
    hashes = [twins.shingle_hash(s) for s in twins.shingles(text, spec.ngram, unit)]
    a, b = minhash.permutations(spec)
    pairs = list(zip(a[: spec.num_perm].tolist(), b[: spec.num_perm].tolist(), strict=True))
    signature = [min([(p * (x >> 32) + q) % 2**32 for x in hashes], default=2**32 - 1) for p, q in pairs]
    return signature, len(hashes), sum(hashes) % 2**64


def signed(texts: list[str], spec: MinhashSpec) -> list[list[int]]:
    found: list[list[int]] = minhash.signatures(pa.array(texts, pa.string()), spec).values.tolist()
    return found


# ------------------------------------------------------------------ datasketch's numbers


@pytest.mark.parametrize(
    ("scheme", "ngram", "seed", "first_three_and_last", "all_of_them"),
    [
        ("affine32", 1, 1, [2103838, 659818257, 333462271, 1024006891], "364aa96acb908c13"),
        ("affine32", 1, 42, [581380997, 712679760, 266836617, 319900516], "96c04cdd7d75c5d0"),
        ("affine32", 2, 1, [276171571, 493804583, 1837678530, 28675329], "388edb79b3f563d4"),
        ("affine32", 2, 42, [530339657, 752290725, 87506773, 278317808], "fb3fc7f8d0f60c2c"),
        ("affine32", 5, 1, [525945524, 412836237, 741861544, 278912327], "1627c80f7736d54b"),
        ("affine32", 5, 42, [6127298, 2425441295, 1090973062, 751088334], "bcfe72a5a828ed5c"),
        ("legacy", 1, 1, [407326892, 34383241, 44059036, 108137345], "3d2bcb748419f598"),
        ("legacy", 1, 42, [539381088, 74520796, 609088315, 82276620], "e2b4c1c0935a78e4"),
        ("legacy", 2, 1, [87511844, 646447938, 568966711, 1505332328], "6b5cc4a9d1e2266d"),
        ("legacy", 2, 42, [1722258191, 443437826, 1940363038, 123460601], "bd8f4e806f466004"),
        ("legacy", 5, 1, [2106687621, 183870673, 201817220, 416494624], "1b92d57491d76c72"),
        ("legacy", 5, 42, [186966786, 59101012, 343111293, 989659551], "ef15a185eb57665b"),
    ],
)
def test_the_two_schemes_of_datasketch_give_its_signatures(
    level: str, scheme: str, ngram: int, seed: int, first_three_and_last: list[int], all_of_them: str
) -> None:
    """Written down from datasketch 2.0.0: MinHash(128, seed, scheme=...) of the words joined by one blank."""
    found = signed(THREE, MinhashSpec(scheme=scheme, ngram=ngram, seed=seed))  # type: ignore[arg-type]
    assert found[0][:3] + found[0][-1:] == first_three_and_last
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] == all_of_them


@pytest.mark.parametrize("bytes_", [1, 54, 55, 56, 63, 64, 65, 119, 120, 200, 1000])
@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
def test_the_sha_1_of_a_token_of_any_length_is_datasketchs(level: str, scheme: str, bytes_: int) -> None:
    word = "".join(chr(97 + i % 26) for i in range(bytes_))
    x = int.from_bytes(hashlib.sha1(word.encode()).digest()[:4], "little")
    spec = MinhashSpec(scheme=scheme, ngram=1, num_perm=3)  # type: ignore[arg-type]
    a, b = (values.tolist() for values in minhash.permutations(spec))
    if scheme == "affine32":
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ x >> shift) * factor % 2**32
        x ^= x >> 16
        wanted = [(a[i] * x + b[i]) % 2**32 for i in range(3)]
    else:
        wanted = [(a[i] * x + b[i]) % 2**64 % (2**61 - 1) % 2**32 for i in range(3)]
    assert signed([word], spec) == [wanted]


def test_characters_are_joined_by_nothing_for_the_sha_1(level: str) -> None:
    by_char = signed(["你 好\n世"], MinhashSpec(scheme="affine32", unit="char", ngram=3))
    assert by_char == signed(["你好世"], MinhashSpec(scheme="affine32", unit="word", ngram=3))


def test_the_legacy_permutations_wrap_as_numpys_do(level: str) -> None:
    """Products of a 61-bit and a 32-bit number pass 2^64; the fast hash brings many x."""
    spec = MinhashSpec(scheme="legacy", hash="mix64", num_perm=37, ngram=1)
    words = [f"w{i}" for i in range(3000)]
    a, b = (values[:37, None] for values in minhash.permutations(spec))
    x = np.array([twins.shingle_hash([word]) >> 32 for word in words], np.uint64)
    with np.errstate(over="ignore"):
        wanted = ((a * x + b) % np.uint64(2**61 - 1) & np.uint64(2**32 - 1)).min(axis=1)
    assert signed([" ".join(words)], spec) == [wanted.tolist()]


def test_a_legacy_value_at_the_very_prime_is_nought(level: str) -> None:
    """(2^61 - 1) * 1 + 0 and its neighbours: where a quick reduction would be one too many or too few."""
    prime = 2**61 - 1
    word = next(w for w in (f"w{i}" for i in range(100)) if twins.shingle_hash([w]) >> 32 > 0)
    x = twins.shingle_hash([word]) >> 32
    for want in (prime - 1, prime, prime + 1, 2 * prime - 1, 2 * prime, 2 * prime + 1, 8 * prime - 1, 8 * prime, 2**64 - 1, 0):
        a = np.full(32, 5, np.uint64)
        b = np.full(32, (want - 5 * x) % 2**64, np.uint64)
        out, count, total = np.empty(1, np.uint32), np.empty(1, np.int64), np.empty(1, np.uint64)
        _native.minhash_signatures(pa.array([word]), (1, 0, 0, 2, 1, ngrams.simd()), a, b, out, count, total)
        assert int(out[0]) == want % 2**64 % prime % 2**32


# ------------------------------------------------------------------ the native scheme


def test_the_native_scheme_has_these_numbers_for_good(level: str) -> None:
    """From tests/twins.py by hand: permutations drawn by its noise, shingles hashed by its sums."""
    found = signed([FOX, "one"], MinhashSpec(num_perm=4))
    assert found == [[1174391417, 2347139142, 1317728041, 206226245], [3857477430, 510683103, 4191556879, 3984232994]]
    values, starts = minhash.shingle_sets(pa.array([FOX, "one"]), MinhashSpec())
    assert starts.tolist() == [0, 5, 6]
    assert 0x6F28371523E99A99 in values[:5]
    assert values[5] == 0xFCF8757EC448A1A9


ALPHABET = st.sampled_from([*"aA bB\n\t.，é ÉßẞİΣσς\u0345\u00a0\u2003\u3000\x1c\x85你好กि😀'_", "word ", "  ", "x" * 20, "Ⱥ"])


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.lists(ALPHABET, max_size=40).map("".join), min_size=1, max_size=5),
    ngram=st.integers(1, 9), num_perm=st.sampled_from([1, 2, 31, 32, 33, 64, 100]), unit=st.sampled_from(["word", "char", "scripts"]),
    where=st.sampled_from(LEVELS), seed=st.integers(-5, 5),
)  # fmt: skip
def test_signatures_are_the_twins(texts: list[str], ngram: int, num_perm: int, unit: str, where: str, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATE_SIMD", where)
        spec = MinhashSpec(ngram=ngram, num_perm=num_perm, unit=unit, seed=seed)  # type: ignore[arg-type]
        found = minhash.signatures(pa.array(texts), spec)
        values, starts = minhash.shingle_sets(pa.array(texts), spec)
    for i, text in enumerate(texts):
        signature, count, total = expected(text, spec, unit)
        assert found.values[i].tolist() == signature
        assert (found.shingles[i], int(found.sums[i])) == (count, total)
        mine = sorted({twins.shingle_hash(s) for s in twins.shingles(text, ngram, unit)})
        assert values[starts[i] : starts[i + 1]].tolist() == mine


@pytest.mark.parametrize("ngram", [1, 5, 64])
@pytest.mark.parametrize("words", [62, 63, 64, 65, 1023, 1024, 1025, 1100, 5000])
def test_shingles_run_on_from_batch_to_batch(level: str, words: int, ngram: int) -> None:
    draw = random.Random(words)
    text = " ".join(str(draw.randrange(10**6)) for _ in range(words))
    spec = MinhashSpec(ngram=ngram, num_perm=8)
    found = minhash.signatures(pa.array([text]), spec)
    assert (found.values[0].tolist(), int(found.shingles[0]), int(found.sums[0])) == expected(text, spec, "word")


def test_white_space_and_case_make_no_difference(level: str) -> None:
    a, b, c = signed(["One two\tTHREE four five six", "\none  two three four\u3000five six ", "one two three four five seven"], MinhashSpec())
    assert a == b
    assert a != c


def test_a_text_shorter_than_a_shingle_is_one_shingle_and_none_has_none(level: str) -> None:
    found = minhash.signatures(pa.array(["a b", "A  B", "a", "", " \n", None]), MinhashSpec(ngram=3))
    assert found.shingles.tolist() == [1, 1, 1, 0, 0, -1]
    assert found.values[0].tolist() == found.values[1].tolist() != found.values[2].tolist()
    assert (found.values[3:] == 2**32 - 1).all()
    assert found.sums[3:].tolist() == [0, 0, 0]
    assert minhash.shingle_sets(pa.array(["a b", None, "", "a"]), MinhashSpec(ngram=3))[1].tolist() == [0, 1, 1, 1, 2]


# ------------------------------------------------------------------ the unit


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("plain words", ["plain", "words"]),
        ("你好世界", ["你", "好", "世", "界"]),
        ("これはペン。", ["こ", "れ", "は", "ペ", "ン", "。"]),
        ("ไทย ລາວ", ["ไ", "ท", "ย", "ລ", "າ", "ວ"]),
        ("ខ្មែរ", list("ខ្មែរ")),
        ("မြန်", list("မြန်")),
        ("བོད་", list("བོད་")),
        ("ꀀꀁ 𠀀𠀁", ["ꀀ", "ꀁ", "𠀀", "𠀁"]),
        ("ｱｲｳ，Ａ", ["ｱ", "ｲ", "ｳ", "，", "ａ"]),
        ("Python是一种 Language，好", ["python", "是", "一", "种", "language", "，", "好"]),
        ("a你b", ["a", "你", "b"]),
        ("你\u3000好\u2003x", ["你", "好", "x"]),
        ("“你好”—", ["“", "你", "好", "”—"]),
        ("한국어는 띄어쓰기를", ["한국어는", "띄어쓰기를"]),
        ("हिन्दी में शब्दों", ["हिन्दी", "में", "शब्दों"]),
        ("“Curly quotes” — dashes… €5", ["“curly", "quotes”", "—", "dashes…", "€5"]),
        ("𝔘𝔫𝔦 😀😀", ["𝔘𝔫𝔦", "😀😀"]),
        ("Ⱥ你İ好", ["ⱥ", "你", "i̇", "好"]),
    ],
)
def test_words_and_unspaced_characters_are_tokens_side_by_side(level: str, text: str, tokens: list[str]) -> None:
    assert twins.white_space_tokens(text, "scripts") == tokens
    values, starts = minhash.shingle_sets(pa.array([text]), MinhashSpec(ngram=1, unit="scripts"))
    assert starts.tolist() == [0, len(set(tokens))]
    assert values.tolist() == sorted({twins.shingle_hash([token]) for token in tokens})


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
def test_the_sha_1_has_a_blank_between_words_and_none_beside_a_character(level: str, scheme: str) -> None:
    """The shingles of three: as datasketch would be given them."""
    given = [["ab", "cd", "你"], ["cd", "你", "好"], ["你", "好", "ef"], ["好", "ef", "gh"]]
    joined = ["ab cd你", "cd你好", "你好ef", "好ef gh"]
    spec = MinhashSpec(scheme=scheme, ngram=3, num_perm=33, unit="scripts")  # type: ignore[arg-type]
    assert twins.shingles("ab CD你好 ef gh", 3, "scripts") == [tuple(g) for g in given]
    whole = signed(["ab CD你好 ef gh"], spec)[0]
    one_word = MinhashSpec(scheme=scheme, ngram=1, num_perm=33, unit="word")  # type: ignore[arg-type]
    by_bytes = [signed([text.replace(" ", "\u0001")], one_word)[0] for text in joined]
    assert whole != [min(column) for column in zip(*by_bytes, strict=True)]  # a blank is a blank
    x = [int.from_bytes(hashlib.sha1(text.encode()).digest()[:4], "little") for text in joined]
    a, b = (values[:33].tolist() for values in minhash.permutations(spec))
    if scheme == "affine32":
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = [(v ^ v >> shift) * factor % 2**32 for v in x]
        x = [v ^ v >> 16 for v in x]
        wanted = [min((p * v + q) % 2**32 for v in x) for p, q in zip(a, b, strict=True)]
    else:
        wanted = [min((p * v + q) % 2**64 % (2**61 - 1) % 2**32 for v in x) for p, q in zip(a, b, strict=True)]
    assert whole == wanted


def test_a_text_without_unspaced_characters_is_cut_as_words_are_and_one_of_them_as_characters_are(level: str) -> None:
    spaced = ["Русский текст и ещё слова, “quoted” — हिन्दी में\u00a0한국어는 띄어쓰기를 😀 x" * 9, FOX, ""]
    unspaced = ["你好世界欢迎来到北京。これはペンです\u3000ภาษาไทย" * 40, "你"]
    for texts, unit in ((spaced, "word"), (unspaced, "char")):
        by_unit, scripts = (minhash.signatures(pa.array(texts), MinhashSpec(num_perm=40, unit=u)) for u in (unit, "scripts"))  # type: ignore[arg-type]
        assert scripts.values.tolist() == by_unit.values.tolist()
        assert scripts.sums.tolist() == by_unit.sums.tolist()
        assert scripts.shingles.tolist() == by_unit.shingles.tolist()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9])
def test_a_changed_word_takes_a_text_of_two_scripts_over_no_border(share: float) -> None:
    """However much of a text is unspaced, an edit of one token costs at most `ngram` of its shingles."""
    draw = random.Random(3)
    characters = [chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(400)]
    pieces = [characters[i] if draw.random() < share else f" word{draw.randrange(900)} " for i in range(400)]
    edited = [*pieces[:200], " Longerwordwithmanyletters ", *pieces[201:]]
    values, starts = minhash.shingle_sets(pa.array(["".join(pieces), "".join(edited)]), MinhashSpec(unit="scripts"))
    (index,) = minhash.jaccard(values, starts, np.array([0]), np.array([1]))
    assert index >= (396 - 5) / (396 + 5)


def share_of(text: str) -> float:
    """The share of unspaced characters where it is more than a half."""
    shown = [char for char in text if not char.isspace()]
    unspaced = sum(bool(twins.UNSPACED.match(char)) for char in shown)
    return unspaced / len(shown) if 2 * unspaced > len(shown) else 0.0


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.lists(st.one_of(ALPHABET, st.sampled_from("你好ไทย。ｱ　𠀀한é")), max_size=60).map("".join) | st.text(max_size=30), min_size=1, max_size=6),
    cut=st.integers(0, 3),
)  # fmt: skip
def test_the_share_of_unspaced_characters_is_counted_where_it_is_more_than_a_half(texts: list[str], cut: int) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    column = pa.array([*texts, None, "你" * 3 + "\u3000abc", "你好" * 50_000 + "x" * 99_999])
    wanted = [*map(share_of, texts), 0.0, 0.0, 100_000 / 199_999]
    for shown in (column, column.cast(pa.large_string())):
        assert minhash.unspaced(shown.slice(min(cut, len(texts)))).tolist() == wanted[min(cut, len(texts)) :]


def test_words_are_beside_the_point_where_texts_that_share_none_of_them_reach_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.9):
        u = minhash.without_words(threshold)
        assert u / (u + 2 * (1 - u)) == pytest.approx(threshold)
    assert minhash.without_words(0.1) == 0.5


# ------------------------------------------------------------------ Arrow


def test_slices_chunks_large_strings_and_nulls_give_the_same(level: str) -> None:
    texts = ["skipped", *THREE, None, "", "six seven eight nine ten eleven", "你好，世界你好"]
    whole = minhash.signatures(pa.array(texts), MinhashSpec(num_perm=33))
    for column in (
        pa.array(texts, pa.large_string()),
        pa.chunked_array([texts[:3], [], texts[3:]], pa.string()),
        pa.chunked_array([pa.array(["x", *texts], pa.large_string()).slice(1)]),
    ):
        other = minhash.signatures(column, MinhashSpec(num_perm=33))
        assert other.values.tolist() == whole.values.tolist()
        assert other.shingles.tolist() == whole.shingles.tolist()
        assert other.sums.tolist() == whole.sums.tolist()
    sliced = minhash.signatures(pa.array(texts).slice(1, 4), MinhashSpec(num_perm=33))
    assert sliced.values.tolist() == whole.values[1:5].tolist()
    assert minhash.signatures(pa.chunked_array([], pa.string()), MinhashSpec()).values.shape == (0, 128)
    values, starts = minhash.shingle_sets(pa.array(texts).slice(1, 4), MinhashSpec(ngram=2))
    by_chunks = minhash.shingle_sets(pa.chunked_array([texts[1:2], texts[2:5]]), MinhashSpec(ngram=2))
    assert values.tolist() == by_chunks[0].tolist()
    assert starts.tolist() == by_chunks[1].tolist() == [0, 8, 10, 11, 11]


def test_more_rows_than_a_batch_of_arrow_has() -> None:
    many = minhash.signatures(pa.array([f"row {i % 7}" for i in range(70_000)]), MinhashSpec(num_perm=2, ngram=1))
    assert len(np.unique(many.values, axis=0)) == 7


def test_what_is_no_text_is_refused_and_so_is_a_damaged_column() -> None:
    with pytest.raises(ConfigError, match="expected a string or large_string array"):
        minhash.signatures(pa.array([1, 2]), MinhashSpec())
    lying = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 9, 3], np.int32)), pa.py_buffer(b"abcdefghi"))
    with pytest.raises(DataError, match="offsets"):
        minhash.shingle_sets(lying, MinhashSpec())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ngram": 0}, "ngram from 1 to 64"), ({"ngram": 65}, "ngram from 1 to 64"), ({"num_perm": 0}, "num_perm from 1"),
        ({"num_perm": 2049}, "num_perm from 1"), ({"unit": "line"}, "unit as one of"), ({"scheme": "x"}, "scheme as one of"),
        ({"hash": "md5"}, "hash as one of"), ({"scheme": "legacy", "seed": -1}, "seed from 0"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MinhashSpec(**wrong)  # type: ignore[arg-type]


def test_the_kernel_refuses_what_would_write_elsewhere() -> None:
    text, ok = pa.array(["a"]), (1, 0, 0, 0, 1, 0)
    a = np.ones(32, np.uint32)
    row, count, total = np.empty(1, np.uint32), np.empty(1, np.int64), np.empty(1, np.uint64)
    for settings_ in ((0, 0, 0, 0, 1, 0), (65, 0, 0, 0, 1, 0), (1, 3, 0, 0, 1, 0), (1, 0, 2, 0, 1, 0), (1, 0, 0, 3, 1, 0), (1, 0, 0, 0, 4000, 0)):
        with pytest.raises(ValueError, match="expected ngram in"):
            _native.minhash_signatures(text, settings_, a, a, row, count, total)
    with pytest.raises(ValueError, match="'a'"):
        _native.minhash_signatures(text, ok, a[:31], a, row, count, total)
    with pytest.raises(ValueError, match="'signatures'"):
        _native.minhash_signatures(text, ok, a, a, row[:0], count, total)
    with pytest.raises(ValueError, match="'values'"):
        _native.minhash_sets(text, ok, np.empty(1, np.uint64), count)
    one, none = np.zeros(1, np.int64), np.zeros(0, np.int64)
    for left, right in ((one + 1, one), (one, one - 1)):
        with pytest.raises(ValueError, match="expected numbers below 1"):
            _native.minhash_shared(np.empty(1, np.uint64), np.array([0, 1]), left, right, one)
        with pytest.raises(ValueError, match="expected numbers below 1"):
            _native.minhash_join(one, left, right)
    with pytest.raises(ValueError, match="never decrease"):
        _native.minhash_shared(np.empty(1, np.uint64), np.array([0, 2]), one, one, one)
    with pytest.raises(ValueError, match="'right'"):
        _native.minhash_join(one, one, none)
    with pytest.raises(ValueError, match="parent of 0"):
        _native.minhash_join(one + 5, one, one)
    with pytest.raises(ValueError, match=r"bands \* rows"):
        _native.minhash_bands(row, 1, 2, 1, total)


# ------------------------------------------------------------------ sets, forests, bands


@settings(max_examples=60, deadline=None)
@given(sets=st.lists(st.sets(st.integers(0, 40)), min_size=1, max_size=6))
def test_the_jaccard_index_is_that_of_the_sets(sets: list[set[int]]) -> None:
    values = np.array([v for s in sets for v in sorted(s)], np.uint64)
    starts = np.cumsum([0, *map(len, sets)])
    pairs = [(i, j) for i in range(len(sets)) for j in range(len(sets))]
    left, right = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    wanted = [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) if sets[i] | sets[j] else 0.0 for i, j in pairs]
    assert minhash.jaccard(values, starts, left, right).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 30))
def test_a_forest_joins_what_a_slow_one_joins_and_roots_are_the_least(data: st.DataObject, n: int) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40))
    name = list(range(n))
    for a, b in pairs:
        low, high = sorted((name[a], name[b]))
        name = [low if v == high else v for v in name]
    parent = np.arange(n)
    minhash.join(parent, np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64))
    assert minhash.roots(parent).tolist() == name


def test_a_band_is_a_key_of_its_rows_and_its_number() -> None:
    values = np.array([[1, 2, 1, 2, 9], [1, 2, 3, 4, 8], [2, 1, 1, 2, 7]], np.uint32)
    keys = minhash.band_keys(values, 2, 2)
    assert keys.shape == (3, 2)
    assert keys[0, 0] == keys[1, 0] != keys[2, 0]
    assert keys[0, 1] == keys[2, 1] != keys[1, 1]
    assert keys[0, 0] != keys[0, 1]  # the same rows in another band
    start = twins.fold(0 ^ SECOND[0], SECOND[1])
    assert int(keys[0, 0]) == twins.fold(start ^ SECOND[4], (1 | 2 << 32) ^ SECOND[5])
    odd = int(minhash.band_keys(values, 1, 3)[0, 0])  # pairs of rows, and the last alone
    assert odd == twins.fold(int(keys[0, 0]) ^ SECOND[4], 1 ^ SECOND[5])


SECOND = (0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917, 0x9216D5D98979FB1B, 0xD1310BA698DFB5AC, 0x2FFD72DBD01ADFB7, 0xB8E1AFED6A267E96)


def test_the_curve_rises_with_the_jaccard_index() -> None:
    """1 - (1 - 0.8^6)^16 = 1 - 0.737856^16."""
    assert minhash.detection(0.8, 16, 6) == pytest.approx(0.992282, abs=1e-6)
    assert minhash.detection(0.5, 16, 6) == pytest.approx(1 - (63 / 64) ** 16, abs=1e-12)
    found = [p for _, p in minhash.curve(16, 6)]
    assert found == sorted(found)
    assert minhash.detection(1.0, 3, 7) == 1.0


@pytest.mark.parametrize("num_perm", [64, 128, 256])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95])
def test_bands_find_a_pair_above_the_threshold_and_no_others_cost_less(threshold: float, num_perm: int) -> None:
    at = min(threshold + 0.1, (threshold + 1) / 2)
    bands, rows = minhash.choose_bands(threshold, num_perm)
    assert bands * rows <= num_perm
    assert 1 - (1 - at**rows) ** bands >= 0.99

    def below(b: int, r: int) -> float:
        """The area under the curve, by Simpson's rule."""
        x = np.linspace(0, threshold, 2001)
        y = 1 - (1 - x**r) ** b
        return float((y[0] + y[-1] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum()) * threshold / 2000 / 3)

    others = [(b, r) for r in range(1, num_perm + 1) for b in range(1, num_perm // r + 1) if 1 - (1 - at**r) ** b >= 0.99]
    assert below(bands, rows) <= min(below(b, r) for b, r in others) + 1e-6


def test_the_bands_of_the_issue() -> None:
    assert minhash.choose_bands(0.7, 128) == (16, 6)
    assert minhash.choose_bands(0.8, 128) == (11, 10)


@pytest.mark.parametrize(
    ("num_perm", "bands_and_rows"),
    [
        (64, [(28, 2), (21, 3), (14, 4), (10, 6), (8, 8), (5, 11), (3, 21), (2, 32)]),
        (128, [(28, 2), (37, 3), (25, 5), (18, 7), (14, 9), (9, 13), (5, 25), (3, 42)]),
        (256, [(85, 3), (64, 4), (42, 6), (32, 8), (25, 10), (17, 15), (9, 28), (5, 51)]),
    ],
)
def test_the_rule_of_datasketch_chooses_what_it_chooses(num_perm: int, bands_and_rows: list[tuple[int, int]]) -> None:
    """Written down from datasketch 2.0.0 with scipy: MinHashLSH(threshold, num_perm), weights (0.5, 0.5)."""
    thresholds = (0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    assert [minhash.choose_bands(t, num_perm, "datasketch") for t in thresholds] == bands_and_rows


def test_too_few_permutations_for_any_bands_is_an_error() -> None:
    with pytest.raises(ConfigError, match="raise num_perm"):
        minhash.choose_bands(0.1, 16)
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(ConfigError, match="threshold above 0 and below 1"):
            minhash.choose_bands(wrong, 128)


# ------------------------------------------------------------------ statistics


def pairs_at(similarity: float, count: int, words: int = 300) -> tuple[list[str], list[str]]:
    """Pairs of texts whose sets of words have exactly this Jaccard index; every word is in one pair alone."""
    shared = round(2 * words * similarity / (1 + similarity))
    assert shared / (2 * words - shared) == pytest.approx(similarity, abs=0.005)
    left, right = [], []
    for pair in range(count):
        common = [f"c{pair}x{i}" for i in range(shared)]
        left.append(" ".join(common + [f"l{pair}x{i}" for i in range(words - shared)]))
        right.append(" ".join(common + [f"r{pair}x{i}" for i in range(words - shared)]))
    return left, right


@pytest.mark.parametrize("scheme", ["native", "affine32", "legacy"])
@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8])
def test_the_share_of_equal_places_is_the_jaccard_index(scheme: str, similarity: float) -> None:
    """Over pairs, the estimate's mean and spread are those of 128 independent draws."""
    left, right = pairs_at(similarity, 400)
    spec = MinhashSpec(ngram=1, scheme=scheme, hash="mix64")  # type: ignore[arg-type]
    found = minhash.estimate(minhash.signatures(pa.array(left), spec).values, minhash.signatures(pa.array(right), spec).values)
    spread = math.sqrt(similarity * (1 - similarity) / 128)
    assert found.mean() == pytest.approx(similarity, abs=4 * spread / math.sqrt(400) + 0.002)
    assert found.std() == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8])
def test_pairs_meet_as_often_as_the_curve_says(similarity: float) -> None:
    left, right = pairs_at(similarity, 1000, words=200)
    spec = MinhashSpec(ngram=1)
    bands, rows = minhash.choose_bands(0.7, 128)
    a, b = (minhash.band_keys(minhash.signatures(pa.array(side), spec).values, bands, rows) for side in (left, right))
    met = int((a == b).any(axis=1).sum())
    p = minhash.detection(round(400 * similarity / (1 + similarity)) / (400 - round(400 * similarity / (1 + similarity))), bands, rows)
    assert abs(met - 1000 * p) <= 4 * math.sqrt(1000 * p * (1 - p)) + 1


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(minhash, extraglobs={"pa": pa}).failed == 0
