"""FLOPs and MFU by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from tiny_training import TINY, WORDS, data, spec

from curate import flops, models
from curate.training import train

#: A layer of the tiny model: attention 4 x 32 x 32, MLP 3 x 32 x 48, two norms of 32; and the last norm.
LAYERS = 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32


def test_a_tied_head_counts_once_and_an_untied_input_embedding_not() -> None:
    tied = models.build_model(WORDS, seed=0, config=TINY).model
    untied = models.build_model(WORDS, seed=0, config={**TINY, "tie_word_embeddings": False}).model
    assert flops.multiplied(tied) == flops.multiplied(untied) == (LAYERS + 32 * WORDS,) * 2


def test_a_frozen_weight_costs_no_gradient() -> None:
    model = models.build_model(WORDS, seed=0, config=TINY).model
    model.model.requires_grad_(False)  # the tied head with it
    assert flops.multiplied(model) == (LAYERS + 32 * WORDS, 0)
    # 6 N + 6 L d T for 1,000 trained parameters, 4 N for frozen ones
    assert flops.per_token(1000, 1000, 2, 10, 5) == 6 * 1000 + 6 * 2 * 10 * 5
    assert flops.per_token(1000, 0, 2, 10, 5) == 4 * 1000 + 600


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("Intel(R) Xeon(R)", None)])
def test_peaks_are_by_name_and_unknown_ones_are_not_guessed(name: str, peak: float | None) -> None:
    assert flops.peak_of(name) == peak


def test_a_steps_mfu_is_its_work_over_its_time(tmp_path: Path) -> None:
    trained = train(data(), spec(steps=2, peak_flops=1e12), tmp_path / "t")
    from curate.packed import Order

    row = pq.read_table(trained.metrics).slice(0, 1).to_pylist()[0]
    work = 0.0
    for index in Order(48, 4, 8, seed=0).step(0).tolist():
        bounds = [*data().starts(index).tolist(), len(data().tokens(index))]
        for size in (b - a for a, b in itertools.pairwise(bounds)):
            work += size * 6 * (LAYERS + 32 * WORDS) + 6 * 2 * 32 * size * size
    assert math.isclose(row["mfu"], work / row["seconds"] / 1e12, rel_tol=1e-9)


def test_the_width_of_attention_is_that_of_its_heads() -> None:
    # Qwen3-0.6B: hidden 1,024, 16 heads of 128; the scores are of 2,048
    qwen = SimpleNamespace(num_hidden_layers=28, hidden_size=1024, num_attention_heads=16, head_dim=128)
    assert flops.attended(qwen) == (28, 2048)
    assert flops.attended(SimpleNamespace(num_hidden_layers=12, hidden_size=768, num_attention_heads=12)) == (12, 768)
