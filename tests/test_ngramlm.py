"""The n-gram judge against a slow twin, arithmetic done by hand, and the sums that make it a probability."""

from __future__ import annotations

import math
import pickle
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import _native
from curate.errors import ConfigError, DataError
from curate.ngramlm import BYTE_ORDER, NgramLM, discount, split

# ---------------------------------------------------------------- the twin: dictionaries and recursion

ALONE = rb"\xc2[\x80-\xbf]|[\xe2-\xe9\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
WORD = rb"(?:(?!" + ALONE + rb")[A-Za-z0-9_\x80-\xff]){1,64}"
CORE = rb"(?:" + ALONE + rb"|" + WORD + rb"|[^ \t-\r])"
TOKEN = re.compile(rb" ?" + CORE + rb"|[ \t-\r]{1,63}(?= [^ \t-\r])|[ \t-\r]{1,64}")


class TwinGrams:
    """Modified Kneser-Ney over tuples of symbols, as in the paper, with a given last resort."""

    def __init__(self, sequences, order, base):
        self.order, self.base = order, base
        self.counts = [Counter() for _ in range(order + 1)]
        seen = set()
        for sequence in sequences:
            padded = ("before",) * (order - 1) + tuple(sequence)
            for i in range(order - 1, len(padded)):
                self.counts[order][padded[i - order + 1 : i + 1]] += 1
                seen.add(padded[i - order + 1 : i + 1])
        for k in range(order - 1, 0, -1):
            for gram in seen:
                self.counts[k][gram[1:]] += 1
            seen = {gram[1:] for gram in seen}
        self.after = [defaultdict(list) for _ in range(order + 1)]
        self.discounts = [None] * (order + 1)
        for k in range(1, order + 1):
            for gram, count in self.counts[k].items():
                self.after[k][gram[:-1]].append(count)
            self.discounts[k] = self.estimate(Counter(self.counts[k].values()))

    @staticmethod
    def estimate(n):
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            d = [0.0] + [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
            if all(0 < d[i] < i for i in (1, 2, 3)):
                return d
        return [0.0, 0.5, 1.0, 1.5]

    def p(self, history, symbol, k=None):
        k = self.order if k is None else k
        if k == 0:
            return self.base(symbol)
        context = tuple((("before",) * self.order + tuple(history))[-(k - 1) :]) if k > 1 else ()
        lower = self.p(history, symbol, k - 1)
        following = self.after[k].get(context)
        if not following:
            return lower
        d, c = self.discounts[k], self.counts[k][(*context, symbol)]
        mass = sum(d[min(count, 3)] for count in following)
        return (max(c - d[min(c, 3)], 0.0) + mass * lower) / sum(following)


class TwinLM:
    def __init__(self, texts, order):
        documents = [[*TOKEN.findall(text), b""] for text in texts]
        types = {token for document in documents for token in document}
        self.letters = TwinGrams([[*token, "end"] for token in types], BYTE_ORDER, lambda symbol: 1 / 257)
        self.words = TwinGrams(documents, order, self.spell)

    def spell(self, token):
        p = 1.0
        symbols = [*token, "end"]
        for i, symbol in enumerate(symbols):
            p *= self.letters.p(symbols[:i], symbol)
        return p

    def bits(self, text):
        tokens = [*TOKEN.findall(text), b""]
        return -sum(math.log2(self.words.p(tokens[:i], token)) for i, token in enumerate(tokens))


def array(*texts: str | None) -> pa.Array:
    return pa.array(list(texts), pa.string())


def raw_array(rows: list[bytes]) -> pa.Array:
    """A string array of any bytes, invalid UTF-8 included."""
    binary = pa.array(rows, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(rows), binary.buffers())


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" ", [" "]),
        ("   ", ["   "]),
        ("the cat", ["the", " cat"]),
        (" cat", [" cat"]),
        ("a  cat", ["a", " ", " cat"]),
        ("a = b+1;\n", ["a", " =", " b", "+", "1", ";", "\n"]),
        ("if x:\n    return x_1", ["if", " x", ":", "\n   ", " return", " x_1"]),
        ("end.\n\nNew", ["end", ".", "\n\n", "New"]),
        ("tab\t x", ["tab", "\t", " x"]),
        ("tab \tx", ["tab", " \t", "x"]),
        ("trailing  ", ["trailing", "  "]),
        ("it’s «so»", ["it", "’", "s", " «", "so", "»"]),
        ("naïve größe", ["naïve", " größe"]),
        ("你好，世界", ["你", "好", "，", "世", "界"]),
        ("한국어 좋다", ["한국어", " 좋다"]),
        ("go 😀😀", ["go", " 😀", "😀"]),
        ("x" * 65, ["x" * 64, "x"]),
        (" " + "x" * 65, [" " + "x" * 64, "x"]),
        ("\n" * 65, ["\n" * 64, "\n"]),
        (" " * 65 + "x", [" " * 64, " x"]),
        (" " * 64 + "x", [" " * 63, " x"]),
    ],
)
def test_a_text_is_cut_as_written_here(text, tokens):
    assert [token.decode() for token in split(text.encode())] == tokens


