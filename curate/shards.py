"""Token shards: a mixture as packed sequences of token ids, mapped from disk, with an index back to every document.

    FOLDER/
      manifest.json             what it is (Manifest); no time and no path
      tokenizer/                the tokenizer's own files
      tokens-00000.bin          little-endian uint16, or uint32 for vocabularies above 65,536: [sequences, sequence_length]
      mask-00000.bin            uint8 of the same shape: 1 where the token is to be learned, 0 elsewhere and in padding
      segments-00000.parquet    a row for each piece of a document: sequence, start, stop (in the sequence), identity, source,
                                document (its number in the mixture), first (the piece's first token inside the document)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import ConfigError, DataError
from curate.filescan import hash_file
from curate.packing import Ints, Pieces
from curate.store import digest, note, writing

#: Of the folder's form.
FORMAT = 1
MANIFEST = "manifest.json"
SEGMENTS = pa.schema(
    [("sequence", pa.int64()), ("start", pa.int64()), ("stop", pa.int64()), ("identity", pa.string()), ("source", pa.string()),
     ("document", pa.int64()), ("first", pa.int64())]
)  # fmt: skip


class ShardFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the folder; `hash` is the xxh3-128 of its bytes, 32 hex digits."""

    file: str
    bytes: int
    hash: str


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive sequences and their three files."""

    sequences: int
    tokens: ShardFile
    mask: ShardFile
    segments: ShardFile


class SourceCount(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a source: documents and bytes of text as read, and their tokens (bos and eos included) before any was dropped or truncated."""

    source: str | None
    documents: int
    bytes: int
    tokens: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json. `tokens` are without padding, `learned` those of them whose mask is 1.

    `trained` is how many tokens are labels: learned, and not the first of their piece. `counts` are documents that were read, empty,
    cut into pieces, truncated, dropped; one that the mixture takes twice is two here. `made_of` names what was tokenized, `settings` how.
    `in_order`: the mixture has an order of training, and so have the sequences.
    """

    format: int
    tokenizer: str
    vocab_size: int
    dtype: str
    pad: int
    sequence_length: int
    sequences: int
    tokens: int
    learned: int
    trained: int
    bytes_of_text: int | None
    counts: dict[str, int]
    sources: list[SourceCount]
    shards: list[Shard]
    settings: dict[str, Any]
    made_of: str
    in_order: bool = False

    @property
    def efficiency(self) -> float:
        """The part of all places that is no padding, 0 to 1."""
        return self.tokens / max(1, self.sequences * self.sequence_length)


def dtype_of(vocab_size: int) -> str:
    """How an id is stored: uint16 as long as every id of the vocabulary fits."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


@dataclass(frozen=True)
class Documents:
    """Tokenized documents in the mixture's order.

    `tokens` and `mask` are flat, `offsets` int64 [documents + 1]; mask None where every token is to be learned.
    """

    tokens: Sequence[npt.NDArray[Any]]
    masks: Sequence[npt.NDArray[Any]] | None
    identities: Sequence[str]
    sources: Sequence[str | None]


