"""What a causal language model makes of texts: the losses of their tokens, from an ordinary Hugging Face folder.

The loss of a token is -ln p(token | those before it), in nats, from float32 logits. A text begins behind the tokenizer's
`bos` token (its `eos` where it has no `bos`), so that its first token is predicted too; a tokenizer with neither leaves
the first token out. A text longer than the model's context goes through windows: each gives the losses of the tokens that
the one before it did not reach, with `context - stride` tokens or more in front of them.

Texts are batched by length and padded on the right, where a causal model does not look. So a loss may differ in its last
bits with what else is in the batch and on which device it is computed: relatively by less than TOLERANCE in float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from curate import flops
from curate.errors import ConfigError, DataError, machine_error

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}

#: Within what two computations of one loss agree, relatively, in float32.
TOLERANCE = 1e-4
#: Bytes that the logits of one forward pass may take, in float32: a larger batch is no faster on a processor's core.
_LOGIT_BYTES = {"cpu": 64 << 20, "cuda": 2 << 30}

@dataclass(frozen=True)
class Losses:
    """Losses of one text: float64[tokens] in the tokens' order, and how many tokens of it were left out at the end."""

    nll: Float64
    error: Float64  # EL2N, ||p - onehot||_2 of each token, in [0, sqrt 2]; empty unless asked for
    left_out: int
    flops: float  # of the windows that were computed for it, what they share counted in each


def find(name: str, base: Path | str) -> Path:
    """A model's folder, from the recipe's folder; raises ConfigError where it is none."""
    path = Path(base) / name
    if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        raise ConfigError(f"expected the folder of a Hugging Face model, with its config.json, got {'a folder without one' if path.is_dir() else 'nothing'} at {path}")
    return path


def library() -> str:
    """The libraries whose versions answers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return " ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers"))
    except PackageNotFoundError as error:
        raise ConfigError(f"scoring by a language model needs {error.name}; install curate with its extra: pip install 'curate[train]'") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core: the processes are the parallelism, and the number of threads shows in the last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class LanguageModel:
    """A causal language model with its tokenizer, in evaluation."""

    def __init__(self, folder: Path, device: Device = "auto", precision: Precision = "auto") -> None:
        library()
        from curate import models

        self.folder = folder
        found = models.choose_device(device)
        self.device = found.kind
        kind = ("bf16" if self.device == "cuda" else "fp32") if precision == "auto" else precision
        try:
            self.tokenizer: Any = models.load_tokenizer(folder)
            loaded: Any = models.load_model(folder, dtype=_DTYPES[kind]).model
        except Exception as error:  # whatever transformers, safetensors and tokenizers raise over a folder that is no model
            if short := machine_error(error, f"could not load the model in {folder}"):
                raise short from error
            raise DataError(f"expected a causal language model with its tokenizer in {folder}, got {type(error).__name__}: {str(error).splitlines()[0]}") from error
        self.model: Any = loaded.to(found.torch)
        self._parameters = flops.multiplied(self.model)[0]
        self._layers, self._width = flops.attended(self.model.config.get_text_config())
        self.vocabulary = int(self.model.config.get_text_config().vocab_size)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
        if len(self.tokenizer) > self.vocabulary:
            raise DataError(f"{folder}: the tokenizer has {len(self.tokenizer)} tokens, the model {self.vocabulary}; they do not belong together")
        first = self.tokenizer.bos_token_id
        self.first: int | None = first if first is not None else self.tokenizer.eos_token_id

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, without special tokens."""
        return cast(list[list[int]], self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]) if texts else []

    def losses(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], *, context: int | None = None, stride: int | None = None,
        max_tokens: int | None = None, error: bool = False,
    ) -> list[Losses]:  # fmt: skip
        """The losses of the second part of each row, given the first: (prompt tokens, scored tokens).

        `context` tokens, 2 or more, are seen at once (default: the model's); `stride` new ones in each further window
        (default: half of it). Scored tokens beyond `max_tokens` are left out.
        """
        length = min(context or self.context, self.context)
        step = min(stride or length // 2, length - 1)  # a window's first token has nothing in front of it
        found, windows = [], []
        for row, (prompt, scored) in enumerate(rows):
            kept = list(scored)[:max_tokens] if max_tokens is not None else list(scored)
            head = [self.first] if self.first is not None else []
            skipped = 1 if not head and not prompt and kept else 0
            own = list(_windows([*head, *prompt, *kept], len(head) + len(prompt) + skipped, length, step))
            cost = sum(flops.of_forward(self._parameters, self._layers, self._width, len(tokens)) for tokens, _, _ in own)
            found.append(Losses(np.zeros(len(kept) - skipped), np.zeros(len(kept) - skipped if error else 0), len(scored) - len(kept), cost))
            windows += [(row, *window) for window in own]
        for batch in self._batches(windows):
            self._forward(batch, found, error)
        return found

    def _batches(self, windows: list[_Window]) -> Iterator[list[_Window]]:
        """Windows of about one length together, the longest first, so that what does not fit is known at once."""
        most = max(1, _LOGIT_BYTES[self.device] // (4 * self.vocabulary))
        batch: list[_Window] = []
        for window in sorted(windows, key=lambda w: (-len(w[1]), w[0], w[3])):
            if batch and (len(batch) + 1) * len(batch[0][1]) > most:
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _forward(self, batch: list[_Window], found: list[Losses], error: bool) -> None:
        import torch

        width = len(batch[0][1])
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for i, (_, tokens, _, _) in enumerate(batch):
            ids[i, : len(tokens)] = tokens
            mask[i, : len(tokens)] = 1
        with torch.inference_mode():
            given = torch.from_numpy(ids).to(self.device)
            logits = self.model(input_ids=given, attention_mask=torch.from_numpy(mask).to(self.device), use_cache=False).logits
            for i, (row, tokens, new, at) in enumerate(batch):
                own = logits[i, len(tokens) - new - 1 : len(tokens) - 1].float()
                own = torch.log_softmax(own, dim=-1)
                right = own.gather(1, given[i, len(tokens) - new : len(tokens), None])[:, 0]
                found[row].nll[at : at + new] = -right.double().cpu().numpy()
                if error:
                    # p - 1 of the right token by expm1: 1 + sum p^2 - 2 p would lose all digits where p is near 1
                    apart = own.exp().scatter_(-1, given[i, len(tokens) - new : len(tokens), None], torch.expm1(right)[:, None])
                    found[row].error[at : at + new] = torch.linalg.vector_norm(apart, dim=-1).double().cpu().numpy()


#: (row, tokens, how many of the last tokens are scored here, place of the first of them among the row's scored tokens)
_Window = tuple[int, list[int], int, int]


def _windows(tokens: list[int], start: int, length: int, step: int) -> Iterator[tuple[list[int], int, int]]:
    """Windows over a sequence whose tokens from `start` (1 or more) on are scored: tokens, new ones at the end, the first's place."""
    scored, end = start, min(len(tokens), length)
    if end <= start:  # what is given fills a window by itself: its end is kept
        end = min(len(tokens), start + step)
    while scored < len(tokens):
        yield tokens[max(0, end - length) : end], end - scored, scored - start
        scored, end = end, min(len(tokens), end + step)


@lru_cache(maxsize=2)
def load(folder: Path, content: str, device: Device, precision: Precision) -> LanguageModel:
    """A model, kept for a process; `content` is its fingerprint, so that a changed folder is loaded anew."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return LanguageModel(folder, device, precision)
