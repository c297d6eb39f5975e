"""The conformance suite: every stage of the program holds it, and each of its checks catches a stage that breaks it."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate import registry
from curate.conformance import Check, check_stage
from curate.errors import ConfigError
from curate.sampling import Bounds
from curate.stage import BYTES, REASON, TEXT, VALUE, WORDS, Context

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
SMALL = Path(__file__).parent.parent / "data_samples" / "small"

#: Whether the library of tokenizers, of the extra [train], is here.
TOKENIZERS = importlib.util.find_spec("tokenizers") is not None
#: Every stage with the settings under which it is held to the suite.
HELD: list[tuple[str, dict[str, Any]]] = [
    ("dsir", {}),
    ("dsir", {"hash": "sha256"}),
    ("dsir", {"ngrams": 1, "buckets": 64}),
    ("dsir", {"ngrams": 3, "buckets": 50_000, "laplace": 1.0}),
    ("dsir", {"tokenizer": "chars", "ngrams": 4}),
    ("dsir", {"char_class": "regex", "hash": "sha256"}),
    ("dsir", {"min_tokens": 5}),
    ("dsir", {"fit": 20}),
    ("dsir", {"length_normalise": True}),
    ("dsir", {"state": "frozen"}),
    ("length", {"min_bytes": 20}),
    ("length", {"max_bytes": 100, "min_words": 2, "max_words": 1000}),
    ("dedup_exact", {}),
    ("dedup_exact", {"normalize": ["nfc", "case", "space"]}),
    ("dedup_exact", {"normalize": ["space"], "keep": "longest"}),
    ("dedup_exact", {"column": "source"}),
    ("instruction_rules", {"prompt": "source", "response": "source", "max_length_ratio": 1.0}),
    ("repeated_lines", {}),
    ("repeated_lines", {"unit": "paragraph", "min_documents": 2, "min_bytes": 0}),
    ("pii", {}),
    ("pii", {"mode": "tag", "kinds": ["email"]}),
    ("pii", {"mode": "drop", "max": 1}),
    ("c4", {}),
    ("c4", {"end_marks": False, "min_words": None, "min_sentences": None}),
    ("code_rules", {"language": "Python"}),
    ("code_rules", {"language_by": "source", "markers": ["x"], "marker_lines": 1}),
    ("refinedweb_lines", {"max_words_cut_ratio": 0.5}),
    ("gopher_quality", {}),
    ("gopher_repetition", {}),
    ("gopher_repetition", {"top_once": False}),
    ("fineweb_quality", {"short_line_chars": 5, "closing_quotes": True}),
    ("language", {}),
    ("language", {"languages": ["en", "hi"], "min_score": 0.2, "among": ["en", "zh", "hi"], "max_bytes": 30, "paragraphs": True}),
    ("dedup_exact", {"against": ["runs/before"]}),
    ("minhash", {}),
    ("minhash", {"column": "source"}),
    ("minhash", {"against": ["runs/before"], "bands_rule": "datasketch"}),
    ("minhash", {"unit": "char", "ngram": 3, "num_perm": 20}),
    ("minhash", {"scheme": "legacy", "num_perm": 33, "threshold": 0.5}),
    ("minhash", {"scheme": "affine32", "unit": "word", "ngram": 1}),
    ("zipfit", {}),
    ("zipfit", {"level": 1, "compressor": "deflate", "max_targets": 1}),
    ("zipfit", {"compressor": "zstd", "level": 3}),
    ("compression_ratio", {}),
    ("compression_ratio", {"compressor": "zstd", "level": 3, "window_bytes": 7}),
    ("gzip_knn", {}),
    ("gzip_knn", {"k": 1, "order": "target_first", "separator": "", "level": 6}),
    ("zipfit_fast", {}),
    ("zipfit_fast", {"compressor": "zlib", "level": 1, "max_targets": 1}),
    ("color_filter", {"prior": "prior", "conditional": "conditional"}),
    ("ifd", {}),
    ("ifd", {"max": None}),
    ("perplexity", {}),
    ("decontaminate", {"sets": {"s": {"files": [str(SMALL / "test.jsonl")]}}}),
    ("decontaminate", {"sets": {"s": {"files": [str(SMALL / "guide.jsonl")]}}, "ngram": 3, "containment_ngram": 1, "min_words": 1, "min_characters": 1, "drop": None}),
    ("embed", {}),
    ("embed", {"column": "source"}),
    ("embed", {"dim": 70, "ngram": 4, "dtype": "float32"}),
    ("semdedup", {"vector": "source"}),
    ("d4", {"vector": "source"}),
    ("cover", {"how": "k_center", "budget": 3}),
    ("guide_similarity", {}),
    ("guide_similarity", {"combine": "mean", "each": True}),
    *([("token_count", {"tokenizer": str(EXAMPLES / "words_tokenizer.json")})] if TOKENIZERS else []),
    ("select", {"how": "random", "budget": "50%"}),
    ("select", {"how": "random_balanced", "group_by": "source", "budget": 3}),
    ("mix", {"weights": "unimax", "group_by": "source", "budget": 3}),
    ("mix", {"budget": {"source 1": 2}, "group_by": "source", "by": "curate_words"}),
    ("mix", {"schedule": [{"weights": "proportional", "budget": 3}], "max_epochs": 2, "group_by": "source", "arrange": {"by": "curate_words", "bands": 2}}),
]


#: What stages before them would have added, for those that read it.
LOSSES = {
    **{name: pa.array([1.5, None, 0.25, 3.0, 0.0]) for name in ("prior", "given", "lm")}, **{name: pa.array([1.0, 2.0, None]) for name in ("conditional", "alone")},
    **{f"{name}_tokens": pa.array([3, 0, 3, 9]) for name in ("prior", "conditional", "given", "alone", "lm")},
}  # fmt: skip
BEFORE = {"color_filter": LOSSES, "ifd": LOSSES, "perplexity": LOSSES}


def said(results: list[Check]) -> str:
    return "; ".join(f"{r.name}: {r.why}" for r in results if not r.holds)


@pytest.mark.parametrize(
    ("stage", "settings"), HELD, ids=[f"{s}-{'-'.join(map(str, p)) or 'defaults'}" for s, p in HELD]
)
def test_every_stage_of_the_program_holds_the_suite(stage: str, settings: dict[str, Any]) -> None:
    results = check_stage(stage, settings, columns=BEFORE.get(stage))
    assert len(results) >= 15
    assert not said(results)


def test_no_stage_of_the_program_is_left_out_of_the_suite() -> None:
    elsewhere = {"lm"} | (set() if TOKENIZERS else {"token_count"})  # lm needs a model: tests/scorers/test_lm.py
    assert {stage for stage, _ in HELD} == set(registry.known()) - elsewhere


def test_the_example_scorer_of_the_documentation_holds_the_suite() -> None:
    assert not said(check_stage("shout.py:Shout", base=EXAMPLES))
    assert not said(check_stage("shout.py:Shout", {"min_letters": 5}, base=EXAMPLES))


# Stages that are broken in one way each. The first is sound: what is reported for the others is their own fault.


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None of them has any."""


