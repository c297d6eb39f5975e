"""fastText models from files: found, named by their content, loaded once for a process, and asked.

A text is one line for fastText: line feeds become spaces. Its answers are probabilities of a softmax or of independent
sigmoids; rounding in float32 takes some a little above one, and those are one here.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.errors import ConfigError, DataError

PREFIX = "__label__"


class ModelFile:
    """A model's file, which is hashed when its key is asked for, and loaded when it is first used."""

    def __init__(self, name: str, base: Path) -> None:
        """`name` is a path from the folder `base`; raises ConfigError where there is no file."""
        self.path = base / name
        self._content: str | None = None
        if not self.path.is_file():
            raise ConfigError(f"expected the file of a fastText model (.bin or .ftz), got nothing at {self.path}; `curate fetch` brings a published one")

    def _hash(self) -> str:
        """Of the file's bytes: a modification time may stand still while a file is written twice."""
        digest = xxhash.xxh3_128()
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return str(digest.hexdigest())

    def key(self) -> str:
        """What answers depend on: the file's content, hashed at each call, and the library that reads it."""
        self._content = self._hash()
        return f"{self._content} fasttext {version('fasttext-numpy2')}"

    def load(self) -> Any:
        """The model, as the file was when `key` was last asked; raises DataError for a file that is none."""
        self._content = self._content or self._hash()
        return _load(self.path, self._content)

    def predict(self, text: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Each text's most likely label without its prefix, string[n], and its probability in [0, 1], float64[n].

        Null where a text is null or holds nothing but white space.
        """
        lines = pc.replace_substring(text, "\n", " ").to_pylist()
        asked = [i for i, line in enumerate(lines) if line is not None and line.strip()]
        labels: list[str | None] = [None] * len(lines)
        scores: list[float | None] = [None] * len(lines)
        if asked:
            found, shares = self.load().predict([lines[i] for i in asked], k=1)
            for i, names, own in zip(asked, found, shares, strict=True):
                if names:
                    labels[i], scores[i] = names[0].removeprefix(PREFIX), min(float(own[0]), 1.0)
        return pa.array(labels, pa.string()), pa.array(scores, pa.float64())


@lru_cache(maxsize=2)
def _load(path: Path, content: str) -> Any:
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except ValueError as error:
        raise DataError(f"expected a fastText model at {path}, got something else ({error}); train it again, or fetch it again") from error