TRICKY = st.lists(
    st.sampled_from([b" ", b"  ", b"\n", b"\t", b"a", b"Z9_", b"x" * 63, b" " * 63, b".", b"\x00"])
    | st.sampled_from([b"\xc3\xa9", b"\xc2\xa0", b"\xc2", b"\xe4\xbd\xa0", b"\xe4\xbd", b"\xff", b"\x80"])
    | st.sampled_from([b"\xf0\x9f\x98\x80", b"\xe2\x80\x99", b"\xef\xbc\x8c", b"\xf0\x9f\x98"])
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


@given(TRICKY)
def test_the_tokens_of_any_bytes_are_the_bytes_and_agree_with_the_twin(data):
    tokens = split(data)
    assert b"".join(tokens) == data
    assert all(tokens)
    assert tokens == TOKEN.findall(data)


# ---------------------------------------------------------------- expectations by hand


def test_one_word_trained_once_costs_what_was_computed_by_hand():
    # Byte model of the two types "" and "aa" (sequences E and a a E, B before them). Every gram has count 1
    # except the single symbols, which have two left neighbours each. No level has all of n1, n2, n3, so the
    # discounts are 0.5, 1 and 1.5.
    one_symbol = (2 - 1.0 + 2 * 1.0 * (1 / 257)) / 4  # a and E alike: two symbols with count 2 in a sum of 4

    def two_followers(p):  # contexts B.., a: two symbols follow, each counted once
        return (1 - 0.5 + 2 * 0.5 * p) / 2

    def one_follower(p):  # contexts Ba, aa and longer: one symbol follows, counted once
        return 1 - 0.5 + 0.5 * p

    at_start = two_followers(two_followers(two_followers(two_followers(one_symbol))))
    later = one_follower(one_follower(one_follower(two_followers(one_symbol))))
    spelled = at_start * later * later  # a, then a, then E
    # Token model of order 1: "aa" once, the end once.
    expected = -math.log2((0.5 + 1.0 * spelled) / 2) - math.log2((0.5 + 1.0 * at_start) / 2)
    model = NgramLM.train(array("aa"), order=1)
    assert model.bits(array("aa"))[0] == pytest.approx(expected, rel=1e-12)
    assert model.spelling_bits(b"aa") == pytest.approx(
        [-math.log2(p) for p in (at_start, later, later)], rel=1e-12
    )
    # Order 3, by the same steps: first only "aa" came, after it only the end, and each is one of two types.
    first = one_follower(one_follower((0.5 + spelled) / 2))
    end = one_follower(one_follower((0.5 + at_start) / 2))
    assert NgramLM.train(array("aa")).bits(array("aa"))[0] == pytest.approx(
        -math.log2(first * end), rel=1e-12
    )


@pytest.mark.parametrize("texts", [array(), array(None, None), pa.chunked_array([], pa.string())])
def test_a_model_of_nothing_is_uniform_over_bytes_and_ends(texts):
    model = NgramLM.train(texts)
    assert (model.documents, model.tokens, model.types) == (0, 0, 0)
    # "ab" is two bytes and the token's end, "." one and the end, then the document's end: six symbols of 257
    assert model.bits(array("ab.", ""))[0] == pytest.approx(6 * math.log2(257), rel=1e-12)
    assert model.bits(array("ab.", ""))[1] == pytest.approx(math.log2(257), rel=1e-12)


def test_discounts_follow_chen_and_goodman():
    # y = 40 / (40 + 2 * 10) = 2/3; 1 - 2y * 10/40, 2 - 3y * 4/10, 3 - 4y * 1/4
    assert discount(40, 10, 4, 1) == pytest.approx((0.0, 2 / 3, 1.2, 7 / 3), rel=1e-15)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (7, 0, 0, 0), (5, 5, 0, 1), (40, 10, 4, 0), (1, 1, 50, 1)])