class Sound:
    """Adds the bytes of each text as a float, null for the empty one."""

    name = "sound"
    version = 1
    Params = Settings

    def __init__(self, params: Settings, context: Context) -> None:
        self.params = params

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        return pa.schema([(VALUE, pa.float64()), (REASON, pa.string())])

    def scores(self, texts: list[str]) -> list[float | None]:
        return [float(len(t)) if t else None for t in texts]

    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
        scores = self.scores(batch.column(TEXT).to_pylist())
        reasons = [None if s is not None else "empty" for s in scores]
        return pa.record_batch(
            [pa.array(scores, pa.float64()), pa.array(reasons, pa.string())], schema=self.fields()
        )


class Short(Sound):
    """Loses the last row of a batch."""

    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
        out = super().apply(state, batch)
        return out.slice(0, max(0, out.num_rows - 1))


class OtherColumns(Sound):
    """Returns a column that `fields` does not name."""

    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
        return super().apply(state, batch).rename_columns([VALUE, "why"])


class Writes(Sound):
    """Writes into the batch that it was given: its first text begins with another letter afterwards."""

    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
        out = super().apply(state, batch)
        column = batch.column(TEXT)
        data = column.buffers()[2]
        if column.offset == 0 and len(column) > 2 and data is not None:
            foreign = pa.foreign_buffer(data.address, data.size, data)
            flip(foreign.address + 1)
        return out


