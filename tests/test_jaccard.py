"""Near-duplicate clusters, against cases done by hand and against all pairs."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.jaccard import largest_jaccard_between, near_duplicate_clusters


def gram_set(text: str, shingle_words: int = 5) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    if not words:
        return {("no words", text.strip())}
    if len(words) < shingle_words:
        return {tuple(words)}
    return {tuple(words[i : i + shingle_words]) for i in range(len(words) - shingle_words + 1)}


def index_of(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def clusters_by_all_pairs(texts: list[str], threshold: float, shingle_words: int) -> list[int]:
    sets = [gram_set(text, shingle_words) for text in texts]
    cluster = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if index_of(sets[i], sets[j]) >= threshold:
                old, new = max(cluster[i], cluster[j]), min(cluster[i], cluster[j])
                cluster = [new if c == old else c for c in cluster]
    return cluster


def edited_texts(seed: int, count: int, words: int, vocabulary: int) -> list[str]:
    """Random texts, every other one an edit of an earlier one, half of them around one common phrase."""
    draw = random.Random(seed)
    common = [f"c{i}" for i in range(words // 2)]
    texts: list[list[str]] = []
    for i in range(count):
        if texts and i % 2:
            text = list(draw.choice(texts))
            for _ in range(draw.randrange(4)):
                text[draw.randrange(len(text))] = f"v{draw.randrange(vocabulary)}"
        else:
            text = [f"v{draw.randrange(vocabulary)}" for _ in range(draw.randrange(1, words))]
            text = common + text if draw.random() < 0.5 else text
        texts.append(text)
    return [" ".join(text) for text in texts]


def test_an_index_of_exactly_the_threshold_joins() -> None:
    # Grams of 2 words. {a b, b c} and {b c, c d}: 1 of 3 shared.
    texts = ["a b c", "b c d"]
    assert near_duplicate_clusters(texts, threshold=1 / 3, shingle_words=2) == [0, 0]
    assert near_duplicate_clusters(texts, threshold=0.34, shingle_words=2) == [0, 1]


def test_six_words_that_share_five_are_below_one_half() -> None:
    # {1-5, 2-6} and {1-5, 2-7}: 1 of 3 shared. With 4 words more in front: 5 of 7.
    short = ["one two three four five six", "one two three four five seven"]
    long = [f"a b c d {text}" for text in short]
    assert near_duplicate_clusters(short) == [0, 1]
    assert near_duplicate_clusters(long) == [0, 0]
    assert largest_jaccard_between(short, ["guide", "test"]) == 1 / 3
    assert largest_jaccard_between(long, ["guide", "test"]) == 5 / 7


def test_joining_is_transitive() -> None:
    # a-b and b-c share 3 of 5 single words; a-c share 2 of 6, below the threshold.
    texts = ["a b c d", "b c d e", "c d e f"]
    assert near_duplicate_clusters(texts, threshold=0.6, shingle_words=1) == [0, 0, 0]
    assert near_duplicate_clusters([texts[0], texts[2]], threshold=0.6, shingle_words=1) == [0, 1]


def test_case_and_punctuation_do_not_count() -> None:
    assert near_duplicate_clusters(["It is, of course, a fact.", "IT IS OF COURSE A FACT"]) == [0, 0]


def test_short_documents_are_compared_whole() -> None:
    assert near_duplicate_clusters(["four words are few", "Four words are few!", "four words are"]) == [
        0,
        0,
        2,
    ]


def test_a_short_document_is_not_the_beginning_of_a_longer_one() -> None:
    assert near_duplicate_clusters(["one two three four", "one two three four five"], threshold=0.01) == [
        0,
        1,
    ]


def test_documents_without_words_are_compared_by_their_text() -> None:
    assert near_duplicate_clusters(["", "?!", " ", "🙂", "?!\n", "a"]) == [0, 1, 0, 3, 1, 5]


def test_words_of_other_scripts_are_words() -> None:
    texts = ["Мы остались дома и читали книгу", "МЫ ОСТАЛИСЬ ДОМА И ЧИТАЛИ КНИГУ", "今天 天气 很 好 吗 我们"]
    assert near_duplicate_clusters(texts) == [0, 0, 2]


def test_no_texts_make_no_clusters() -> None:
    assert near_duplicate_clusters([]) == []
    assert largest_jaccard_between([], []) == 0.0


def test_repeated_grams_count_once() -> None:
    # {a b, b a} against {a b, b a, b c}: 2 of 3, however often they come.
    texts = ["a b a b a b a b", "a b a b c"]
    assert largest_jaccard_between(texts, ["x", "y"], shingle_words=2) == 2 / 3


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        near_duplicate_clusters(["a"], threshold=threshold)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("shingle_words", [1, 2, 5])
def test_clusters_are_those_of_all_pairs(threshold: float, shingle_words: int) -> None:
    joined = 0
    for seed in range(12):
        texts = edited_texts(seed, count=40, words=24, vocabulary=6 if seed % 2 else 60)
        expected = clusters_by_all_pairs(texts, threshold, shingle_words)
        assert near_duplicate_clusters(texts, threshold=threshold, shingle_words=shingle_words) == expected
        joined += len(texts) - len(set(expected))
    assert joined > 0


@pytest.mark.parametrize("shingle_words", [1, 3, 5])
def test_the_largest_index_is_that_of_all_pairs(shingle_words: int) -> None:
    for seed in range(30):
        texts = edited_texts(100 + seed, count=30, words=24, vocabulary=6 if seed % 2 else 60)
        draw = random.Random(seed)
        groups = [draw.choice(["guide", "tuning", "test"]) for _ in texts]
        sets = [gram_set(text, shingle_words) for text in texts]
        expected = max(
            index_of(sets[i], sets[j]) for i in range(len(texts)) for j in range(i) if groups[i] != groups[j]
        )
        assert largest_jaccard_between(texts, groups, shingle_words=shingle_words) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "B", "b", "é", "字", "?", "İ", ""]), max_size=9), max_size=9),
    st.sampled_from([0.2, 0.5, 0.75, 1.0]),
    st.integers(1, 4),
)
def test_clusters_of_any_small_texts_are_those_of_all_pairs(
    words: list[list[str]], threshold: float, shingle_words: int
) -> None:
    texts = [" ".join(w) for w in words]
    expected = clusters_by_all_pairs(texts, threshold, shingle_words)
    assert near_duplicate_clusters(texts, threshold=threshold, shingle_words=shingle_words) == expected


def test_boilerplate_that_everything_holds_joins_nothing_and_costs_little() -> None:
    # Half of each text is one licence header: an index of about 1/3. All pairs would be 2 million.
    header = " ".join(f"licence{i}" for i in range(60))
    texts = [f"{header} " + " ".join(f"own{n}x{i}" for i in range(60)) for n in range(2000)]
    assert near_duplicate_clusters(texts) == list(range(2000))


def test_thousands_of_copies_with_a_changed_number_are_one_cluster() -> None:
    body = " ".join(f"word{i}" for i in range(80))
    texts = [f"{body} report {n}" for n in range(3000)]
    assert near_duplicate_clusters(texts) == [0] * 3000