def write_shards(folder: Path, documents: Documents, pieces: Pieces, *, length: int, dtype: str, pad: int, sequences_per_shard: int) -> Iterator[Shard]:
    """Write the files of all shards, one shard in memory at a time."""
    for number, begin in enumerate(range(0, pieces.sequences, sequences_per_shard)):
        end = min(begin + sequences_per_shard, pieces.sequences)
        low, high = np.searchsorted(pieces.sequence, [begin, end])
        tokens = np.full((end - begin, length), pad, dtype)
        mask = np.zeros((end - begin, length), np.uint8)
        rows = [column[low:high].tolist() for column in (pieces.document, pieces.first, pieces.length, pieces.sequence, pieces.start)]
        for document, first, size, sequence, start in zip(*rows, strict=True):
            row, stop = sequence - begin, start + size
            tokens[row, start:stop] = documents.tokens[document][first : first + size]
            mask[row, start:stop] = 1 if documents.masks is None else documents.masks[document][first : first + size]
        table = pa.table(
            [pa.array(rows[3], pa.int64()), pa.array(rows[4], pa.int64()), pa.array(np.add(rows[4], rows[2]).astype(np.int64)),
             pa.array([documents.identities[d] for d in rows[0]], pa.string()), pa.array([documents.sources[d] for d in rows[0]], pa.string()),
             pa.array(rows[0], pa.int64()), pa.array(rows[1], pa.int64())], schema=SEGMENTS,
        )  # fmt: skip
        names = [folder / f"{what}-{number:05d}.{ending}" for what, ending in (("tokens", "bin"), ("mask", "bin"), ("segments", "parquet"))]
        for path, array in zip(names, (tokens, mask), strict=False):
            with writing(path):
                path.write_bytes(array.tobytes())
        with writing(names[2]):
            pq.write_table(table, names[2], compression="zstd", write_page_checksum=True)
        found = [note(path) for path in names]
        files = [ShardFile(file=path.name, bytes=w.bytes, hash=w.hash) for path, w in zip(names, found, strict=True)]
        yield Shard(sequences=end - begin, tokens=files[0], mask=files[1], segments=files[2])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last file of a folder."""
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def read_manifest(folder: Path | str) -> Manifest:
    """What a folder says of itself; ConfigError where it is none of token shards, or of another format."""
    file = Path(folder) / MANIFEST
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except OSError as error:
        raise ConfigError(f"expected a folder of token shards, got {folder}, which has no {MANIFEST}; curate tokenize makes one") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected the manifest of token shards, got: {error}; tokenize again into another folder") from error
    if found.format != FORMAT:
        raise DataError(f"{file}: expected format {FORMAT}, got {found.format}; tokenize again with this version")
    if found.dtype != dtype_of(found.vocab_size):
        raise DataError(f"{file}: expected {dtype_of(found.vocab_size)} for a vocabulary of {found.vocab_size}, got {found.dtype}")
    return found


def are_shards(folder: Path | str) -> bool:
    """Whether a folder looks like one of token shards."""
    return (Path(folder) / MANIFEST).is_file() and (Path(folder) / "tokenizer").is_dir()


class Shards:
    """A folder of token shards, mapped: the `Sequences` that a trainer reads (curate/packed.py).

    Opening compares every file's size; `check=True` its hash too. DataError names the file that is not what was written.
    """

    def __init__(self, folder: Path | str, *, check: bool = False) -> None:
        self.folder = Path(folder)
        self.manifest = found = read_manifest(self.folder)
        self.sequence_length, self.vocab_size = found.sequence_length, found.vocab_size
        self.tokenizer = self.folder / "tokenizer"
        self.in_order = found.in_order
        self.key = digest("shards", found.vocab_size, found.sequence_length, [[s.tokens.hash, s.mask.hash, s.segments.hash] for s in found.shards], *(["in order"] if found.in_order else []))
        self.bytes_per_token = found.bytes_of_text / found.tokens if found.bytes_of_text and found.tokens else None
        self._tokens, self._masks, segments = [], [], []
        for shard in found.shards:
            for item in (shard.tokens, shard.mask, shard.segments):
                self._same(item, check)
            shape = (shard.sequences, found.sequence_length)
            self._tokens.append(np.memmap(self.folder / shard.tokens.file, found.dtype, "r", shape=shape))
            self._masks.append(np.memmap(self.folder / shard.mask.file, np.uint8, "r", shape=shape))
            try:
                segments.append(pq.read_table(self.folder / shard.segments.file, partitioning=None).cast(SEGMENTS))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._damaged(shard.segments.file, str(error)) from error
        self._firsts = np.cumsum([0, *(s.sequences for s in found.shards)])
        if self._firsts[-1] != found.sequences:
            raise self._damaged(MANIFEST, f"its shards have {self._firsts[-1]} sequences, it says {found.sequences}")
        self._segments = pa.concat_tables([SEGMENTS.empty_table(), *segments]).combine_chunks()
        self._starts, self._stops = (self._segments[n].to_numpy() for n in ("start", "stop"))
        self._bounds = np.searchsorted(self._segments["sequence"].to_numpy(), np.arange(found.sequences + 1))
        if (np.diff(self._bounds) < 1).any():
            raise self._damaged("its segments", "a sequence has no document")

    def _same(self, item: ShardFile, check: bool) -> None:
        path = self.folder / item.file
        try:
            size = path.stat().st_size
        except OSError as error:
            raise self._damaged(item.file, "it is not there") from error
        if size != item.bytes:
            raise self._damaged(item.file, f"expected {item.bytes} bytes, got {size}")
        if check and hash_file(str(path)) != item.hash:
            raise self._damaged(item.file, "its bytes do not have the hash in the manifest")

    def _damaged(self, file: str, why: str) -> DataError:
        return DataError(f"{self.folder / file} is damaged ({why}); remove {self.folder} and tokenize again")

    def __len__(self) -> int:
        return self.manifest.sequences

    def _row(self, arrays: Sequence[Any], index: int) -> npt.NDArray[Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"expected a sequence from 0 to {len(self) - 1}, got {index}")
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        row: npt.NDArray[Any] = arrays[shard][index - self._firsts[shard], : self._stops[self._bounds[index + 1] - 1]]
        return row

    def tokens(self, index: int) -> npt.NDArray[Any]:
        """The ids of a sequence without its padding."""
        return self._row(self._tokens, index)

    def mask(self, index: int) -> npt.NDArray[Any]:
        """1 where a token is to be learned."""
        return self._row(self._masks, index)

    def starts(self, index: int) -> Ints:
        """Where its documents begin."""
        found: Ints = self._starts[self._bounds[index] : self._bounds[index + 1]].astype(np.int64)
        return found

    def documents(self, index: int) -> Sequence[str]:
        """The identities of its documents."""
        low, high = self._bounds[index], self._bounds[index + 1]
        names: list[str] = self._segments["identity"].slice(low, high - low).to_pylist()
        return names

    def segments(self) -> pa.Table:
        """The index: a row for each piece (SEGMENTS)."""
        return self._segments


def held_identities(folder: Path, identities: pa.Array) -> int:
    """How many documents of a folder of shards are among these identities."""
    import pyarrow.compute as pc

    found: set[int] = set()
    for shard in read_manifest(folder).shards:
        table = pq.read_table(folder / shard.segments.file, columns=["identity", "document"], partitioning=None)
        found |= set(table["document"].filter(pc.is_in(table["identity"], identities)).to_pylist())
    return len(found)


def counted(sources: Sequence[str | None], sizes: Ints, tokens: Ints) -> list[SourceCount]:
    """Documents, bytes and tokens by source, by name; those without one first."""
    found: dict[str | None, list[int]] = {}
    for source, size, count in zip(sources, sizes.tolist(), tokens.tolist(), strict=True):
        entry = found.setdefault(source, [0, 0, 0])
        for i, amount in enumerate((1, size, count)):
            entry[i] += amount
    ordered: Mapping[str | None, list[int]] = {name: found[name] for name in sorted(found, key=lambda n: (n is not None, n or ""))}
    return [SourceCount(source=name, documents=d, bytes=b, tokens=t) for name, (d, b, t) in ordered.items()]
