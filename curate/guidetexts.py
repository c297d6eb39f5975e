"""The guides' texts as a state: what every scorer that compares documents with them by compression begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import deflate, documents, randomness
from curate.errors import ConfigError, DataError
from curate.stage import Context


class GuideParams(Protocol):
    """The settings that such scorers share; `max_targets` takes that many of each guide's texts, None takes all."""

    @property
    def compressor(self) -> deflate.CompressorName: ...
    @property
    def level(self) -> int: ...
    @property
    def max_targets(self) -> int | None: ...


def check(params: GuideParams) -> None:
    """Raise a ConfigError for a compressor, a level or a number of targets that cannot be."""
    deflate.Compressor(params.compressor, params.level)
    if params.max_targets is not None and params.max_targets < 1:
        raise ConfigError(f"expected max_targets of 1 or more (null takes all), got {params.max_targets}")


class GuideTexts:
    """The part of a stage that has the guides' texts as its state and a compressor to compare with."""

    uses_targets = True

    def __init__(self, stage: str, params: GuideParams, context: Context, *, needs: str) -> None:
        if not context.targets:
            raise ConfigError(f"{stage} needs {needs}")
        self.compressor = deflate.Compressor(params.compressor, params.level)
        self.library = self.compressor.library()
        self.names = [target.name for target in context.targets]
        self.uses_seed = params.max_targets is not None
        self._stage, self._most = stage, params.max_targets
        self._stream = randomness.stream(context.seed, "zipfit", "targets")
        self._read: tuple[pa.Table | None, list[pa.Array]] = (None, [])

    def extra_key(self) -> str:
        """Another version of a compressor's library may give other lengths."""
        return self.library

    def close(self, merged: None, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """target, text: the guides' texts in the order of their hashes, so that a sum does not depend on files' order.

        Of a guide with more than `max_targets` texts, the ones whose hashes draw the lowest numbers.
        """
        found = {name: self._sampled(targets[name].combine_chunks().cast(pa.large_string())) for name in self.names}
        for name, texts in found.items():
            if not len(texts):
                raise DataError(f"{self._stage}: the guide of target {name!r} holds no text")
        owners = pa.array([name for name in self.names for _ in range(len(found[name]))], pa.string())
        return pa.table({"target": owners, "text": pa.chunked_array(list(found.values()), pa.large_string())})

    def texts(self, state: pa.Table) -> list[pa.Array]:
        """One array of texts for each target, in the order of the names; kept until another state comes."""
        if self._read[0] is not state:
            self._read = (state, [state.filter(pc.equal(state["target"], name))["text"].combine_chunks() for name in self.names])
        return self._read[1]

    def _sampled(self, texts: pa.Array) -> pa.Array:
        hashes = documents.text_hashes(texts)
        order = np.argsort(np.array(hashes.to_pylist(), "S16"), kind="stable")
        if self._most is not None:
            drawn = randomness.bits(randomness.keys_of(documents.hex_of(hashes)), self._stream)
            first = order[np.argsort(drawn[order], kind="stable")][: self._most]
            order = order[np.isin(order, first)]
        return texts.take(pa.array(order))
