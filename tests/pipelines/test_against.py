"""What was published before is dropped and named: whole runs against earlier runs, publications and files."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from run_folders import docs, recipe_for, run, write_rows

import curate
from curate import cli
from curate.errors import ConfigError, DataError
from curate.pipelines import near_pairs

Row = dict[str, Any]
WORDS = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "nu", "pe") for b in ("bar", "den", "fin", "gol", "hum") for c in ("a", "e", "i", "o")]


def words(seed: int, count: int = 120) -> list[str]:
    draw = random.Random(seed)
    return [draw.choice(WORDS) + str(draw.randrange(50)) for _ in range(count)]


def edited(text: list[str], changes: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    out = list(text)
    for at in draw.sample(range(len(out)), changes):
        out[at] = f"new{draw.randrange(10**6)}"
    return out


def index_of(a: str, b: str, ngram: int = 5) -> float:
    """The Jaccard index of word shingles."""
    left, right = ({tuple(t.lower().split()[i : i + ngram]) for i in range(len(t.split()) - ngram + 1)} or {tuple(t.split())} for t in (a, b))
    return len(left & right) / len(left | right)


def publish(folder: Path, texts: dict[str, str], *, stages: Sequence[Row] = (), name: str = "run", store: Path | None = None, files: int = 1, workers: int = 1) -> Path:
    """A run over texts by id; its folder."""
    rows = [{"id": id, "text": text, "source": "s"} for id, text in texts.items()]
    size = -(-len(rows) // files)
    shutil.rmtree(folder / f"pool-{name}", ignore_errors=True)
    for i in range(files):
        write_rows(folder / f"pool-{name}" / f"{i}.parquet", rows[i * size : (i + 1) * size], row_group=7)
    curate.run(recipe_for(folder, paths=[f"pool-{name}/*"], stages=list(stages), target=False), run=folder / name, store=store, workers=workers)
    return folder / name


def said(folder: Path) -> dict[str, Row]:
    return {row["id"]: row for row in docs(folder).to_pylist()}


def published(folder: Path) -> list[str]:
    return sorted(id for file in (folder / "mixture" / "data").glob("*.parquet") for id in pq.read_table(file)["id"].to_pylist())


# ------------------------------------------------------------------ equal


@pytest.mark.parametrize("settings", [{}, {"normalize": ["case", "space"]}])
def test_a_text_that_was_published_before_is_dropped_and_named(tmp_path: Path, settings: Row) -> None:
    old = publish(tmp_path, {"o1": "Same  text", "o2": "another", "o3": "another"}, stages=[{"dedup_exact": {}}], name="old")
    assert published(old) == ["o1", "o2"]
    new = publish(
        tmp_path, {"n1": "same text", "n2": "Same  text", "n3": "fresh", "n4": "another", "n5": "another", "n6": "fresh"},
        stages=[{"dedup_exact": {"against": [str(old)], **settings}}], name="new",
    )  # fmt: skip
    found = said(new)
    near = bool(settings)
    assert published(new) == (["n3"] if near else ["n1", "n3"])
    assert [found[id]["dedup_exact_against"] for id in sorted(found)] == ["o1" if near else None, "o1", None, "o2", "o2", None]
    assert found["n4"]["dedup_exact_against_run"] == str(old)
    assert found["n4"]["dedup_exact_reason"] == "copy of a document that was published before"
    assert (found["n4"]["dedup_exact_of"], found["n4"]["dedup_exact_copies"]) == (None, 2)
    assert (found["n6"]["dedup_exact_of"], found["n6"]["dedup_exact_against"]) == ("n3", None)


# ------------------------------------------------------------------ near


def nights(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Forty published texts; a pool with near ones at all distances, equal ones, and strangers."""
    before = {f"o{i:02}": " ".join(words(i)) for i in range(40)}
    after = {f"n{i:02}": " ".join(edited(words(i), i % 13, seed=i)) for i in range(40)}
    after |= {f"s{i:02}": " ".join(words(1000 + i)) for i in range(20)}
    return before, after


