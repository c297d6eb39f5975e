"""`curate tokenize`: a publication, or files, as token shards (docs/tokenize.md).

The parts are tokenized by the workers into a folder beside the result; a killed call finds there what is done. Lengths alone
are packed, then shards are written one at a time, the manifest last, and the folder gets its name in one step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import chatmask, copies, ledger
from curate.corpus import Corpus, CorpusSpec, Part, open_corpus, read_part
from curate.engine import LocalEngine, available_cpus
from curate.errors import ConfigError, DataError
from curate.events import Events, Listener
from curate.lease import held
from curate.packed import IGNORED
from curate.packing import Ints, Pieces, pack
from curate.params import Problems, build
from curate.pipelines.train import settings
from curate.shards import (
    FORMAT,
    MANIFEST,
    Documents,
    Manifest,
    Shards,
    are_shards,
    counted,
    dtype_of,
    read_manifest,
    write_manifest,
    write_shards,
)
from curate.stage import TEXT
from curate.store import digest, sync
from curate.tokenizing import TOKENIZED, TokenizeSpec, TokenizeTask, train_bpe

#: Of what is done with text; raised where the same settings give other shards.
VERSION = 2
#: Sequences whose documents are packed together where the mixture's order is to be kept document by document.
WINDOW = 64
#: Parts of an ordered mixture that a tokenizer is trained on.
SPREAD = 64
#: Rows of a row group of the plain tables.
PLAIN_ROWS = 1024


@dataclass(frozen=True)
class Tokenized:
    """Where the shards are and what they are; `new` False where they were there already."""

    folder: Path
    manifest: Manifest
    new: bool


def spec_of(overrides: Sequence[str], tokenizer: str | None = None) -> TokenizeSpec:
    """Settings from `a=value` words; every problem at once."""
    problems = Problems()
    values = {**settings(overrides), **({"tokenizer": tokenizer} if tokenizer else {})}
    spec = build(TokenizeSpec, values, "tokenize", problems)
    problems.raise_if_any("curate tokenize")
    assert spec is not None
    return spec


def tokenize(
    data: Path | str | Sequence[Path | str], out: Path | str | None = None, spec: TokenizeSpec | None = None, *, text: str = "text", view: str = "all",
    id: str | None = None, source: str | None = None, workers: int | None = None, listener: Listener | None = None, wait: float = 0.0,
) -> Tokenized:  # fmt: skip
    """Tokenize a run's mixture, a publication, or files, into the folder `out`.

    Of a run, `out` is by default RUN/tokens/<key>, where `curate takedown` finds it. The same call again finds its result; another
    call into the same folder is a ConfigError.
    """
    spec = spec or TokenizeSpec()
    _have_libraries()
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(p) for p in data]
    corpus_spec, made_of, run = _what(paths, text, view, id, source)
    order = None if made_of is None else copies.of_publication((run / "mixture") if run is not None else paths[0])
    corpus = open_corpus(corpus_spec, Path.cwd())
    if spec.loss == "response" and corpus.layout.plan.view != "all":
        raise ConfigError(f"loss: response masks the prompts of whole conversations, and the text is their view {corpus.layout.plan.view}; use loss: all, or view: all")
    made_of = made_of or digest([part.fingerprint for part in corpus.parts], [corpus_spec.text, corpus_spec.view, corpus_spec.id, corpus_spec.source])
    key = digest("tokenize", VERSION, {**spec.determining(), "tokenizer": _content(spec)}, made_of, _versions())
    if out is None:
        if run is None:
            raise ConfigError("expected a folder for the shards: -o DIR; only those of a run folder have a place of their own")
        out = run / "tokens" / key
    folder = Path(out).resolve()
    if folder.exists():
        return _there(folder, key)
    making = folder.parent / f".{folder.name}.making"
    with held(making, wait=wait):
        if folder.exists():
            return _there(folder, key)
        manifest = _make(corpus, spec, order, making, key, made_of, workers or available_cpus(), Events(listener))
        os.replace(making / "shards", folder)
        sync(folder.parent)
    shutil.rmtree(making, ignore_errors=True)
    return Tokenized(folder, manifest, True)


def _there(folder: Path, key: str) -> Tokenized:
    if not are_shards(folder):
        raise ConfigError(f"expected a folder that is not there yet, got {folder}, which holds something else; name another with -o")
    found = read_manifest(folder)
    if found.settings.get("key") != key:
        raise ConfigError(f"{folder} holds shards of other data, settings or versions; name another folder with -o, or remove that one")
    Shards(folder, check=True)
    return Tokenized(folder, found, False)


def _have_libraries() -> None:
    import importlib.util

    missing = [name for name in ("tokenizers", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"curate tokenize needs {', '.join(missing)}: pip install 'curate[train]'")


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("tokenizers", "transformers")}


def _what(paths: list[Path], text: str, view: str, id: str | None, source: str | None) -> tuple[CorpusSpec, str | None, Path | None]:
    """The corpus to read, the publication's key and the run folder, where it is of one."""
    run = paths[0].resolve() if len(paths) == 1 and (paths[0] / ledger.NAME).is_file() else None
    if run is not None and not (run / "mixture").is_dir():
        raise ConfigError(f"{run} has no mixture: its last run published nothing; run its recipe again")
    publication = (run / "mixture").resolve() if run is not None else paths[0].resolve()
    if run is None and not (len(paths) == 1 and (publication / MANIFEST).is_file()):
        return CorpusSpec(paths=[str(p) for p in paths], text=text, view=view, id=id, source=source), None, None  # type: ignore[arg-type]
    try:
        recipe = msgspec.json.decode((publication / MANIFEST).read_bytes())["recipe"]
        spec = CorpusSpec(paths=[str(publication / "data")], text=recipe["text"], view=recipe["view"], source=recipe["source"])
    except (OSError, KeyError, TypeError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{publication / MANIFEST}: expected the manifest of a publication, got: {error}; publish again") from error
    return spec, publication.name, run


def _content(spec: TokenizeSpec) -> str:
    """The tokenizer by its files' content."""
    if spec.tokenizer is None:
        return "trained"
    place = Path(spec.tokenizer)
    files = [place] if place.is_file() else sorted(f for f in place.glob("*") if f.is_file() and (f.suffix in (".json", ".model", ".txt", ".jinja")))
    if not files:
        raise ConfigError(f"tokenizer: expected a Hugging Face folder or a tokenizer.json, got {place}; nothing is downloaded")
    return digest([[f.name, digest(f.read_bytes().hex())] for f in files])


# -- making -----------------------------------------------------------------------------------------------------------


def _make(corpus: Corpus, spec: TokenizeSpec, order: copies.Placed | None, making: Path, key: str, made_of: str, workers: int, events: Events) -> Manifest:
    parts = making / f"parts-{key}"
    if not parts.exists():
        for left in making.glob("parts-*"):
            shutil.rmtree(left)
        parts.mkdir()
    tokenizer = parts / "tokenizer"
    if not tokenizer.exists():
        _save_tokenizer(corpus, spec, order, parts / "tokenizer-making")
        os.replace(parts / "tokenizer-making", tokenizer)
    from curate.models import load_tokenizer, tokenizer_fingerprint

    loaded = load_tokenizer(tokenizer)
    bos, eos = _special(loaded, spec)
    if spec.loss == "chat":
        chatmask.encode(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    groups = tuple(order.published[1:]) if order else ()
    cache = None
    if spec.cache is not None:
        made = digest("tokens", VERSION, tokenizer_fingerprint(tokenizer), spec.loss, [bos, eos, loaded.bos_token_id], _versions())
        cache = (Path(spec.cache).expanduser().resolve() / f"tokens-{made}.sqlite", spec.cache_bytes)
    tasks = [
        TokenizeTask(corpus.layout.of([part]), part, tokenizer, spec.loss, bos, eos, loaded.bos_token_id, corpus.layout.spec.source, parts / f"{i:06d}.arrow", cache, groups)
        for i, part in enumerate(corpus.parts)
    ]
    missing = [task for task in tasks if not task.out.exists()]
    with events.phase("tokenize", total=sum(task.part.bytes for task in missing)) as phase, LocalEngine(workers) as engine:
        engine.map("curate.tokenizing:tokenize_part", missing, lambda rows: phase.advance(rows, 0))
    tables = [pa.ipc.open_file(pa.memory_map(str(task.out))).read_all() for task in tasks]
    table = pa.concat_tables([TOKENIZED.empty_table(), *tables])
    words = max(len(loaded), max(loaded.get_vocab().values(), default=0) + 1)
    shards = making / "shards"
    shutil.rmtree(shards, ignore_errors=True)
    shards.mkdir()
    shutil.copytree(tokenizer, shards / "tokenizer")
    pad = loaded.pad_token_id if loaded.pad_token_id is not None else eos if eos is not None else 0
    with events.phase("pack"):
        manifest = _shards(table, spec, order, shards, words, int(pad), {
            "tokenizer": tokenizer_fingerprint(tokenizer), "made_of": made_of,
            "settings": {**spec.determining(), "tokenizer": None if spec.tokenizer is None else Path(spec.tokenizer).name, "key": key},
        })  # fmt: skip
    write_manifest(shards, manifest)
    if spec.plain:
        _plain(shards, Shards(shards))
    for path in sorted(shards.rglob("*")):
        sync(path)
    return manifest


def _save_tokenizer(corpus: Corpus, spec: TokenizeSpec, order: copies.Placed | None, folder: Path) -> None:
    """The tokenizer's own files, of a folder, of a tokenizer.json, or trained."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if spec.tokenizer is None:
        train_bpe(_texts(corpus, spec.train_bytes, everywhere=order is not None and order.in_order), spec.vocab_size, folder)
        return
    place = Path(spec.tokenizer)
    if place.is_file():
        from transformers import PreTrainedTokenizerFast

        named = {name: value for name, value in (("bos_token", spec.bos_token), ("eos_token", spec.eos_token)) if value}
        fast: Any = PreTrainedTokenizerFast
        fast(tokenizer_file=str(place), **named).save_pretrained(str(folder))
        return
    from curate.models import load_tokenizer

    found = load_tokenizer(place)
    if not found.is_fast:
        raise ConfigError(f"{place}: expected a tokenizer of the `tokenizers` library (a tokenizer.json), got {type(found).__name__}; convert it first")
    found.save_pretrained(str(folder))


def _texts(corpus: Corpus, most: int, *, everywhere: bool) -> Iterator[str]:
    """Up to `most` bytes of text: from the beginning, or of an ordered mixture, whose beginning is not like its end, equally from SPREAD parts."""
    if not everywhere:
        yield from _some(corpus, corpus.parts, most)
        return
    places = np.linspace(0, len(corpus.parts) - 1, min(SPREAD, len(corpus.parts))).astype(int).tolist()
    for place in places:
        yield from _some(corpus, [corpus.parts[place]], -(-most // len(places)))


def _some(corpus: Corpus, parts: Sequence[Part], most: int) -> Iterator[str]:
    """Texts of the parts until they have `most` bytes."""
    read = 0
    for part in parts:
        for batch in read_part(corpus.layout, part):
            for text in batch.column(TEXT).to_pylist():
                if read >= most:
                    return
                read += len(text.encode())
                yield text


def _special(loaded: Any, spec: TokenizeSpec) -> tuple[int | None, int | None]:
    """The ids of bos and eos to put around a text; None where none is put. A chat template has its own."""
    if spec.loss == "chat":
        return None, None
    found: list[int | None] = []
    for name, wanted, given in (("bos", spec.bos, spec.bos_token), ("eos", spec.eos, spec.eos_token)):
        word = given or getattr(loaded, f"{name}_token")
        number = loaded.get_vocab().get(word) if word else None
        if wanted and number is None:
            raise ConfigError(f"{name}: the tokenizer has no {name} token{f' {word!r}' if word else ''}; name one of its tokens as {name}_token, or write {name}: false")
        found.append(number if wanted else None)
    return found[0], found[1]


def _shards(table: pa.Table, spec: TokenizeSpec, order: copies.Placed | None, folder: Path, words: int, pad: int, told: dict[str, Any]) -> Manifest:
    tokens, masks = _rows(table, "tokens"), None if spec.loss == "all" else _rows(table, "mask")
    sizes = np.array([len(row) for row in tokens], np.int64)
    length = spec.sequence_length
    counts = {"documents": len(sizes), "empty": int((sizes == 0).sum()), "cut": 0, "truncated": 0, "dropped": 0, "nothing_to_learn": 0}
    long = sizes > length
    if spec.overlong == "drop":
        counts["dropped"], sizes = int(long.sum()), np.where(long, 0, sizes)
    elif spec.overlong == "truncate":
        counts["truncated"], sizes = int(long.sum()), np.minimum(sizes, length)
    if masks is not None:
        nothing = np.array([n > 0 and not masks[i][:n].any() for i, n in enumerate(sizes.tolist())], bool)
        counts["nothing_to_learn"], sizes = int(nothing.sum()), np.where(nothing, 0, sizes)
    pieces = pack(sizes, length, spec.packing, _groups(table, order, sizes, length))
    counts["cut"] = int((np.bincount(pieces.document, minlength=len(sizes)) > 1).sum())
    documents = Documents(tokens, masks, table["identity"].to_pylist(), table["source"].to_pylist())
    written = list(write_shards(
        folder, documents, pieces, length=length, dtype=dtype_of(words), pad=pad, sequences_per_shard=max(1, spec.shard_tokens // length)
    ))  # fmt: skip
    learned, trained = _learned(pieces, masks)
    bytes_of = table["bytes"].to_numpy()
    whole = spec.loss == "all" and not counts["truncated"] and not counts["dropped"]
    return Manifest(
        format=FORMAT, tokenizer=told["tokenizer"], vocab_size=words, dtype=dtype_of(words), pad=pad, sequence_length=length, sequences=pieces.sequences,
        tokens=int(sizes.sum()), learned=learned, trained=trained, bytes_of_text=int(bytes_of.sum()) if whole else None, counts=counts,
        sources=counted(documents.sources, bytes_of, np.array([len(row) for row in tokens], np.int64)), shards=written,
        settings=told["settings"], made_of=told["made_of"], in_order=order is not None and order.in_order,
    )  # fmt: skip


def _groups(table: pa.Table, order: copies.Placed | None, sizes: Ints, length: int) -> Ints | None:
    """Numbers, ascending, of what is packed on its own so that the mixture's order stands; None where it has none.

    A group of the mixture; where rows are sorted inside it, as many documents of it as fill about WINDOW sequences.
    """
    if order is None or not order.in_order:
        return None
    said = pc.list_flatten(table["groups"]).to_numpy().reshape(len(sizes), len(order.published) - 1)
    window = (np.cumsum(sizes) - sizes) // (WINDOW * length) if order.sorted else np.zeros(len(sizes), np.int64)
    keys = np.column_stack([said, window])
    return np.cumsum(np.r_[False, (keys[1:] != keys[:-1]).any(axis=1)]) if len(keys) else np.empty(0, np.int64)


def _rows(table: pa.Table, name: str) -> list[Any]:
    """Each row's numbers, where they lie in the mapped files."""
    found: list[Any] = []
    for chunk in table[name].chunks:
        flat, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy().tolist()
        found += [flat[a:b] for a, b in pairwise(offsets)]
    return found


def _learned(pieces: Pieces, masks: list[Any] | None) -> tuple[int, int]:
    """How many tokens are to be learned, and how many of them are the label of one before."""
    if masks is None:
        total = int(pieces.length.sum())
        return total, total - len(pieces.length)
    learned = trained = 0
    for document, first, size in zip(pieces.document.tolist(), pieces.first.tolist(), pieces.length.tolist(), strict=True):
        own: Ints = masks[document][first : first + size]
        count = int(np.count_nonzero(own))
        learned, trained = learned + count, trained + count - int(own[0])
    return learned, trained


def _plain(folder: Path, shards: Shards) -> None:
    """The same sequences for other trainers: input_ids, labels (of token i itself, -100 where none) and position_ids."""
    (folder / "plain").mkdir()
    kind = pa.list_(pa.int32())
    schema = pa.schema([("input_ids", kind), ("labels", kind), ("position_ids", kind)])
    with pq.ParquetWriter(folder / "plain" / "tokens-00000.parquet", schema, compression="zstd", write_page_checksum=True) as out:
        for begin in range(0, len(shards), PLAIN_ROWS):
            columns: list[list[Any]] = [[], [], []]
            for index in range(begin, min(begin + PLAIN_ROWS, len(shards))):
                ids: Any = shards.tokens(index).astype(np.int32)
                starts = shards.starts(index)
                labels: Any = np.where(shards.mask(index) != 0, ids, IGNORED)
                labels[starts] = IGNORED
                positions: Any = np.arange(len(ids)) - np.repeat(starts, np.diff(np.append(starts, len(ids))))
                for column, values in zip(columns, (ids, labels, positions), strict=True):
                    column.append(values.astype(np.int32))
            out.write_table(pa.table([pa.array(c, kind) for c in columns], schema=schema))
