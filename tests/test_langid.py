"""The language kernel against py3langid itself, on every variant of the processor."""

from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import _native, langid, ngrams
from curate.errors import ConfigError

SENTENCES = {
    "en": "The ship left the harbour before the sun was up, and nobody saw it go.",
    "de": "Das Schiff verließ den Hafen, bevor die Sonne aufging, und niemand sah es fahren.",
    "fr": "Le navire quitta le port avant le lever du soleil, et personne ne le vit partir.",
    "ru": "Корабль вышел из гавани до восхода солнца, и никто не видел, как он уходил.",
    "zh": "太阳升起之前，船就离开了港口，没有人看见它离开。",
    "ja": "太陽が昇る前に船は港を出て、誰もそれを見なかった。",
    "ar": "غادرت السفينة الميناء قبل شروق الشمس ولم يرها أحد.",
    "hi": "सूरज निकलने से पहले जहाज बंदरगाह से निकल गया और किसी ने उसे जाते नहीं देखा।",
    "el": "Το πλοίο έφυγε από το λιμάνι πριν ανατείλει ο ήλιος και κανείς δεν το είδε.",
    "ko": "해가 뜨기 전에 배가 항구를 떠났고 아무도 그것을 보지 못했다.",
    "th": "เรือออกจากท่าก่อนพระอาทิตย์ขึ้น และไม่มีใครเห็นมันไป",
}


@pytest.fixture(scope="module")
def reference() -> object:
    from py3langid.langid import LanguageIdentifier

    return LanguageIdentifier.from_model_file("data/model.npz.xz", norm_probs=True)


def ragged() -> list[str]:
    """Texts of many lengths, mixed, in capitals, decomposed, repeated, and with nothing to go by."""
    draw = random.Random(3)
    pool = list(SENTENCES.values())
    texts = ["", " ", "x", "...", "\n\n", "42", "\x00", "THE SHIP LEFT THE HARBOUR", "ΤΟ ΠΛΟΙΟ ΕΦΥΓΕ", "Cafe\u0301 au lait, s'il vous plai\u0302t", "the " * 900]
    for _ in range(150):
        words = " ".join(draw.choice(pool) for _ in range(draw.randint(1, 3))).split(" ")
        texts.append(" ".join(words[: draw.randint(1, 40)]))
    return texts


def agree(reference: object, texts: list[str]) -> None:
    for text, found in zip(texts, langid.identify(pa.array(texts, pa.string())).to_pylist(), strict=True):
        label, share = reference.classify(text)  # type: ignore[attr-defined]
        if found["language"] is None:  # the reference then gives every column one share, and the label that has two columns
            assert share == pytest.approx(2 / 142, abs=1e-6)
            continue
        assert found["score"] == pytest.approx(share, abs=2e-4)  # the reference adds in float32
        ranks = dict(reference.rank(text))  # type: ignore[attr-defined]
        assert found["language"] == label or abs(ranks[label] - ranks[found["language"]]) < 1e-4


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_in_its_language(code: str) -> None:
    found = langid.identify(pa.array([SENTENCES[code]]))[0].as_py()
    assert found["language"] == code
    assert 0.3 < found["score"] <= 1


def test_labels_and_shares_are_py3langids(reference: object) -> None:
    agree(reference, ragged())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=12))
def test_on_any_unicode_too(reference: object, texts: list[str]) -> None:
    agree(reference, [t.encode("utf-8", "replace").decode() for t in texts])


def test_every_variant_of_the_processor_gives_the_same_bits() -> None:
    text, kernel = langid.prepare(pa.array(ragged())), langid.model().kernel
    found = []
    for simd in sorted({0, 1, 3, 7, 15, _native.simd_features()}):
        labels, shares = np.empty(len(text), np.int64), np.empty(len(text))
        _native.langid_classify(text, kernel, simd, labels, shares)
        found.append((labels.tobytes(), shares.tobytes()))
    assert len(set(found)) == 1


def test_a_text_does_not_depend_on_those_beside_it() -> None:
    texts = ragged()
    together = langid.identify(pa.array(texts)).to_pylist()
    assert [langid.identify(pa.array([text]))[0].as_py() for text in texts] == together
    shuffled = list(range(len(texts)))
    random.Random(1).shuffle(shuffled)
    assert langid.identify(pa.array([texts[i] for i in shuffled])).to_pylist() == [together[i] for i in shuffled]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_nulls_and_chunks(kind: pa.DataType) -> None:
    texts = [None, *SENTENCES.values(), None, ""]
    whole = pa.array(texts, kind)
    known = langid.identify(whole).to_pylist()
    assert known[0] == known[-1] == known[-2] == {"language": None, "score": None}
    assert langid.identify(whole.slice(2, 5)).to_pylist() == known[2:7]
    assert langid.identify(pa.chunked_array([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3)])).to_pylist() == known
    assert langid.identify(pa.array([], kind)).to_pylist() == []