def test_counts_too_poor_for_an_estimate_take_the_fixed_discounts(counts):
    assert discount(*counts) == (0.0, 0.5, 1.0, 1.5)


# ---------------------------------------------------------------- the twin


WORDS = st.lists(
    st.sampled_from([b"a", b" a", b" b", b" cat", b"\n", b".", b"\xc3\xa9", b" \xff"]), max_size=14
)
TEXTS = st.lists(WORDS.map(b"".join), max_size=6)


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, st.integers(1, 4))
def test_bits_agree_with_the_twin(training, test, order):
    twin = TwinLM(training, order)
    got = NgramLM.train(raw_array(training), order=order).bits(raw_array(test))
    assert got == pytest.approx([twin.bits(text) for text in test], rel=1e-10)


def test_bits_agree_with_the_twin_where_every_table_has_grown():
    rng = random.Random(5)
    texts = [f"w{i} x{rng.randrange(900)} y{rng.randrange(9)}." for i in range(9_000)]
    twin = TwinLM([text.encode() for text in texts], 3)
    model = NgramLM.train(pa.chunked_array([texts[:10], [], texts[10:]], pa.string()))
    probes = [texts[0], texts[-1], "w17 x3 y1. w17", "unheard of"]
    assert model.types == len(set(TOKEN.findall("".join(texts).encode())))
    assert model.bits(array(*probes)) == pytest.approx([twin.bits(p.encode()) for p in probes], rel=1e-10)


# ---------------------------------------------------------------- it is a probability

PROSE = [
    "the cat sat on the mat. the dog sat on the log.",
    "a cat and a dog: both sat.\n\nthe end",
    "def f(x):\n    return x + 1\n",
    "größer als die Katze, 你好 ’quoted’",
    "the cat ate the rat that sat on the mat",
    "",
]


@pytest.fixture(scope="module")
def prose() -> NgramLM:
    return NgramLM.train(array(*PROSE))


@pytest.mark.parametrize(
    "before", [b"", b"c", b" ca", b" cat", b" the", b"\xc3", b"zq", b"\xff\x00", b"retur"]
)
def test_the_byte_model_sums_to_one_over_257_symbols(prose, before):
    total = 2 ** -prose.spelling_bits(before)[len(before)]  # the token ends here
    total += sum(2 ** -prose.spelling_bits(before + bytes([b]))[len(before)] for b in range(256))
    assert total == pytest.approx(1, abs=1e-12)


def spelled(model: NgramLM, token: bytes) -> float:
    return float(2 ** -model.spelling_bits(token).sum())