@pytest.mark.parametrize("settings", [{}, {"unit": "word", "num_perm": 256, "threshold": 0.5}, {"scheme": "legacy"}])
def test_what_is_near_to_a_published_document_is_dropped_with_its_true_index(tmp_path: Path, settings: Row) -> None:
    before, after = nights(tmp_path)
    old = publish(tmp_path, before, name="old", files=3)
    new = publish(tmp_path, after, stages=[{"minhash": {"against": [str(old)], **settings}}], name="new", files=2)
    threshold = settings.get("threshold", 0.7)
    truth = {id: max((index_of(text, other), o) for o, other in before.items()) for id, text in after.items()}
    missed = 0
    for id, row in said(new).items():
        index, nearest = truth[id]
        assert (row["minhash_against"] is None) == (row["minhash_against_run"] is None) == row["minhash_keep"]
        if row["minhash_against"] is not None:
            assert (row["minhash_against"], row["minhash_jaccard"]) == (nearest, index)
            assert index >= threshold
            assert row["minhash_reason"] == "near-duplicate of a document that was published before"
            assert (row["minhash_cluster"], row["minhash_cluster_size"], row["minhash_duplicate_of"]) == (None, 1, None)
        else:
            missed += index >= threshold + 0.1
    assert missed == 0
    assert sum(index >= threshold for index, _ in truth.values()) > 10
    assert any(0.3 < index < threshold for index, _ in truth.values())


def test_what_has_no_words_is_held_against_by_its_characters(tmp_path: Path) -> None:
    draw = random.Random(5)
    text = "".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(300))
    other = "".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(300))
    old = publish(tmp_path, {"o1": text, "o2": " ".join(words(3))}, name="old")
    new = publish(
        tmp_path, {"n1": text[:150] + "改" + text[151:], "n2": text[:150] + "\n" + text[150:], "n3": other, "n4": " ".join(edited(words(3), 2))},
        stages=[{"minhash": {"against": [str(old)]}}], name="new",
    )  # fmt: skip
    found = said(new)
    assert [found[id]["minhash_against"] for id in sorted(found)] == ["o1", "o1", None, "o2"]
    assert [found[id]["minhash_jaccard"] for id in ("n1", "n2")] == [291 / 301, 1.0]


def test_what_is_near_only_to_a_dropped_one_stays_and_the_rest_is_deduplicated_among_itself(tmp_path: Path) -> None:
    base = words(1)
    near, nearer = edited(base, 4, seed=1), edited(edited(base, 4, seed=1), 5, seed=2)
    texts = [" ".join(t) for t in (base, near, nearer)]
    assert index_of(texts[0], texts[1]) > 0.7 > index_of(texts[0], texts[2])
    assert index_of(texts[1], texts[2]) > 0.6
    old = publish(tmp_path, {"o": texts[0]}, name="old")
    new = publish(
        tmp_path, {"a": texts[1], "b": texts[2], "c": texts[2].upper(), "d": texts[2] + " end"},
        stages=[{"minhash": {"against": [str(old)], "threshold": 0.65}}], name="new",
    )  # fmt: skip
    found = said(new)
    assert [found[id]["minhash_against"] for id in "abcd"] == ["o", None, None, None]
    assert [found[id]["minhash_duplicate_of"] for id in "abcd"] == [None, None, "b", "b"]
    assert published(new) == ["b"]


def test_of_several_that_are_as_near_the_first_run_and_identity_is_named(tmp_path: Path) -> None:
    text = " ".join(words(5))
    one, two = publish(tmp_path, {"x": text}, name="one"), publish(tmp_path, {"y": text}, name="two")
    for order in ([one, two], [two, one]):
        new = publish(tmp_path, {"n": text}, stages=[{"minhash": {"against": [str(o) for o in order]}}], name="new")
        row = said(new)["n"]
        assert (row["minhash_against"], row["minhash_against_run"]) == ("x" if order[0] is one else "y", str(order[0]))


def test_of_several_published_documents_the_nearest_is_named(tmp_path: Path) -> None:
    """Half of twenty are nearer: by chance of an identity the first of all is not always among them, nor the nearest."""
    base = words(9)
    text = " ".join(base)
    before = {f"{'far' if changes else 'close'}{i}": " ".join(edited(base, changes + 1, seed=i)) for i in range(10) for changes in (0, 3)}
    old = publish(tmp_path, before, name="old")
    new = publish(tmp_path, {"n": text}, stages=[{"minhash": {"against": [str(old)]}}], name="new")
    best = max(index_of(text, other) for other in before.values())
    row = said(new)["n"]
    assert row["minhash_jaccard"] == best
    assert row["minhash_against"].startswith("close")
    assert index_of(text, before[row["minhash_against"]]) == best


def test_unverified_matches_have_no_index_and_are_counted(tmp_path: Path) -> None:
    before, after = nights(tmp_path)
    old = publish(tmp_path, before, name="old")
    new = publish(tmp_path, after, stages=[{"minhash": {"against": [str(old)], "verify": False}}], name="new")
    found = [row for row in said(new).values() if row["minhash_against"] is not None]
    assert len(found) > 10
    assert {row["minhash_jaccard"] for row in found} == {None, 1.0}
    notes = [json.loads(line).get("text", "") for line in (new / "events.jsonl").read_text().splitlines()]
    assert any("published before" in note and "unverified" in note for note in notes)