def test_a_choice_among_some_languages(reference: object) -> None:
    from py3langid.langid import LanguageIdentifier

    few = LanguageIdentifier.from_model_file("data/model.npz.xz", norm_probs=True)
    few.set_languages(["de", "nl", "sr"])
    for text in (SENTENCES["en"], SENTENCES["de"], SENTENCES["ru"]):
        label, share = few.classify(text)
        assert langid.identify(pa.array([text]), ("de", "nl", "sr"))[0].as_py() == {"language": label, "score": pytest.approx(share, abs=2e-4)}


def test_a_code_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no language english, xx; it has ace, af, am"):
        langid.check(("english", "en", "xx"))


# -- the kernel alone, on an automaton by hand: feature 0 is "a", feature 1 is "ab"; anything else leads back to the start


def by_hand(**changed: object) -> object:
    rows = np.zeros((3, 256), np.uint32)
    rows[:, ord("a")] = 1
    rows[1, ord("b")] = 2
    parts = {
        "next": rows, "rows": np.arange(3, dtype=np.uint32), "outputs": np.array([2, 0, 1], np.int32),
        "weights": np.array([[-4, -8, -8], [-8, -4, -2]], np.int16), "unit": 0.5, "prior": np.zeros(3, np.float32), "first": np.array([0, 1, 1], np.int32),
    }  # fmt: skip
    return _native.langid_model(*(parts | changed).values())  # type: ignore[arg-type]


def classify(texts: list[str], kernel: object) -> list[tuple[int, float]]:
    labels, shares = np.empty(len(texts), np.int64), np.empty(len(texts))
    _native.langid_classify(pa.array(texts), kernel, ngrams.simd(), labels, shares)
    return list(zip(labels.tolist(), shares.tolist(), strict=True))


def test_shares_by_hand() -> None:
    # "aab": a twice, ab once: scores ln3 * (-2, -4, -4) + ln2 * (-4, -2, -1); classes 1 and 2 are one label
    scores = [math.log(3) * a + math.log(2) * b for a, b in ((-2, -4), (-4, -2), (-4, -1))]
    soft = [math.exp((s - max(scores)) / math.sqrt(3)) for s in scores]
    want = (soft[1] + soft[2]) / sum(soft)
    assert want > 0.5
    ((label, share),) = classify(["aab"], by_hand())
    assert label == 1
    assert share == pytest.approx(want, rel=1e-7)  # ln rounded to float32
    assert classify(["xyz", ""], by_hand()) == [(-1, 0.0), (-1, 0.0)]


@pytest.mark.parametrize("times", [16, 17, 400])
def test_counts_beyond_the_levels(times: int) -> None:
    soft = [math.exp(math.log1p(times) * w / math.sqrt(times)) for w in (-2, -4, -4)]
    ((label, share),) = classify(["a" * times], by_hand())
    assert label == (0 if soft[0] > 2 * soft[1] else 1)
    assert share == pytest.approx(max(soft[0], 2 * soft[1]) / sum(soft), rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"next": np.full((3, 256), 3, np.uint32)}, "'next' from 0 to 2, got 3"),
        ({"rows": np.array([0, 1, 3], np.uint32)}, "'rows' from 0 to 2, got 3"),
        ({"outputs": np.array([0, 1, 3], np.int32)}, "'outputs' from 0 to 2, got 3"),
        ({"outputs": np.array([0, 1, -1], np.int32)}, "'outputs' from 0 to 2, got -1"),
        ({"first": np.array([0, 2, 2], np.int32)}, "no class behind its own"),
        ({"first": np.array([0, 1], np.int32)}, "'first'"),
    ],
)
def test_a_model_that_lies_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        by_hand(**changed)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="PyCapsule"):
        _native.langid_classify(pa.array(["a"]), object(), 0, np.empty(1, np.int64), np.empty(1))
    with pytest.raises(ValueError, match="labels"):
        _native.langid_classify(pa.array(["a", "b"]), by_hand(), 0, np.empty(1, np.int64), np.empty(2))