@pytest.mark.parametrize(
    "before",
    [
        [],
        [b"the"],
        [b"the", b" cat"],
        [b" cat", b" sat"],
        [b"no"],
        [b"the", b"no"],
        [b"no", b"the"],
        [b".", b" the"],
    ],
)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_known_tokens_and_the_unknown_together_sum_to_one(before, order):
    model = NgramLM.train(array(*PROSE), order=order)
    known = {token for text in PROSE for token in TOKEN.findall(text.encode())}
    n = len(before)
    of_known = 2 ** -model.token_bits(before)[n] + sum(2 ** -model.token_bits([*before, t])[n] for t in known)
    # An unknown token has (share left for spelling) * (its spelling): one of them tells the share.
    share = 2 ** -model.token_bits([*before, b"unheard"])[n] / spelled(model, b"unheard")
    of_unknown = share * (1 - spelled(model, b"") - sum(spelled(model, t) for t in known))
    assert of_known + of_unknown == pytest.approx(1, abs=1e-12)
    assert of_unknown > 0


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_any_bytes_cost_a_finite_number_of_bits_under_any_model(data):
    for texts in (array(), array("spam"), array(*PROSE)):
        bits = NgramLM.train(texts).bits(raw_array([data]))[0]
        assert 0 < bits < math.inf


def test_a_word_too_long_for_a_double_still_has_a_probability(prose):
    bits = prose.bits(array("q" * 20_000))[0]
    assert 20_000 < bits < math.inf


def test_a_text_costs_the_sum_of_its_tokens(prose):
    text = "the cat sat on the unheard-of mat"
    assert prose.bits(array(text))[0] == pytest.approx(
        prose.token_bits(split(text.encode())).sum(), rel=1e-14
    )


# ---------------------------------------------------------------- it is a fair judge


def speech(seed: int, n: int, words: int = 300) -> list[str]:
    """Sentences of a made-up language: a Markov chain with skewed choices over its own words."""
    makes = random.Random(1)
    letters = "abcdefghijklm"
    names = ["".join(makes.choices(letters, k=makes.randrange(2, 9))) for _ in range(words)]
    follow = {name: makes.choices(names, k=6) for name in names}
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        word, sentence = rng.choice(names), []
        for _ in range(rng.randrange(5, 20)):
            sentence.append(word)
            word = rng.choice(follow[word]) if rng.random() < 0.8 else rng.choice(names)
        out.append(" ".join(sentence) + ".")
    return out