def flip(address: int) -> None:
    import ctypes

    cell = ctypes.c_ubyte.from_address(address)
    cell.value = ord("X") if cell.value != ord("X") else ord("Y")


class ByBatch(Sound):
    """Ranks inside the batch: another batch, another score."""

    def scores(self, texts: list[str]) -> list[float | None]:
        most = max((len(t) for t in texts), default=1) or 1
        return [len(t) / most if t else None for t in texts]


class ByPlace(Sound):
    """Numbers the rows of a batch."""

    def scores(self, texts: list[str]) -> list[float | None]:
        return [float(i) for i, _ in enumerate(texts)]


class Neighbours(Sound):
    """Gives a text that stands beside its copy another score."""

    def scores(self, texts: list[str]) -> list[float | None]:
        return [len(t) + float(i > 0 and texts[i - 1] == t) for i, t in enumerate(texts)]


class Restless(Sound):
    """Counts its calls."""

    calls = itertools.count()

    def scores(self, texts: list[str]) -> list[float | None]:
        return [float(next(self.calls)) for _ in texts]


class NotANumber(Sound):
    """Scores the empty text NaN instead of null."""

    def scores(self, texts: list[str]) -> list[float | None]:
        return [float(len(t)) if t else float("nan") for t in texts]


class OnlyNarrow(Sound):
    """Reads strings only: a large_string is another type to it."""

    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
        if pa.types.is_large_string(batch.column(TEXT).type):
            return super().apply(state, pa.record_batch([pa.array([""] * batch.num_rows)], names=[TEXT]))
        return super().apply(state, batch)


class NoEmpty(Sound):
    """Fails on a batch without rows."""

    def scores(self, texts: list[str]) -> list[float | None]:
        first = texts[0]
        return [float(len(t) + len(first)) for t in texts]


class OddName(Sound):
    """Names its column as if it were the program's own."""

    def fields(self) -> pa.Schema:
        return pa.schema([("curate_size", pa.float64()), (REASON, pa.string())])


class Judging:
    """Drops what is shorter than ten bytes, and says why. Sound."""

    name = "judging"
    version = 1
    Params = Settings

    def __init__(self, params: Settings, context: Context) -> None:
        self.params = params

    def judge_reads(self) -> list[str]:
        return [BYTES]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        keep = pc.greater_equal(batch.column(BYTES), 10)
        return keep, pc.if_else(keep, pa.scalar(None, pa.string()), "short")


class Silent(Judging):
    """Drops without a reason."""

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        keep, _ = super().judge(batch)
        return keep, pa.nulls(len(keep), pa.string())


class Talkative(Judging):
    """Gives a reason for what it keeps too."""

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        keep, _ = super().judge(batch)
        return keep, pa.array(["short"] * len(keep), pa.string())


