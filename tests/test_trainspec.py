"""The settings of a training."""

from __future__ import annotations

from typing import Any

import pytest

from curate.errors import ConfigError
from curate.trainspec import TrainSpec


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batch_tokens": 0}, "batch_tokens of at least 1"),
        ({"warmup_ratio": 1.5}, "warmup_ratio from 0 to 1"),
        ({"learning_rate": 0}, "learning_rate above 0"),
        ({"learning_rate": float("nan")}, "learning_rate above 0"),
        ({"weight_decay": -1}, "weight_decay of at least 0"),
        ({"steps": 1, "tokens": 1}, "steps or tokens, not both"),
        ({"save_at": [0]}, "save_at of steps from 1"),
        ({"model": "m", "config": {"hidden_size": 1}}, "config is for a fresh model"),
        ({"method": "lora"}, "an adapter needs a trained base"),
        ({"model": "m", "adapter": {"r": 1}}, "adapter is for a method other than full"),
        ({"model": "m", "method": "qlora", "merge": True}, "leave merge out with qlora"),
        ({"model": "m", "merge": True}, "merge is for a method other than full"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TrainSpec(**given)


def test_a_training_is_as_long_as_asked() -> None:
    assert TrainSpec(batch_tokens=40).total_steps(10, 10) == 3
    assert TrainSpec(batch_tokens=40, epochs=0.5).sequences(10, 10) == 5
    # 1.1 * 10 is 11.000000000000002 in floats
    assert TrainSpec(batch_tokens=40, epochs=1.1).sequences(10, 10) == 11
    assert TrainSpec(batch_tokens=40, steps=7).sequences(10, 10) == 28
    assert TrainSpec(batch_tokens=40, tokens=101).sequences(10, 10) == 11


def test_a_batch_that_is_no_whole_number_of_sequences_is_refused_with_what_is_near() -> None:
    with pytest.raises(ConfigError, match="multiple of the sequence length 64, got 100; write 64 or 128"):
        TrainSpec(batch_tokens=100).batch_sequences(64)
    with pytest.raises(ConfigError, match="got 10; write 64"):
        TrainSpec(batch_tokens=10).batch_sequences(64)


def test_where_and_how_often_it_is_saved_is_not_in_what_determines_it() -> None:
    one = TrainSpec(save_every=3, keep_last=2, threads=1, device="cpu", model="somewhere").determining()
    assert one == TrainSpec(model="elsewhere").determining()
    assert one != TrainSpec(model="elsewhere", schedule="wsd").determining()


def test_the_peak_rate_is_by_what_is_trained() -> None:
    assert [s.peak_rate() for s in (TrainSpec(), TrainSpec(model="m"), TrainSpec(model="m", method="ia3"), TrainSpec(learning_rate=0.5))] == [
        1e-3, 2e-5, 2e-4, 0.5,
    ]  # fmt: skip
