"""One process is a world by itself; what several do together is in test_training."""

from __future__ import annotations

import pytest
import torch

from curate.distributed import World, joined


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as world:
        assert world == World(0, 1, 0)
        assert world.leads
        assert world.total([1.5, 2.0], "cpu") == [1.5, 2.0]
        assert world.share("x") == "x"
        assert not torch.distributed.is_initialized()