class Fitting(Sound):
    """Adds up words. Sound: integers, in any order."""

    def fit_reads(self) -> list[str]:
        return [WORDS]

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        return self.total(sum(pc.sum(b.column(WORDS)).as_py() or 0 for b in batches))

    def total(self, value: float) -> pa.Table:
        return pa.table({"words": pa.array([value])})

    def merge(self, partials: list[pa.Table]) -> pa.Table:
        return self.total(sum(p["words"][0].as_py() for p in partials))

    def close(self, merged: pa.Table, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        return merged


class Averages(Fitting):
    """Merges by averaging, which is not associative."""

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        return self.total(float(sum(pc.sum(b.column(WORDS)).as_py() or 0 for b in batches)))

    def merge(self, partials: list[pa.Table]) -> pa.Table:
        return self.total(float(sum(p["words"][0].as_py() for p in partials) / len(partials)))


class LastWins(Fitting):
    """Keeps the last partial: associative, but the order of the parts shows."""

    def merge(self, partials: list[pa.Table]) -> pa.Table:
        return partials[-1]


class Unfit(Fitting):
    """Cannot fit a part without rows."""

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        total = super().fit_part(iter([b for b in batches if b.num_rows]))
        if total["words"][0].as_py() == 0:
            raise ValueError("nothing to add up")
        return total


class Trained(Sound):
    """Trains on a sample: the longest text of it. Sound."""

    def samples(self) -> Mapping[str, Bounds]:
        return {"pool": Bounds(10)}

    def sample_reads(self) -> list[str]:
        return [TEXT]

    def sample_from(self) -> list[str]:
        return ["source"]

    def sample_of(self, batch: pa.RecordBatch) -> pa.Array:
        return pc.if_else(pc.equal(batch.column(0), "source 1"), pa.scalar(None, pa.string()), "pool")

    def fit_sample(self, samples: Mapping[str, pa.Table], targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        return pa.table({"longest": [max(len(t) for t in samples["pool"][TEXT].to_pylist())]})


class Unsteady(Trained):
    """Trains to another state each time."""

    calls = itertools.count()

    def fit_sample(self, samples: Mapping[str, pa.Table], targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        return pa.table({"call": [next(self.calls)]})


class Alternating(Trained):
    """Puts every other row of a batch into the sample."""

    def sample_of(self, batch: pa.RecordBatch) -> pa.Array:
        return pa.array([None if i % 2 else "pool" for i in range(batch.num_rows)], pa.string())


def failing(cls: type) -> dict[str, str]:
    """Which checks a class of this file fails, and why."""
    return {r.name: r.why for r in check_stage(f"{__name__}:{cls.__name__}") if not r.holds}


@pytest.mark.parametrize("cls", [Sound, Judging, Fitting, Trained])
def test_the_sound_ones_hold(cls: type) -> None:
    assert failing(cls) == {}


@pytest.mark.parametrize(
    ("cls", "check", "words"),
    [
        (Short, "length and schema", "rows in"),
        (OtherColumns, "length and schema", "fields() says"),
        (Writes, "no mutation", "the input was changed"),
        (ByBatch, "slices", "alone gave another result"),
        (ByBatch, "splits", "another result than one batch"),
        (ByPlace, "order", "depends on the rows around it"),
        (Neighbours, "order", "depends on the rows around it"),
        (Restless, "determinism", "two calls gave two results"),
        (NotANumber, "null reason", "NaN"),
        (OnlyNarrow, "large string", "another result than string"),
        (NoEmpty, "empty", "IndexError"),
        (OddName, "names", "curate_size"),
        (Silent, "length and schema", "a reason for every dropped row"),
        (Talkative, "length and schema", "a reason for every dropped row"),
        (Averages, "merge is associative", "differs from merge"),
        (LastWins, "merge does not depend on order", "the order of the parts"),
        (Unfit, "empty", "nothing to add up"),
        (Unsteady, "fit sample is deterministic", "two trainings"),
        (Alternating, "samples are named by row", "another sample than among all rows"),
    ],
)  # fmt: skip
def test_a_broken_stage_is_caught_by_the_check_that_is_meant_for_it(
    cls: type, check: str, words: str
) -> None:
    found = failing(cls)
    assert check in found, f"{cls.__name__} passed {check}; it failed {sorted(found)}"
    assert words in found[check]


def test_a_broken_stage_makes_the_command_fail_with_exit_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from curate.cli import main

    source = "\n\n".join(["import pyarrow as pa", "from test_conformance import Silent as Silent"])
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(SystemExit) as ended:
        main(["conformance", f"{tmp_path / 'broken.py'}:Silent"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert "FAILS  length and schema: a reason for every dropped row" in printed.out
    assert "checks failed" in printed.err


def test_a_stage_that_does_not_exist_is_an_error_of_the_call() -> None:
    with pytest.raises(ConfigError, match="no class 'Nothing'"):
        check_stage("shout.py:Nothing", base=EXAMPLES)
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        check_stage("lenght")


def test_settings_that_a_stage_refuses_are_an_error_of_the_call() -> None:
    with pytest.raises(ConfigError, match="min_letters"):
        check_stage("shout.py:Shout", {"min_leters": 2}, base=EXAMPLES)