def test_more_text_of_the_tests_own_kind_costs_fewer_bits():
    test = array(*speech(2, 60))
    pool = speech(3, 1600)
    bits = [NgramLM.train(array(*pool[:n])).bits(test).sum() for n in (0, 25, 100, 400, 1600)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 0.5 * bits[1]


def test_an_arm_of_few_words_does_not_win_by_knowing_few():
    test = array(*speech(2, 60))
    related = speech(3, 200)
    size = sum(map(len, related))
    other = str.maketrans("abcdefghijklm", "nopqrstuvwxyz")
    arms = {
        "related": related,
        "one word": ["spam " * (size // 5)],
        "one letter": ["a" * size],
        "white space": [" \n" * (size // 2)],
        "another language": [text.translate(other) for text in related],
        "nothing": [],
    }
    bits = {name: NgramLM.train(array(*texts)).bits(test).sum() for name, texts in arms.items()}
    assert min(bits, key=bits.__getitem__) == "related"
    assert all(bits["related"] < 0.6 * cost for name, cost in bits.items() if name != "related")


def test_white_space_counts(prose):
    tidy, loose = prose.bits(array("the cat sat", "the  \n cat \t\t sat"))
    assert loose > tidy + 10


# ---------------------------------------------------------------- the same answer however it is asked


def test_order_and_chunks_of_the_training_texts_change_no_bit():
    texts = speech(4, 400)
    mixed = texts[:]
    random.Random(9).shuffle(mixed)
    test = array(*speech(5, 20), *PROSE)
    expected = NgramLM.train(array(*texts)).bits(test)
    whole = NgramLM.train(array(*mixed))
    parts = NgramLM.train(pa.chunked_array([mixed[:1], [], mixed[1:77], mixed[77:]], pa.string()))
    assert whole.bits(test).tobytes() == expected.tobytes()
    assert parts.bits(test).tobytes() == expected.tobytes()


def test_slices_nulls_and_large_strings_change_no_bit(prose):
    padded = array("left out", *PROSE[:3], None, *PROSE[3:], "left out too")
    inside = padded.slice(1, len(padded) - 2)
    expected = prose.bits(array(*PROSE))
    chunked = pa.chunked_array([padded.slice(1, 2), padded.slice(3, 5)])
    for texts in (inside, inside.cast(pa.large_string()), chunked):
        assert NgramLM.train(texts).bits(array(*PROSE)).tobytes() == expected.tobytes()
        got = prose.bits(texts)
        assert math.isnan(got[3])
        assert np.delete(got, 3).tobytes() == expected.tobytes()


def test_more_than_65536_rows_are_judged_one_by_one(prose):
    once = prose.bits(array("the cat", "a dog"))
    many = prose.bits(array(*["the cat", "a dog"] * 40_000))
    assert many.tobytes() == np.tile(once, 40_000).tobytes()


def test_no_documents_have_no_bits(prose):
    assert prose.bits(array()).shape == (0,)
    assert prose.bits(pa.chunked_array([], pa.string())).shape == (0,)
    assert prose.bits(array(None)).shape == (1,)


def test_a_pickled_model_judges_alike(prose):
    again = pickle.loads(pickle.dumps(prose))
    assert again.bits(array(*PROSE)).tobytes() == prose.bits(array(*PROSE)).tobytes()
    assert again.nbytes == prose.nbytes > 0


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("order", [0, -1, 9])
def test_an_order_out_of_range_is_refused(order):
    with pytest.raises(ConfigError, match="order of 1 to 8"):
        NgramLM.train(array("a"), order=order)


@pytest.mark.parametrize(
    ("texts", "fix"),
    [
        (pa.array(["a"], pa.string_view()), "large_string"),
        (pa.array(["a"]).dictionary_encode(), "dictionary_decode"),
        (pa.array([1]), "cast"),
    ],
)
def test_other_arrow_types_are_refused_with_the_fix(prose, texts, fix):
    with pytest.raises(TypeError, match=fix):
        NgramLM.train(texts)
    with pytest.raises(TypeError, match=fix):
        prose.bits(texts)


def test_an_empty_token_is_refused(prose):
    with pytest.raises(DataError, match="empty one"):
        prose.token_bits([b"a", b""])


def table(slots: int) -> np.ndarray:
    return np.zeros((slots, 2), np.uint64)


def test_the_kernel_refuses_arrays_that_do_not_fit():
    ends, arena, cursor = np.zeros(8, np.int64), np.zeros(8, np.uint8), np.array([0, 0, 0, 2])
    ids = np.zeros(4, np.uint32)
    with pytest.raises(ValueError, match="room for each byte"):
        _native.ngramlm_intern(array("four"), table(4), ends, arena, cursor, ids)
    with pytest.raises(ValueError, match="cursor inside the text"):
        _native.ngramlm_intern(array("abc"), table(4), ends, arena, np.array([2, 0, 0, 2]), ids)
    with pytest.raises(ValueError, match="power of two"):
        _native.ngramlm_intern(array("abc"), table(5), ends, arena, cursor, ids)
    with pytest.raises(ValueError, match="at least 4 items"):
        _native.ngramlm_intern(array("abc"), table(2), ends, arena, cursor, ids)
    with pytest.raises(ValueError, match="larger"):
        _native.ngramlm_rehash(table(4), table(4))
    with pytest.raises(ValueError, match="has room for"):
        _native.ngramlm_count(ids + 1, ids + 9, 0, table(4), 0, np.zeros(9, np.uint32), ids)
    with pytest.raises(ValueError, match="start inside"):
        _native.ngramlm_count(ids, ids, 5, table(4), 0, np.zeros(9, np.uint32), ids)
    full = np.zeros(4, [("key", "u8"), ("id", "u4"), ("count", "u4")])
    full["id"] = [0, 1, 0, 0]
    full["key"] = 7 << 32
    with pytest.raises(ValueError, match="have room for"):
        _native.ngramlm_fold(full, None, np.zeros((3, 4), np.uint32))
    with pytest.raises(ValueError, match="inside 'data'"):
        _native.ngramlm_score_tokens(NgramLM.train(array("a"))._model, b"ab", np.array([1, 3]), np.zeros(3))
