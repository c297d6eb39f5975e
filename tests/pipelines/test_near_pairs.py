"""Near-duplicates through whole runs of the stage `minhash`: its clusters against brute force."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from run_folders import SMALL, counts, docs, recipe_for, run, small_rows, write_rows

import curate
from curate import cli, minhash
from curate.errors import ConfigError
from curate.pipelines import near_pairs
from curate.pipelines.minhash import MinhashParams

Row = dict[str, Any]
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "pe", "ra", "so", "ti") for b in ("bar", "den", "fin", "gol", "hum", "jet", "kip", "lan", "mor", "nix")]


def make(texts: list[str], folder: Path, *, ids: bool = True, workers: int = 1, files: int = 1, **settings: Any) -> list[Row]:
    """What the stage says of each text, in their order."""
    rows = [{"id": f"i{k:05d}", "text": text, "source": "s", "score": float(k)} for k, text in enumerate(texts)]
    size = -(-len(rows) // files)
    for part in range(files):
        write_rows(folder / f"pool/{part}.parquet", rows[part * size : (part + 1) * size], row_group=100)
    run(recipe_for(folder, stages=[{"minhash": settings}], ids=ids, target=False), folder / "run", workers=workers)
    return said_in(folder / "run")


def said_in(folder: Path) -> list[Row]:
    """The wide table's rows, in input order, without the files' names."""
    rows: list[Row] = docs(folder).drop_columns(["file"]).to_pylist()
    return rows


def brute(texts: list[str], ngram: int = 5) -> dict[tuple[int, int], float]:
    """The Jaccard index of all pairs that share a word shingle."""
    sets, holders = [], defaultdict(list)
    for i, text in enumerate(texts):
        words = text.lower().split()
        found = {" ".join(words[k : k + ngram]) for k in range(len(words) - ngram + 1)} or ({" ".join(words)} if words else set())
        sets.append(found)
        for shingle in found:
            holders[shingle].append(i)
    pairs = {(a, b) for held in holders.values() for n, a in enumerate(held) for b in held[n + 1 :]}
    return {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs}


def near_pool(seed: int, originals: int = 60) -> list[str]:
    """Texts of 40 to 400 words; of each up to four more, with a share of words changed at places drawn at random."""
    draw = random.Random(seed)
    texts = []
    for _ in range(originals):
        words = [draw.choice(WORDS) + str(draw.randrange(30)) for _ in range(draw.randrange(40, 400))]
        texts.append(" ".join(words))
        for _ in range(draw.randrange(5)):
            rate = draw.choice([0.0, 0.002, 0.01, 0.02, 0.05])
            texts.append(" ".join(draw.choice(WORDS) if draw.random() < rate else w for w in words))
    draw.shuffle(texts)
    return texts


def check_against_brute(texts: list[str], said: list[Row], threshold: float = 0.7) -> tuple[int, int]:
    """Every cluster is joined by pairs at the threshold, each index said is true; returns pairs found, and all, 0.1 above."""
    truth = brute(texts)
    cluster = [row["minhash_cluster"] for row in said]
    by_id = {row["id"]: i for i, row in enumerate(said)}
    members = defaultdict(list)
    for i, name in enumerate(cluster):
        if name is not None:
            members[name].append(i)
    edges = defaultdict(set)
    for (a, b), index in truth.items():
        if index >= threshold:
            edges[a].add(b)
            edges[b].add(a)
    for name, found in members.items():
        assert len(found) > 1
        assert by_id[name] in found
        reached, waiting = {found[0]}, [found[0]]
        while waiting:
            for other in edges[waiting.pop()] & set(found) - reached:
                reached.add(other)
                waiting.append(other)
        assert reached == set(found)
    for i, row in enumerate(said):
        assert row["minhash_cluster_size"] == (len(members[cluster[i]]) if cluster[i] else 1)
        of = row["minhash_duplicate_of"]
        assert (of is None) == row["minhash_keep"] == (row["minhash_reason"] is None) == (row["minhash_jaccard"] is None)
        if of is not None:
            assert of == cluster[i] != row["id"]
            pair = tuple(sorted((i, by_id[of])))
            assert row["minhash_jaccard"] == truth[pair]  # type: ignore[index]
    high = [pair for pair, index in truth.items() if index >= threshold + 0.1]
    return sum(cluster[a] is not None and cluster[a] == cluster[b] for a, b in high), len(high)


# ------------------------------------------------------------------ against brute force


@pytest.mark.parametrize("scheme", ["native", "affine32", "legacy"])
def test_what_is_near_is_found_and_what_is_joined_is_near(tmp_path: Path, scheme: str) -> None:
    texts = near_pool(3)
    found, there = check_against_brute(texts, make(texts, tmp_path, scheme=scheme))
    assert there > 100
    assert found >= 0.99 * there


def test_the_committed_sample_holds_the_same(tmp_path: Path) -> None:
    rows = small_rows()
    write_rows(tmp_path / "pool/all.parquet", rows)
    run(recipe_for(tmp_path, stages=[{"minhash": {"unit": "word"}}], target=False), tmp_path / "run")
    found, there = check_against_brute([row["text"] for row in rows], docs(tmp_path / "run").to_pylist())
    assert found == there > 5


def test_large_buckets_and_sets_that_do_not_fit_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = near_pool(4, 40)
    plain = make(texts, tmp_path / "plain")
    monkeypatch.setattr(near_pairs, "HELD_BYTES", 4000)
    monkeypatch.setattr(near_pairs, "PAIRS", 7)
    assert make(texts, tmp_path / "small") == plain
    monkeypatch.setattr(near_pairs, "BUCKET", 2)
    monkeypatch.setattr(near_pairs, "ANCHORS", 2)
    found, there = check_against_brute(texts, make(texts, tmp_path / "anchors"))
    assert found >= 0.95 * there


def form(number: int) -> str:
    """A form of 51 words, a number in the middle: of 47 shingles any two share the 42 without it."""
    return " ".join([*(f"form{i}" for i in range(25)), str(number), *(f"form{i}" for i in range(25, 50))])


def test_a_form_with_a_number_in_it_is_one_cluster_and_few_of_its_pairs_are_compared(tmp_path: Path) -> None:
    said = make([form(i) for i in range(1500)], tmp_path, threshold=0.7)
    assert {row["minhash_cluster_size"] for row in said} == {1500}
    assert [row["id"] for row in said if row["minhash_keep"]] == ["i00000"]
    assert {row["minhash_jaccard"] for row in said[1:]} == {42 / 52}
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    (note,) = [e["text"] for e in events if e["event"] == "note" and "pairs compared" in e["text"]]
    assert int(note.split()[1].replace(",", "")) < 10_000


def test_copies_are_one_whatever_their_case_and_white_space(tmp_path: Path) -> None:
    said = make(["A b c d e f", "a  b c D e f", "a b c d e f"] * 40 + ["a b c d e g"], tmp_path)
    assert [row["minhash_jaccard"] for row in said] == [None, *[1.0] * 119, None]
    assert said[-1]["minhash_cluster"] is None
    assert said[-1]["minhash_cluster_size"] == 1


def test_clusters_are_chains_and_the_index_is_with_the_one_that_is_kept(tmp_path: Path) -> None:
    """Ten shingles of one word each: neighbours share 9 of 11, the ends 7 of 13."""
    line = [chr(97 + i) for i in range(13)]
    texts = [" ".join(line[k : k + 10]) for k in range(4)]
    said = make(texts, tmp_path, ngram=1, threshold=0.8, num_perm=512, bands=256, rows=2)
    assert [row["minhash_cluster"] for row in said] == ["i00000"] * 4
    assert [row["minhash_jaccard"] for row in said] == [None, 9 / 11, 8 / 12, 7 / 13]


def test_short_empty_and_unspaced_documents(tmp_path: Path) -> None:
    chinese = "人工智能是计算机科学的一个分支，它试图了解智能的实质，并生产出一种新的能以人类智能相似的方式做出反应的智能机器"
    said = make(["", " \n", "two words", "Two  words", "two", chinese, chinese.replace("分支", "部门"), chinese[::-1]], tmp_path, threshold=0.6)
    assert [row["minhash_keep"] for row in said] == [True, True, True, False, True, True, False, True]
    assert [row["minhash_cluster"] for row in said] == [None, None, "i00002", "i00002", None, "i00005", "i00005", None]
    assert all(row["minhash_reason"] == "near-duplicate of another document" for row in said if not row["minhash_keep"])


def chinese(seed: int, count: int = 400) -> list[str]:
    draw = random.Random(seed)
    return [chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(count)]


def test_a_pair_is_near_by_words_or_where_there_are_none_by_characters(tmp_path: Path) -> None:
    """A line of Chinese is one word, so each edit breaks a line; half-Chinese texts go by their words."""
    line = chinese(1)
    lines = ["".join(line[i : i + 40]) for i in range(0, 400, 40)]
    edited = [f"{text[:20]}改{text[21:]}" if i % 2 else text for i, text in enumerate(lines)]
    mixed = [f"{text[:6]} some words here {i} and {i * 7} there" for i, text in enumerate(lines)]
    mixed_edited = [text.replace("some", "other") if i % 2 else text for i, text in enumerate(mixed)]
    texts = ["\n".join(lines), "\n".join(edited), "".join(lines), " ".join(mixed), " ".join(mixed_edited), "".join(chinese(2))]
    said = make(texts, tmp_path / "auto")
    assert [row["minhash_cluster"] for row in said] == ["i00000", "i00000", "i00000", None, None, None]
    runs = [{tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in ("".join(lines), "".join(edited))]
    assert said[1]["minhash_jaccard"] == len(runs[0] & runs[1]) / len(runs[0] | runs[1]) >= 0.8
    assert said[2]["minhash_jaccard"] == 1.0
    assert [row["minhash_cluster"] for row in make(texts, tmp_path / "word", unit="word")] == [None] * 6
    assert [row["minhash_cluster"] for row in make(texts[:2], tmp_path / "char", unit="char")] == ["i00000"] * 2


@pytest.mark.parametrize("share", [0.8, 0.81, 0.82, 0.83, 0.84])
def test_texts_on_either_side_of_where_characters_count_still_meet_by_their_words(tmp_path: Path, share: float) -> None:
    draw = random.Random(7)
    words = [f"w{draw.randrange(10**4):04d}" if i % 2 else "".join(chinese(i, round(10 * share / (1 - share)))[:23]) for i in range(120)]
    heavy = [*words[:119], "".join(chinese(9, 300))]
    said = make([" ".join(words), " ".join(heavy)], tmp_path)
    assert [row["minhash_cluster"] for row in said] == ["i00000"] * 2
    assert said[1]["minhash_jaccard"] >= brute([" ".join(words), " ".join(heavy)])[0, 1] > 0.9


def test_words_of_one_text_are_not_the_characters_of_another(tmp_path: Path) -> None:
    line = chinese(4, 200)
    said = make(["".join(line), " ".join(line), "".join(line) + "。"], tmp_path, unit="auto")
    assert [row["minhash_cluster"] for row in said] == ["i00000"] * 3  # all three are unspaced: by characters
    word = ["latin" + str(i) for i in range(200)]
    assert [row["minhash_cluster"] for row in make([" ".join(word), "".join(word)], tmp_path / "latin")] == [None, None]


# ------------------------------------------------------------------ which one stays


def kept(folder: Path, texts: list[str], **settings: Any) -> list[str]:
    return [row["id"] for row in make(texts, folder, **settings) if row["minhash_keep"]]


def test_which_document_of_a_cluster_stays(tmp_path: Path) -> None:
    texts = [form(1), form(222222), form(3), "something else altogether"]
    assert kept(tmp_path / "least", texts) == ["i00000", "i00003"]
    assert kept(tmp_path / "longest", texts, keep="longest") == ["i00001", "i00003"]
    assert kept(tmp_path / "best", texts, keep="best", by="score") == ["i00002", "i00003"]
    assert kept(tmp_path / "first", texts, keep="first") == ["i00000", "i00003"]
    assert kept(tmp_path / "priority", texts, priority="score") == ["i00000", "i00003"]


# ------------------------------------------------------------------ settings


def test_without_verification_what_met_is_joined_and_counted(tmp_path: Path) -> None:
    said = make([form(1), form(2), "a b c d e f g", "a b c d e f g"], tmp_path, verify=False)
    assert [row["minhash_cluster"] for row in said] == ["i00000", "i00000", "i00002", "i00002"]
    assert [row["minhash_jaccard"] for row in said] == [None, None, None, 1.0]
    events = (tmp_path / "run/events.jsonl").read_text()
    assert "1 pairs joined unverified, because verify is off" in events


def test_a_moved_threshold_reads_only_what_it_must_verify(tmp_path: Path) -> None:
    texts = near_pool(5, 20)
    make(texts, tmp_path, threshold=0.7)
    recipe = recipe_for(tmp_path, stages=[{"minhash": {"threshold": 0.9, "keep": "longest"}}], target=False)
    assert run(recipe, tmp_path / "run").outcome.computed_parts == 0
    fresh = make(texts, tmp_path / "fresh", threshold=0.9, keep="longest")
    assert said_in(tmp_path / "run") == fresh


def test_two_settings_stand_side_by_side_under_two_labels(tmp_path: Path) -> None:
    write_rows(tmp_path / "pool/a.parquet", [{"id": str(i), "text": form(i // 2), "source": "s"} for i in range(4)])
    stages = [{"minhash": {"as": "wide", "threshold": 0.9}}, {"minhash": {"as": "narrow", "threshold": 0.5}}]
    run(recipe_for(tmp_path, stages=stages, target=False), tmp_path / "run")
    table = docs(tmp_path / "run")
    assert table["wide_duplicate_of"].to_pylist() == [None, "0", None, "2"]
    assert table["narrow_duplicate_of"].to_pylist() == [None, None, "0", None]
    assert not [name for name in table.schema.names if name.endswith(("signature", "sum", "shingles"))]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"threshold": 0.0}, "threshold above 0"), ({"threshold": 1.0}, "dedup_exact"), ({"bands": 4}, "bands and rows go together"),
        ({"bands": 4, "rows": 4, "bands_rule": "datasketch"}, "would choose nothing"),
        ({"bands": 64, "rows": 3}, r"bands \* rows"), ({"bands": 0, "rows": 3}, r"bands \* rows"), ({"ngram": 0}, "ngram from 1"),
        ({"threshold": 0.1, "num_perm": 8}, "raise num_perm"), ({"keep": "best"}, "by: COLUMN"),
        ({"keep": "first", "priority": "score"}, "priority would not be looked at"), ({"scheme": "legacy", "seed": -1}, "seed from 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_named(wrong: Row, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MinhashParams(**wrong)


# ------------------------------------------------------------------ invariance


def without_place(rows: list[Row]) -> list[str]:
    return sorted(repr({k: v for k, v in row.items() if k not in ("doc", "file", "row")}) for row in rows)


@pytest.mark.parametrize("ids", [True, False])
def test_neither_order_nor_cut_nor_workers_nor_ids_change_anything(tmp_path: Path, ids: bool) -> None:
    texts = near_pool(6, 40) + [form(i) for i in range(80)] + ["copied to the byte " * 4] * 5
    rows = [{"id": f"i{k}", "text": text, "source": "s", "score": 0.0} for k, text in enumerate(texts)]
    found = []
    for n, (workers, files) in enumerate([(1, 1), (2, 3), (1, 5)]):
        folder = tmp_path / str(n)
        mixed = list(rows)
        random.Random(n).shuffle(mixed)
        for part in range(files):
            write_rows(folder / f"pool/{(7 * part) % 5}.parquet", mixed[part::files], row_group=60)
        run(recipe_for(folder, stages=[{"minhash": {"keep": "longest"}}], ids=ids, target=False), folder / "run", workers=workers)
        found.append(without_place(docs(folder / "run").to_pylist()))
    assert found[0] == found[1] == found[2]


def test_what_an_earlier_stage_dropped_takes_no_part(tmp_path: Path) -> None:
    texts = ["short one", "short one", form(1), form(2)]
    write_rows(tmp_path / "pool/a.parquet", [{"id": str(i), "text": t, "source": "s"} for i, t in enumerate(texts)])
    run(recipe_for(tmp_path, stages=[{"length": {"min_bytes": 50}}, {"minhash": {}}], target=False), tmp_path / "run")
    assert docs(tmp_path / "run")["minhash_duplicate_of"].to_pylist() == [None, None, None, "2"]
    assert counts(tmp_path / "run")["minhash", "near-duplicate of another document"] == 1


# ------------------------------------------------------------------ the command


def test_the_command_writes_a_row_for_every_document_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    words = ["dedup", "minhash", str(SMALL / "pool"), "--id", "id", "--set", "threshold=0.8", "--workers", "1", "-q", "-o", str(out)]
    done = CliRunner().invoke(cli.cli, words)
    assert done.exit_code == 0, done.output
    table = pq.read_table(out)
    assert table.schema.names == [
        "id", "file", "row", "curate_identity", "curate_bytes", "curate_words", "minhash_keep", "minhash_reason", "minhash_cluster",
        "minhash_cluster_size", "minhash_duplicate_of", "minhash_jaccard",
    ]  # fmt: skip
    assert table["id"].to_pylist() == [row["id"] for row in small_rows()]


def test_exact_copies_have_a_command_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.parquet", [{"text": text} for text in ("b", "a", "b")])
    schema = curate.dedup("exact", tmp_path / "p.parquet", out=tmp_path / "o.parquet", settings={"keep": "first"}, workers=1)
    assert pq.read_table(tmp_path / "o.parquet")["dedup_exact_keep"].to_pylist() == [True, True, False]
    assert schema.names[-4:] == ["dedup_exact_keep", "dedup_exact_reason", "dedup_exact_of", "dedup_exact_copies"]
    with pytest.raises(ConfigError, match="expected minhash or exact"):
        curate.dedup("simhash", tmp_path / "p.parquet", out=tmp_path / "o.parquet")


def test_a_signature_is_stored_as_the_bytes_of_its_numbers(tmp_path: Path) -> None:
    make([form(1)], tmp_path, num_perm=32)
    (file,) = [f for f in (tmp_path / "run/store").rglob("*.parquet") if "signature" in pq.read_schema(f).names]
    (stored,) = pq.read_table(file)["signature"].to_pylist()
    assert stored == minhash.signatures(pa.array([form(1)]), minhash.MinhashSpec(num_perm=32)).values.astype("<u4").tobytes()
