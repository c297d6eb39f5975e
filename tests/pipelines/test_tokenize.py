"""`curate tokenize` from outside: the same bytes for any workers, resumed and repeated calls, a run, a takedown, the plain tables."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer

import curate
from curate import ledger, show, takedown
from curate.cli import cli
from curate.errors import ConfigError
from curate.pipelines.tokenize import tokenize
from curate.pipelines.train import of_mixture, train
from curate.prune import prune
from curate.removal import take_down
from curate.shards import Shards
from curate.tokenizing import TokenizeSpec
from curate.tokentable import TokenTable
from curate.verify import verify

SPEC = TokenizeSpec(sequence_length=64, vocab_size=400)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    words = ["sun", "moon", "star", "river", "stone", "é中"]
    texts = [" ".join(rng.choice(words, int(n))) + f" {i}" for i, n in enumerate(rng.integers(1, 60, 200))]
    for half in (0, 1):
        rows = range(half * 100, half * 100 + 100)
        table = pa.table({"id": [f"d{i}" for i in rows], "source": [f"s{i % 3}" for i in rows], "text": [texts[i] for i in rows]})
        pq.write_table(table, tmp_path / f"pool{half}.parquet", row_group_size=40)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_worker_and_two_give_the_same_bytes_and_every_token_stands_once(pool: Path) -> None:
    data = [pool / "pool0.parquet", pool / "pool1.parquet"]
    one = tokenize(data, pool / "a", SPEC, id="id", source="source", workers=1)
    two = tokenize(data, pool / "b", SPEC, id="id", source="source", workers=2)
    assert files(one.folder) == files(two.folder)
    found = Shards(one.folder, check=True)
    own = Tokenizer.from_file(str(one.folder / "tokenizer" / "tokenizer.json"))
    table = pq.read_table(pool / "pool0.parquet").to_pylist() + pq.read_table(pool / "pool1.parquet").to_pylist()
    pieces: dict[str, dict[int, list[int]]] = {}
    rows = found.segments().to_pylist()
    for row in rows:
        pieces.setdefault(row["identity"], {})[row["first"]] = found.tokens(row["sequence"])[row["start"] : row["stop"]].tolist()
    end = own.token_to_id("<|eos|>")
    for row in table:
        whole = [t for _, piece in sorted(pieces[row["id"]].items()) for t in piece]
        assert whole[-1] == end
        assert own.decode(whole[:-1]) == row["text"]
    assert one.manifest.tokens == sum(s.tokens for s in one.manifest.sources)
    assert one.manifest.counts["documents"] == 200
    assert {s.source: s.documents for s in one.manifest.sources} == {"s0": 67, "s1": 67, "s2": 66}


def test_the_same_call_finds_its_result_and_another_is_refused(pool: Path) -> None:
    first = tokenize(pool / "pool0.parquet", pool / "a", SPEC, workers=1)
    assert first.new
    assert not tokenize(pool / "pool0.parquet", pool / "a", SPEC, workers=1).new
    with pytest.raises(ConfigError, match="other data, settings or versions"):
        tokenize(pool / "pool1.parquet", pool / "a", SPEC, workers=1)


def test_what_a_killed_call_left_is_used_and_gives_the_same_bytes(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.pipelines import tokenize as module

    whole = tokenize(pool / "pool0.parquet", pool / "a", SPEC, workers=1)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tokenize(pool / "pool0.parquet", pool / "b", SPEC, workers=1)
    left = {path.name: path.stat().st_mtime_ns for path in (pool / ".b.making").glob("parts-*/*.arrow")}
    assert left
    assert not (pool / "b").exists()
    again = tokenize(pool / "pool0.parquet", pool / "b", SPEC, workers=1)
    assert files(again.folder) == files(whole.folder)
    assert not (pool / ".b.making").exists()


def test_the_plain_table_is_what_the_shards_are(pool: Path) -> None:
    made = tokenize(pool / "pool0.parquet", pool / "a", TokenizeSpec(sequence_length=64, vocab_size=400, plain=True), workers=1)
    shards, plain = Shards(made.folder), TokenTable(made.folder / "plain")
    assert len(plain) == len(shards)
    for i in range(len(shards)):
        assert plain.tokens(i).tolist() == shards.tokens(i).tolist()
        assert plain.starts(i).tolist() == shards.starts(i).tolist()


@pytest.mark.parametrize("loss", ["all", "response"])
def test_another_mixture_of_known_documents_is_tokenized_not_at_all(pool: Path, loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate import tokenizing

    tokenizer = str(tokenize(pool / "pool0.parquet", pool / "a", SPEC, workers=1).folder / "tokenizer")
    rows = pq.read_table(pool / "pool0.parquet")
    rows = rows.append_column("prompt", pa.array(["say: "] * len(rows))).append_column("response", rows["text"])
    pq.write_table(rows, pool / "all.parquet")
    pq.write_table(rows.take(pa.array(range(90, 10, -2))), pool / "some.parquet")
    text = "text" if loss == "all" else "prompt/response"
    plain = TokenizeSpec(sequence_length=64, tokenizer=tokenizer, loss=loss)
    cached = TokenizeSpec(sequence_length=64, tokenizer=tokenizer, loss=loss, cache=str(pool / "cache"))
    whole = tokenize(pool / "all.parquet", pool / "whole", plain, text=text, workers=1)
    assert files(tokenize(pool / "all.parquet", pool / "first", cached, text=text, workers=1).folder) == files(whole.folder)
    expected = tokenize(pool / "some.parquet", pool / "expected", plain, text=text, workers=1)
    monkeypatch.setattr(tokenizing, "_plain", lambda *_: pytest.fail("it was tokenized before"))
    assert files(tokenize(pool / "some.parquet", pool / "second", cached, text=text, workers=1).folder) == files(expected.folder)


def test_a_cache_for_a_tokenizer_that_is_not_known_yet_is_refused() -> None:
    with pytest.raises(ConfigError, match="goes with a tokenizer of yours"):
        TokenizeSpec(cache="cache")


@pytest.mark.parametrize(("policy", "count"), [("drop", "dropped"), ("truncate", "truncated"), ("split", "cut")])
def test_documents_longer_than_a_sequence_are_counted(policy: str, count: str, pool: Path) -> None:
    made = tokenize(pool / "pool0.parquet", pool / "a", TokenizeSpec(sequence_length=16, vocab_size=400, too_long=policy), workers=1)  # type: ignore[arg-type]
    assert made.manifest.counts[count] > 0
    assert {n: v for n, v in made.manifest.counts.items() if n not in ("documents", count) and v} == {}


def a_run(pool: Path, **emit: Any) -> Path:
    recipe = {"corpus": {"paths": [str(pool / "pool*.parquet")], "id": "id", "source": "source"}, "stages": [], **({"emit": emit} if emit else {})}
    return curate.run(recipe, run=pool / "run", workers=1).folder


def test_the_shards_of_a_run_are_reached_by_a_takedown_and_the_model_that_learned_them_is_named(pool: Path) -> None:
    run = a_run(pool)
    made = tokenize(run, None, SPEC, workers=1)
    assert made.folder.parent == run / "tokens"
    assert {"d7", "d8"} < set(Shards(made.folder).segments()["identity"].to_pylist())
    words = ["config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 48}", "steps=1", "precision=fp32", f"batch_tokens={SPEC.sequence_length}"]
    trained = train(run, overrides=words)
    told = take_down(run, ["d7"], workers=1, dry_run=True)
    assert [(f.label, f.documents) for f in told.fitted] == [(f"models/{trained.key}", 1)]
    assert made.folder.exists()
    done = take_down(run, ["d7"], workers=1)
    assert f"models/{trained.key}: this model was trained on 1 of them" in show.taken(done, str(run))
    assert not made.folder.exists()
    assert ledger.read(run) is not None
    again = tokenize(run, None, SPEC, workers=1)
    assert "d7" not in Shards(again.folder).segments()["identity"].to_pylist()
    assert trained.model.exists()
    listed = takedown.read(run)
    assert listed is not None
    assert [f.label for f in listed.fitted] == [f"models/{trained.key}"]  # still told, though its shards are gone
    again_done = take_down(run, ["d8"], workers=1)  # the shards that it stood in are gone, the model's own record is not
    assert [(f.label, f.documents) for f in again_done.fitted] == [(f"models/{trained.key}", 2)]
    assert verify(run, workers=1).holds


def test_a_damaged_model_is_found_and_made_again_of_its_last_checkpoint(pool: Path) -> None:
    run = a_run(pool)
    tokenize(run, None, SPEC, workers=1)
    words = ["config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 48}", "steps=1", "precision=fp32", f"batch_tokens={SPEC.sequence_length}"]
    trained = train(run, overrides=words)
    report = verify(run, workers=1)
    assert report.holds
    assert next(c.what for c in report.checks if c.name == "models") == "1 trained models have the files that their manifests say"
    before = files(trained.model)
    weights = trained.model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    (fault,) = verify(run, workers=1).faults
    assert str(weights) in fault.what
    assert verify(run, repair=True, workers=1).removed == [trained.model]
    (fault,) = verify(run, workers=1).faults
    assert "which is not there" in fault.what
    train(run, overrides=words)
    assert verify(run, workers=1).holds
    assert files(trained.model) == before


def test_damaged_shards_are_found_and_repaired_by_removal(pool: Path) -> None:
    run = a_run(pool)
    made = tokenize(run, None, SPEC, workers=1)
    report = verify(run, workers=1)
    assert report.holds
    assert next(c.what for c in report.checks if c.name == "tokens") == "1 folders of token shards have their sizes and hashes; 1 of the current mixture"
    before = files(made.folder)
    file = next(made.folder.glob("mask-*.bin"))
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    (fault,) = verify(run, workers=1).faults
    assert str(file) in fault.what
    assert "curate tokenize makes it again" in fault.remedy
    assert verify(run, repair=True, workers=1).removed == [made.folder]
    assert verify(run, workers=1).holds
    assert files(tokenize(run, None, SPEC, workers=1).folder) == before


def test_shards_go_with_the_publication_that_they_were_made_of(pool: Path) -> None:
    run = a_run(pool)
    old = tokenize(run, None, SPEC, workers=1).folder
    (pool / "pool1.parquet").unlink()
    a_run(pool)
    new = tokenize(run, None, SPEC, workers=1).folder
    assert prune(run, keep=2).removed[2].paths == []  # the older publication stays, and its shards with it
    assert prune(run, dry_run=True).removed[2].paths == [old]
    assert old.exists()
    prune(run)
    assert (old.exists(), new.exists()) == (False, True)
    assert verify(run, workers=1).holds


def test_a_tokenizer_json_without_an_end_needs_its_name(pool: Path) -> None:
    made = tokenize(pool / "pool0.parquet", pool / "a", SPEC, workers=1)
    file = pool / "tokenizer.json"
    shutil.copy(made.folder / "tokenizer" / "tokenizer.json", file)
    with pytest.raises(ConfigError, match="name one of its tokens as eos_token"):
        tokenize(pool / "pool0.parquet", pool / "b", TokenizeSpec(tokenizer=str(file)), workers=1)
    found = tokenize(pool / "pool0.parquet", pool / "c", TokenizeSpec(tokenizer=str(file), eos_token="<|eos|>", sequence_length=64), workers=1)
    one, two = Shards(found.folder), Shards(made.folder)
    assert [one.tokens(i).tolist() for i in range(len(one))] == [two.tokens(i).tolist() for i in range(len(two))]


def test_the_command_says_how_full_and_how_many_tokens_to_a_byte(pool: Path) -> None:
    arguments = ["tokenize", str(pool / "pool0.parquet"), "-o", str(pool / "a"), "--source", "source", "--workers", "1"]
    result = CliRunner().invoke(cli, [*arguments, "--set", "sequence_length=64", "--set", "vocab_size=400"])
    assert result.exit_code == 0, result.output
    assert "of all places" in result.output
    assert "tokens/byte" in result.output


def test_a_runs_shards_are_what_is_trained_on_and_two_are_told_apart(pool: Path) -> None:
    run = curate.run({"corpus": {"paths": [str(pool / "pool*.parquet")], "id": "id"}, "stages": []}, run=pool / "run", workers=1)
    with pytest.raises(ConfigError, match=r"curate tokenize .* makes some"):
        of_mixture(run.folder)
    made = tokenize(run.folder, None, SPEC, workers=1)
    found = of_mixture(run.folder)
    assert isinstance(found, Shards)
    assert found.folder == made.folder
    tokenize(run.folder, None, TokenizeSpec(sequence_length=32, vocab_size=400), workers=1)
    with pytest.raises(ConfigError, match="tokenized 2 times; name one"):
        of_mixture(run.folder)


def mixed(pool: Path, **mix: object) -> Path:
    """A run over the pool, with a mixture in documents."""
    stages = [{"mix": {"by": "rank", "order": "asc", **mix}}]
    table = pq.read_table(pool / "pool0.parquet")
    pq.write_table(table.append_column("rank", pa.array(range(100))), pool / "ranked.parquet")
    return curate.run({"corpus": {"paths": [str(pool / "ranked.parquet")], "id": "id", "source": "source"}, "stages": stages}, run=pool / "run", workers=1).folder


def test_a_schedule_is_packed_and_trained_on_in_its_order(pool: Path) -> None:
    stage = {"weights": {"s0": 1}, "budget": 20}
    folder = mixed(pool, schedule=[stage, {"weights": {"s1": 1}, "budget": 10}, stage], max_epochs=2)  # s0 has 34: 20, then 14 and 6 again
    made = tokenize(folder, None, SPEC, workers=1)
    shards = Shards(made.folder)
    rows = [name for file in sorted((folder / "mixture" / "data").iterdir()) for name in pq.read_table(file)["id"].to_pylist()]
    assert made.manifest.counts["documents"] == len(rows) == 50
    assert shards.in_order
    stages = [{1 if row < 20 else 2 if row < 30 else 3 for row in documents} for documents in _rows_of(shards)]
    assert all(len(stage) == 1 for stage in stages)
    assert [max(stage) for stage in stages] == sorted(max(stage) for stage in stages)
    assert {1, 2, 3} == set.union(*stages)
    assert {name for i in range(len(shards)) for name in shards.documents(i)} == set(rows)
    assert Counter(rows)["d0"] == 2
    assert of_mixture(folder).in_order


def test_a_tokenizer_of_an_ordered_mixture_has_seen_its_end(pool: Path) -> None:
    rows = [{"id": f"{i}", "text": ("first " if i < 50 else "secondly ") * 8, "source": "s", "level": i} for i in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), pool / "levels.parquet")
    spec = TokenizeSpec(sequence_length=64, vocab_size=300, train_bytes=1200)
    seen = []
    for n, arrange in enumerate(({"by": "level"}, "shuffled")):
        mix = {"mix": {"weights": "proportional", "budget": 100, "arrange": arrange}}
        made = {"corpus": {"paths": [str(pool / "levels.parquet")], "id": "id", "source": "source"}, "stages": [mix], "emit": {"shard_bytes": 700}}
        run = curate.run(made, run=pool / f"run{n}", workers=1)
        shards = Shards(tokenize(run.folder, None, spec, workers=1).folder)
        words = Tokenizer.from_file(str(shards.folder / "tokenizer" / "tokenizer.json")).get_vocab()
        seen.append((any("irst" in word for word in words), any("econd" in word for word in words)))
    assert seen == [(True, True)] * 2


def _rows_of(shards: Shards) -> list[set[int]]:
    """The numbers, in the mixture, of the documents of each sequence."""
    table = shards.segments().to_pylist()
    return [{row["document"] for row in table if row["sequence"] == i} for i in range(len(shards))]


def test_a_sorted_mixture_is_packed_window_by_window(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.pipelines import tokenize as module

    monkeypatch.setattr(module, "WINDOW", 2)
    folder = mixed(pool, weights="proportional", budget=100, arrange={"by": "rank"})
    made = tokenize(folder, None, SPEC, workers=1)
    sequences = _rows_of(Shards(made.folder))
    windows = [min(rows) for rows in sequences]
    assert len(sequences) > 8
    # a window's documents fill two sequences, and need at most four with what does not fit: no document is carried further
    assert all(max(rows) < windows[min(at + 5, len(windows) - 1)] or at + 5 >= len(windows) for at, rows in enumerate(sequences))
    assert Shards(made.folder).in_order
    shuffled = tokenize(mixed(pool, weights="proportional", budget=100), None, SPEC, workers=1)
    assert not Shards(shuffled.folder).in_order
