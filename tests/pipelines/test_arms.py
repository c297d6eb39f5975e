"""Sets of documents that arms hold: budgets, sources alike, lengths as the selection's."""

from __future__ import annotations

import numpy as np
import pytest

from curate.errors import ConfigError
from curate.pipelines.arms import MOST, Members, Pool, length_class


@pytest.fixture
def pool() -> Pool:
    rng = np.random.default_rng(5)
    sizes = np.exp(rng.normal(5, 1.2, 4000)).astype(np.int64)
    sources = np.where(rng.random(4000) < 0.9, 0, rng.integers(1, 3, 4000))
    return Pool(rng.integers(0, 1 << 63, 4000).astype(np.uint64), sizes, sources, seed=3)


def test_a_set_is_filled_in_the_order_of_its_draw_until_the_next_would_exceed(pool: Pool) -> None:
    members = Members(pool)
    everyone = np.ones(4000, bool)
    one, two = members.fill("random 0", everyone, 20_000, "random", "0"), members.fill("random 1", everyone, 20_000, "random", "1")
    for bit in (one, two):
        assert 20_000 - pool.sizes.max() < pool.sizes[members.of(bit)].sum() <= 20_000
    assert (members.of(one) != members.of(two)).any()
    shuffled = np.random.default_rng(1).permutation(4000)
    other = Members(Pool(pool.keys[shuffled], pool.sizes[shuffled], None, 3))
    other.fill("random 0", everyone, 20_000, "random", "0")
    assert (other.of(0) == members.of(one)[shuffled]).all()  # by identity, wherever the document stands
    assert members.of(members.fill("all of it", pool.sizes < 100, 10**9, "selection")).sum() == (pool.sizes < 100).sum()


def test_sources_get_the_same_and_what_small_ones_lack_goes_to_the_others(pool: Pool) -> None:
    members = Members(pool)
    bit = members.baseline("random_balanced", 0, np.zeros(4000, bool), 90_000)
    assert pool.sources is not None
    there = [int(pool.sizes[pool.sources == s].sum()) for s in range(3)]
    got = [int(pool.sizes[members.of(bit) & (pool.sources == s)].sum()) for s in range(3)]
    share = min(30_000, *there)
    assert all(min(n, share) - pool.sizes.max() < g for n, g in zip(there, got, strict=True))
    assert sum(got) <= 90_000
    with pytest.raises(ConfigError, match="needs sources"):
        Members(Pool(pool.keys, pool.sizes, None, 3)).baseline("random_balanced", 0, np.zeros(4000, bool), 10)


def test_lengths_are_those_of_the_selection(pool: Pool) -> None:
    selection = (pool.sizes > 300) & (np.arange(4000) % 3 == 0)
    limit = int(pool.sizes[selection].sum()) // 2
    members = Members(pool)
    drawn = members.of(members.baseline("random_length_matched", 1, selection, limit))
    assert pool.sizes[drawn].min() >= 256  # no class that the selection has not
    classes = length_class(pool.sizes)
    for number in np.unique(classes[selection]):
        wanted = limit * pool.sizes[selection & (classes == number)].sum() / pool.sizes[selection].sum()
        got = pool.sizes[drawn & (classes == number)].sum()
        assert wanted - pool.sizes[classes == number].max() - 1 < got <= wanted
    assert length_class(np.array([0, 1, 2, 4, 5, 1024])).tolist() == [0, 0, 4, 8, 9, 40]


def test_more_sets_than_bits_are_refused(pool: Pool) -> None:
    members = Members(pool)
    for n in range(MOST):
        members.fill(f"random {n}", np.ones(4000, bool), 10, "random", str(n))
    with pytest.raises(ConfigError, match="at most 64 sets"):
        members.fill("one more", np.ones(4000, bool), 10, "random", "x")
