"""What a model is trained on: packed sequences of tokens, in a seeded order that no number of devices changes.

    sequence   | doc A ......... | doc B .... | doc C ...... | padding |
    position     0 1 2 3 ...       0 1 2 ...    0 1 2 ...      0 1 ...
    label        next token inside the same document where the loss mask has it, otherwise -100

A document's first token is nobody's label: what stood before it in the sequence does not belong to it. Positions that begin
again at 0 are how transformers knows the boundaries, so attention never crosses one; padding is a document of its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from curate import randomness
from curate.errors import ConfigError
from curate.store import digest

Ints = npt.NDArray[np.int64]
#: The label of a place whose loss is not counted, as torch's cross_entropy has it.
IGNORED = -100
#: Rows are cut to the longest of a micro-batch, rounded up to this many places.
ROUND = 64


class Sequences(Protocol):
    """Sequences of one length; what a trainer needs to know of them."""

    sequence_length: int
    #: the largest token id is below it
    vocab_size: int
    #: what the data are: their hash
    key: str
    #: the folder of the tokenizer that made them
    tokenizer: Any
    #: whether they are to be read in their order, because the mixture has one
    in_order: bool
    #: bytes of text to a token that is trained on; None where it is not known
    bytes_per_token: float | None

    def __len__(self) -> int: ...

    def tokens(self, index: int) -> npt.NDArray[Any]:
        """The tokens of a sequence without padding, integers [used]."""

    def mask(self, index: int) -> npt.NDArray[Any]:
        """1 where a token is to be learned, 0 where not, [used]."""

    def starts(self, index: int) -> Ints:
        """Where its documents begin, ascending, the first at 0."""

    def documents(self, index: int) -> Sequence[str]:
        """The documents' identities, one for each start."""


def identities(data: Sequences) -> list[str]:
    """The identities of all documents in the sequences, each once, sorted."""
    return sorted({name for index in range(len(data)) for name in data.documents(index)})


class MemorySequences:
    """Sequences held in memory: lists of documents, each `(identity, tokens)` or `(identity, tokens, mask)`."""

    def __init__(
        self, packed: Sequence[Sequence[tuple[Any, ...]]], *, sequence_length: int, vocab_size: int, tokenizer: Any = None,
        bytes_per_token: float | None = None, in_order: bool = False,
    ) -> None:  # fmt: skip
        self.sequence_length, self.vocab_size, self.tokenizer, self.bytes_per_token = sequence_length, vocab_size, tokenizer, bytes_per_token
        self.in_order = in_order
        self._rows = []
        for number, documents in enumerate(packed):
            tokens = np.concatenate([np.asarray(d[1], np.int64) for d in documents])
            if len(tokens) > sequence_length:
                raise ConfigError(f"sequence {number}: expected at most {sequence_length} tokens, got {len(tokens)}")
            mask = np.concatenate([np.asarray(d[2] if len(d) > 2 else np.ones(len(d[1])), np.uint8) for d in documents])
            starts = np.cumsum([0, *(len(d[1]) for d in documents[:-1])]).astype(np.int64)
            self._rows.append((tokens, mask, starts, [str(d[0]) for d in documents]))
        self.key = digest("memory", sequence_length, [[t.tolist(), m.tolist(), s.tolist()] for t, m, s, _ in self._rows], *(["in order"] if in_order else []))

    def __len__(self) -> int:
        return len(self._rows)

    def tokens(self, index: int) -> npt.NDArray[Any]:
        return self._rows[index][0]

    def mask(self, index: int) -> npt.NDArray[Any]:
        return self._rows[index][1]

    def starts(self, index: int) -> Ints:
        return self._rows[index][2]

    def documents(self, index: int) -> Sequence[str]:
        return self._rows[index][3]


class Order:
    """Which sequences make a step: epoch after epoch, each in an order of its own where they are shuffled.

    A function of the seed, the step and the number of sequences, and of nothing else.
    """

    def __init__(self, sequences: int, batch: int, total: int, *, seed: int, shuffle: bool = True) -> None:
        self.sequences, self.batch, self.total, self.seed, self.shuffle = sequences, batch, total, seed, shuffle
        self._epoch: tuple[int, Ints] | None = None

    def step(self, step: int) -> Ints:
        """The sequences of a step, in order; the last step may have fewer."""
        at, end = step * self.batch, min((step + 1) * self.batch, self.total)
        found = []
        while at < end:
            epoch, inside = divmod(at, self.sequences)
            part = self._permutation(epoch)[inside : inside + end - at]
            found.append(part)
            at += len(part)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _permutation(self, epoch: int) -> Ints:
        if not self.shuffle:
            return np.arange(self.sequences)
        if self._epoch is None or self._epoch[0] != epoch:
            keys = np.arange(self.sequences, dtype=np.uint64)
            noise = randomness.bits(keys, randomness.stream(self.seed, "train", "order", str(epoch)))
            self._epoch = (epoch, np.argsort(noise, kind="stable").astype(np.int64))
        return self._epoch[1]


def shares(step: Ints, devices: int) -> list[Ints]:
    """The sequences of a step for each device: contiguous, as even as can be."""
    return list(np.array_split(step, devices))


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass, int64 [rows, places]; `tokens` not counting padding, `squares` the sum of squared document lengths."""

    input_ids: Ints
    position_ids: Ints
    labels: Ints
    tokens: int
    squares: int


def labels_of(data: Sequences, index: int) -> Ints:
    """The label of each place of a sequence without padding: the next token, or IGNORED; int64 [used]."""
    tokens, mask, starts = data.tokens(index), data.mask(index), data.starts(index)
    labels = np.full(len(tokens), IGNORED, np.int64)
    labels[:-1] = np.where(mask[1:] != 0, tokens[1:].astype(np.int64), IGNORED)
    labels[starts[1:] - 1] = IGNORED
    return labels


def targets_in(data: Sequences, indices: Ints) -> int:
    """How many tokens some sequences have to be learned."""
    return sum(int((labels_of(data, int(i)) != IGNORED).sum()) for i in indices)


def collate(data: Sequences, indices: Ints, *, cut: bool = True, flat: bool = False) -> Batch:
    """Rows for some sequences, padded to the longest of them, or with `cut=False` to the full length.

    `flat` lays all rows into one: transformers' flash attention sees boundaries by positions in a batch of one row only.
    """
    rows = [(data.tokens(int(i)), labels_of(data, int(i)), data.starts(int(i))) for i in indices]
    width = data.sequence_length
    if cut:
        width = min(width, -(-max(len(row[0]) for row in rows) // ROUND) * ROUND)
    ids = np.zeros((len(rows), width), np.int64)
    positions, labels = np.empty_like(ids), np.full_like(ids, IGNORED)
    squares = 0
    for row, (tokens, own, starts) in enumerate(rows):
        used = len(tokens)
        ids[row, :used], labels[row, :used] = tokens, own
        bounds = np.append(starts, used)
        squares += int((np.diff(bounds) ** 2).sum())
        begins = np.repeat(np.append(starts, used), np.diff(np.append(bounds, width)))
        positions[row] = np.arange(width) - begins
    if flat:
        ids, positions, labels = (array.reshape(1, -1) for array in (ids, positions, labels))
    return Batch(ids, positions, labels, sum(len(row[0]) for row in rows), squares)


def ahead(work: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """Let a thread make the next items while the last is used, so that the device does not wait for data."""
    ready: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple[Any, BaseException | None, bool]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in work:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:  # raised again where the items are used
            put((None, error, True))

    thread = threading.Thread(target=fill, name="curate-train-data", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