def test_many_published_forms_of_one_page_are_met_by_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_pairs, "HELD_BYTES", 2000)  # the sets go through a scratch file
    page = words(3, 300)
    before = {f"o{i:03}": " ".join([*page, f"number{i}"]) for i in range(100)}
    old = publish(tmp_path, before, name="old")
    new = publish(tmp_path, {f"n{i}": " ".join([*page, f"new{i}"]) for i in range(9)}, stages=[{"minhash": {"against": [str(old)]}}], name="new")
    assert published(new) == []
    for row in said(new).values():
        assert row["minhash_jaccard"] == index_of(" ".join([*page, "x"]), " ".join([*page, "y"]))


# ------------------------------------------------------------------ the same bytes, and no text read twice


def phases(folder: Path) -> list[str]:
    """Phases of the last run of a folder."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    last = max(i for i, event in enumerate(events) if event["event"] == "started")
    return [event["phase"] for event in events[last:] if event["event"] == "phase"]


def test_neither_workers_nor_files_nor_their_order_show(tmp_path: Path) -> None:
    before, after = nights(tmp_path)
    stages = [{"dedup_exact": {"against": ["../old"]}}, {"minhash": {"against": ["../old"]}}]
    tables = []
    for i, (files, workers) in enumerate([(1, 1), (4, 2)]):
        place = tmp_path / str(i)
        turned = dict(reversed(before.items())) if i else before
        old = publish(place, turned, name="old", files=files)
        used = [{name: {"against": [str(old)]}} for stage in stages for name in stage]
        new = publish(place, dict(reversed(after.items())) if i else after, stages=used, name="new", files=files, workers=workers)
        tables.append({id: {k: v for k, v in row.items() if not k.endswith("_run") and k not in ("doc", "file", "row")} for id, row in said(new).items()})
    assert tables[0] == tables[1]


def test_a_shared_store_reads_a_publication_once_and_a_new_one_anew(tmp_path: Path) -> None:
    before, after = nights(tmp_path)
    store = tmp_path / "store"
    old = publish(tmp_path, before, name="old", store=store)
    stage = [{"minhash": {"against": [str(old)]}}]
    reading = "read what minhash is held against"
    first = publish(tmp_path, after, stages=stage, name="first", store=store)
    assert reading in phases(first)
    second = publish(tmp_path, {f"x{id}": text for id, text in after.items()}, stages=stage, name="second", store=store)
    assert reading not in phases(second)
    assert {f"x{id}" for id in published(first)} == set(published(second))
    again = publish(tmp_path, after, stages=stage, name="first", store=store)
    assert not [p for p in phases(again) if p.startswith(("read", "finish", "emit"))]
    publish(tmp_path, {**before, "late": after["s00"]}, name="old", store=store)  # another publication of the same run
    changed = publish(tmp_path, after, stages=stage, name="first", store=store)
    assert reading in phases(changed)
    assert said(changed)["s00"]["minhash_against"] == "late"
    assert "xs00" in published(second)


def test_what_was_read_of_a_publication_is_in_the_ledger(tmp_path: Path) -> None:
    from curate import ledger

    old = publish(tmp_path, {"a": "one two three"}, name="old")
    new = publish(tmp_path, {"b": "one two"}, stages=[{"minhash": {"against": [str(old)]}}], name="new")
    found = ledger.read(new)
    assert found is not None
    (entry,) = [e for e in found.entries if e.kind == "reference"]
    assert found.path(entry).stat().st_size == entry.bytes
    assert entry.rows == 1


def test_a_publication_tells_no_path_of_what_it_was_held_against(tmp_path: Path) -> None:
    old = publish(tmp_path, {"a": "one two three"}, name="old")
    new = publish(tmp_path, {"b": "four five six"}, stages=[{"dedup_exact": {"against": [str(old)]}}], name="new")
    for file in sorted((new / "mixture").resolve().rglob("*")):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes()


# ------------------------------------------------------------------ what `against` may name


def test_files_and_folders_are_read_as_the_pool_is(tmp_path: Path) -> None:
    write_rows(tmp_path / "seen/a.jsonl", [{"text": "alpha", "note": 1}])
    write_rows(tmp_path / "seen/b.parquet", [{"id": "b7", "text": "beta"}])
    pool = {"n1": "alpha", "n2": "beta", "n3": "gamma"}
    by_folder = said(publish(tmp_path, pool, stages=[{"dedup_exact": {"against": [str(tmp_path / "seen/b.parquet"), str(tmp_path / "seen/a.jsonl")]}}]))
    assert by_folder["n2"]["dedup_exact_against"] == "b7"
    assert len(by_folder["n1"]["dedup_exact_against"]) == 32  # no id there: the hash of the text
    assert by_folder["n3"]["dedup_exact_keep"]
    by_pattern = said(publish(tmp_path, pool, stages=[{"dedup_exact": {"against": [str(tmp_path / "seen/*")]}}], name="other"))
    assert by_pattern["n2"]["dedup_exact_against_run"] == str(tmp_path / "seen/b.parquet")


def test_a_publication_is_named_by_its_folder_and_stays_what_it_was(tmp_path: Path) -> None:
    old = publish(tmp_path, {"a": "one"}, name="old")
    then = (old / "mixture").resolve()
    publish(tmp_path, {"a": "one", "b": "two"}, name="old")
    new = publish(tmp_path, {"x": "one", "y": "two"}, stages=[{"dedup_exact": {"against": [str(then)]}}], name="new")
    assert published(new) == ["y"]


def test_a_template_of_the_earlier_run_is_read_as_it_was(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.parquet", [{"id": "p", "prompt": "ask", "response": "say"}])
    recipe = {"name": "pairs", "corpus": {"paths": [str(tmp_path / "pairs.parquet")], "text": "{prompt}\n{response}", "id": "id"}, "stages": []}
    curate.run(recipe, run=tmp_path / "old", workers=1)
    new = publish(tmp_path, {"x": "ask\nsay", "y": "ask"}, stages=[{"dedup_exact": {"against": [str(tmp_path / "old")]}}], name="new")
    assert said(new)["x"]["dedup_exact_against"] == "p"
    assert published(new) == ["y"]


def test_every_night_a_folder_of_its_own_adds_what_no_night_had(tmp_path: Path) -> None:
    stage = [{"minhash": {"against": [str(tmp_path / "night-*")]}}]
    texts = [{f"d{i}": " ".join(words(i)) for i in range(start, start + 6)} for start in (0, 3, 6)]
    for number, pool in enumerate(texts):
        publish(tmp_path, pool, stages=stage, name=f"night-{number}", store=tmp_path / "store")
    assert [published(tmp_path / f"night-{i}") for i in range(3)] == [[f"d{i}" for i in range(6)], ["d6", "d7", "d8"], ["d10", "d11", "d9"]]
    kept = (tmp_path / "night-2/mixture").resolve()
    publish(tmp_path, texts[2], stages=stage, name="night-2", store=tmp_path / "store")
    assert (tmp_path / "night-2/mixture").resolve() == kept


def test_what_cannot_be_held_against_is_said(tmp_path: Path) -> None:
    old = publish(tmp_path, {"a": "one"}, name="old")

    def against(word: str) -> None:
        publish(tmp_path, {"x": "one"}, stages=[{"dedup_exact": {"against": [word]}}], name="new")

    with pytest.raises(ConfigError, match="nothing at"):
        against("nowhere")
    with pytest.raises(ConfigError, match="this run's own folder"):
        against(str(tmp_path / "new"))
    (old / "mixture").unlink()
    with pytest.raises(ConfigError, match="has published nothing yet"):
        against(str(old))
    write_rows(tmp_path / "bare.parquet", [{"body": "one"}])
    with pytest.raises(ConfigError, match=r"against: .*bare.parquet"):
        against(str(tmp_path / "bare.parquet"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.json").write_text("{}")
    with pytest.raises(DataError, match="no manifest"):
        against(str(tmp_path / "broken"))


def test_the_command_takes_it_too(tmp_path: Path) -> None:
    old = publish(tmp_path, {"a": "one two three four five six"}, name="old")
    write_rows(tmp_path / "p.parquet", [{"id": "x", "text": "One two three four five six"}, {"id": "y", "text": "seven"}])
    for method, kept in (("minhash", [False, True]), ("exact", [True, True])):
        done = CliRunner().invoke(
            cli.cli, ["dedup", method, str(tmp_path / "p.parquet"), "--id", "id", "--set", f"against=[{old}]", "--workers", "1", "-q", "-o", str(tmp_path / "o.parquet")]
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        label = "minhash" if method == "minhash" else "dedup_exact"
        table = pq.read_table(tmp_path / "o.parquet")
        assert table[f"{label}_keep"].to_pylist() == kept
        assert table[f"{label}_against"].to_pylist() == [None if k else "a" for k in kept]


def test_an_unchanged_run_without_it_has_no_such_columns(tmp_path: Path) -> None:
    run(recipe_for(tmp_path, paths=[str(write_rows(tmp_path / "p.parquet", [{"id": "a", "text": "x", "source": "s"}]))], stages=[{"minhash": {}}, {"dedup_exact": {}}],
                   target=False), tmp_path / "run", workers=1)  # fmt: skip
    assert not [name for name in docs(tmp_path / "run").schema.names if "against" in name]
