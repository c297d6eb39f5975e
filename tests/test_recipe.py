"""Recipes from outside: every problem at once, each with its path, exit code 2, and nothing written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from run_folders import SMALL, call, counts, docs, published_rows, recipe_for, run, small_rows, write_rows

import curate
from curate import recipe as recipes
from curate.docs import DROP_REASON
from curate.errors import ConfigError

ISSUE = """
corpus: {paths: [pool/*.parquet], text: text, id: id, source: source}
targets:
  maths: {guide: [guide.jsonl], test: [test.jsonl]}
seed: 7
stages:
  - length: {min_bytes: 20}
  - dedup_exact: {}
  - dsir: {hash: sha256}
  - select: {by: dsir, how: resample, budget: 5%}
emit: {format: parquet}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the sample's pool and targets under the names that the shown recipe uses."""
    rows = small_rows()
    write_rows(tmp_path / "pool" / "0.parquet", rows[:300])
    write_rows(tmp_path / "pool" / "1.parquet", rows[300:])
    for name in ("guide.jsonl", "test.jsonl"):
        (tmp_path / name).write_bytes((SMALL / name).read_bytes())
    return tmp_path


def problems_of(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the one error that a recipe gives, through the whole command; nothing may be written."""
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        curate.run(folder / "recipe.yaml", run=folder / "run", workers=1, overrides=overrides)
    assert not (folder / "run").exists()
    first, *lines = str(caught.value).split("\n  - ")
    if lines:
        assert first == f"{folder / 'recipe.yaml'}: {len(lines)} problem{'' if len(lines) == 1 else 's'}"
    return lines or [first]


def problem_of(folder: Path, text: str, *overrides: str) -> str:
    found = problems_of(folder, text, *overrides)
    assert len(found) == 1, found
    return found[0]


def test_the_recipe_that_every_description_shows_works_as_it_stands(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(ISSUE)
    result = curate.run(folder / "recipe.yaml", run=folder / "run", workers=1)
    assert result.outcome.kept == 28  # 5 % of 572, rounded down
    assert (folder / "run" / "mixture" / "data" / "train-00000-of-00001.parquet").is_file()


def test_all_problems_are_told_together_each_with_its_path(folder: Path) -> None:
    found = problems_of(
        folder,
        """
corpus: {paths: [pool/*.parquet], txt: text, id: idd, source: source}
targets:
  maths: {guide: [guide.jsonl], tests: [test.jsonl], weight: 0}
  empty: {guide: []}
seed: seven
stage: []
stages:
  - lenght: {min_bytes: 20}
  - length: {min_bytes: twenty, max_words: 3}
  - dsir: {hash: md5, buckets: 1.5}
  - dsir: {}
  - select: {by: dsir, how: resample, budget: 2Mtokns}
emit: {format: csv}
""",
    )
    heads = [line.split(": ")[0] for line in found]
    assert heads[:1] == ["stage"]
    for head in (
        "corpus.txt", "targets.maths.tests", "targets.empty.guide", "seed", "stages[0].lenght", "stages[1].length.min_bytes",
        "stages[2].dsir.hash", "stages[2].dsir.buckets", "stages[3].dsir", "stages[4].select", "emit.format",
    ):  # fmt: skip
        assert head in heads, head
    text = "\n".join(found)
    assert "corpus.txt: unknown setting; did you mean 'text'?" in text
    assert "targets.maths.tests: unknown setting; did you mean 'test'?" in text
    assert "stages[0].lenght: unknown stage 'lenght'; did you mean 'length'?" in text
    assert "stage: unknown section; did you mean 'stages'?" in text
    assert "seed: expected a whole number, got 'seven'" in text
    assert "stages[1].length.min_bytes: expected a whole number, got 'twenty'" in text
    assert "stages[2].dsir.hash: expected one of mix64, sha256, got 'md5'" in text
    assert "tokens" in next(line for line in found if line.startswith("stages[4].select"))


def test_problems_that_only_the_pool_shows_are_told_with_the_others(folder: Path) -> None:
    found = problems_of(
        folder,
        """
corpus: {paths: [pool/*.parquet], id: idd}
targets: {maths: {guide: [nothing-here.jsonl], weight: -1}}
stages:
  - length: {min_byte: 3}
""",
    )
    text = "\n".join(found)
    assert "corpus: expected a column 'idd' for corpus.id" in text
    assert "did you mean 'id'" in text
    assert "stages[0].length.min_byte: unknown setting; did you mean 'min_bytes'?" in text
    assert "targets.maths: expected a weight above 0" in text


def test_a_missing_file_names_its_section(folder: Path) -> None:
    assert problem_of(folder, "corpus: {paths: [nowhere/*.parquet]}").startswith("corpus: ")
    found = problem_of(folder, "corpus: {paths: [pool]}\ntargets: {maths: {guide: [nothing.jsonl]}}")
    assert found.startswith("targets.maths.guide: ")
    assert "nothing.jsonl" in found


def test_a_guide_that_is_a_pool_file_is_refused(folder: Path) -> None:
    found = problem_of(folder, "corpus: {paths: [pool]}\ntargets: {maths: {guide: [pool/0.parquet]}}")
    assert found == "targets.maths.guide: pool/0.parquet is a file of the pool too; a target's files must lie outside it"


def test_a_guide_folder_that_holds_a_pool_file_is_refused_too(folder: Path) -> None:
    found = problems_of(folder, "corpus: {paths: [pool/0.parquet]}\ntargets: {maths: {guide: ['pool/*.parquet']}}")
    assert any("is a file of the pool too" in line for line in found)


def test_clashing_labels_and_columns_name_the_word_to_write(folder: Path) -> None:
    found = problem_of(folder, "corpus: {paths: [pool]}\nstages:\n  - length: {min_bytes: 2}\n  - length: {max_bytes: 9}")
    assert found == "stages[1].length: the label 'length' is taken by stages[0].length; give this one another: as: length_2"
    rows = [row | {"length_reason": "mine"} for row in small_rows()[:20]]
    write_rows(folder / "pool" / "0.parquet", rows)
    write_rows(folder / "pool" / "1.parquet", rows[:5])
    found = problem_of(folder, "corpus: {paths: [pool]}\nstages:\n  - length: {min_bytes: 2}")
    assert found == "stages[0].length: its column 'length_reason' clashes with one of the corpus; give the stage another label: as: length_2"


@pytest.mark.parametrize("label", ["kept", "read", "quarantine", "overlap", "row", "doc", "file", "part", "1st", "a b", "a.b", ""])
def test_labels_that_mean_something_else_are_refused(folder: Path, label: str) -> None:
    found = problems_of(folder, f"corpus: {{paths: [pool]}}\ntargets: {{m: {{guide: guide.jsonl}}}}\nstages:\n  - dsir: {{as: '{label}'}}")
    assert all(line.startswith("stages[0].dsir") for line in found)


def test_a_users_column_may_have_a_plain_name_like_reason(folder: Path) -> None:
    rows = [{"text": f"document {n}", "reason": "r", "keep": True, "place": 1, "value": 2.0} for n in range(9)]
    write_rows(folder / "pool2" / "0.jsonl", rows)
    recipe = recipe_for(folder, paths=["pool2/*"], ids=False, stages=[{"length": {"min_bytes": 2}}], corpus={"on_error": "quarantine", "source": None})
    assert run(recipe, folder / "run").outcome.kept == 9


def test_a_column_that_no_stage_adds_is_named_with_the_nearest(folder: Path) -> None:
    found = problem_of(folder, "corpus: {paths: [pool]}\nstages:\n  - select: {by: scor, budget: 5}")
    assert found.startswith("stages[0].select: ")
    assert "did you mean 'score'?" in found


def test_a_stage_before_the_one_whose_column_it_reads_is_told(folder: Path) -> None:
    text = "corpus: {paths: [pool]}\ntargets: {m: {guide: guide.jsonl}}\nstages:\n  - select: {by: dsir, budget: 5}\n  - dsir: {}"
    assert "'dsir'" in problem_of(folder, text)


def test_a_scorer_without_a_target_says_what_to_write(folder: Path) -> None:
    found = problem_of(folder, "corpus: {paths: [pool]}\nstages: [dsir]")
    assert found == "stages[0].dsir: dsir needs a target: --target FILE, or in a recipe targets: {maths: {guide: [guide.jsonl]}}"


def test_a_key_written_twice_is_refused_with_its_line(folder: Path) -> None:
    found = problem_of(folder, "corpus: {paths: [pool]}\nseed: 1\nseed: 2\n")
    assert "the key 'seed' is written twice" in found
    assert "line 3" in found
    found = problem_of(folder, "corpus: {paths: [pool]}\nstages:\n  - length: {min_bytes: 1, min_bytes: 2}\n")
    assert "the key 'min_bytes' is written twice" in found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a\n- b\n", "expected a mapping with corpus and stages, got list"),
        ("", "expected a mapping with corpus and stages, got NoneType"),
        ("corpus: {paths: [pool]\n", "expected YAML"),
        ("stages: []\n", "corpus: this section is missing"),
        ("corpus: [pool]\n", "corpus: expected a mapping of settings"),
        ("corpus: {}\n", "the setting 'paths' is missing"),
        ("corpus: {paths: [pool]}\nstages: {length: {min_bytes: 2}}\n", "stages: expected a list"),
        ("corpus: {paths: [pool]}\nstages: [{length: {min_bytes: 2}, dsir: {}}]\n", "stages[0]: expected one stage"),
        ("corpus: {paths: [pool]}\nstages: [documents]\n", "is part of every run"),
        ("corpus: {paths: [pool]}\nstages: [length]\n", "expected at least one of min_bytes"),
        ("corpus: {paths: [pool]}\nstages: [{length: 20}]\n", "expected a mapping of settings, got int 20"),
        ("corpus: {paths: [pool]}\ntargets: [guide.jsonl]\n", "targets: expected a mapping of names"),
        ("corpus: {paths: [pool]}\nstages: ['nothing.py:Stage']\n", "expected a Python file with a stage"),
        ("corpus: {paths: [pool]}\nstages: ['no_such_module_:Stage']\n", "cannot import 'no_such_module_'"),
        ("corpus: {paths: [pool]}\nstages: ['json:Decoder']\n", "has no class 'Decoder'"),
        ("corpus: {paths: [pool]}\nstages: ['json:JSONDecoder']\n", "stages[0].json:JSONDecoder"),
        ("corpus: {paths: [pool], view: users}\n", "expected one of all, user, assistant, last_turn, got 'users'"),
        ("corpus: {paths: [pool], text: txet}\n", "txet"),
        ("corpus: {paths: [pool]}\nseed: true\n", "seed: expected a whole number, got True"),
        ("corpus: {paths: [pool]}\nemit: {shard_bytes: 0}\n", "shard_bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(folder: Path, text: str, what: str) -> None:
    assert any(what in line for line in problems_of(folder, text)), problems_of(folder, text)


def test_a_stage_file_that_fails_on_import_is_a_recipe_error(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    found = problem_of(folder, "corpus: {paths: [pool]}\nstages: ['broken.py:Stage']\n")
    assert "broken.py failed while it was imported: ModuleNotFoundError" in found


# -- overrides -----------------------------------------------------------------------------------------------------------


def loaded(folder: Path, *overrides: str) -> recipes.Recipe:
    (folder / "recipe.yaml").write_text(ISSUE)
    return recipes.load(folder / "recipe.yaml", overrides)


def test_overrides_reach_sections_targets_and_stages_by_name_label_and_index(folder: Path) -> None:
    recipe = loaded(
        folder, "seed=9", "corpus.part_bytes=1000", "targets.maths.weight=2", "stages.length.min_bytes=30", "stages.1.keep=longest",
        "stages.select.budget=200MB", "emit.format=jsonl", "emit.shard_bytes=5",
    )  # fmt: skip
    assert recipe.problems.found == []
    assert (recipe.seed, recipe.corpus.part_bytes, recipe.targets["maths"].weight) == (9, 1000, 2.0)
    assert recipe.emit is not None
    assert (recipe.emit.format, recipe.emit.shard_bytes) == ("jsonl", 5)
    params: list[Any] = [stage.params for stage in recipe.stages]
    assert (params[0].min_bytes, params[1].keep, params[3].budget) == (30, "longest", "200MB")


def test_an_override_of_a_label_finds_the_labelled_stage(folder: Path) -> None:
    text = "corpus: {paths: [pool]}\nstages:\n  - length: {min_bytes: 1}\n  - length: {min_bytes: 2, as: second}\n"
    (folder / "recipe.yaml").write_text(text)
    recipe = recipes.load(folder / "recipe.yaml", ["stages.second.min_bytes=5"])
    params: list[Any] = [stage.params for stage in recipe.stages]
    assert [p.min_bytes for p in params] == [1, 5]


def test_an_override_makes_a_section_that_is_not_there(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("corpus: {paths: [pool]}\n")
    recipe = recipes.load(folder / "recipe.yaml", ["emit.format=jsonl"])
    assert recipe.emit is not None
    assert recipe.emit.format == "jsonl"


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("seed", "--set seed: expected a.b=value"),
        ("stages.lenght.min_bytes=3", "there is no stages.lenght in the recipe"),
        ("stages.length.min_byte=3", "did you mean 'min_bytes'?"),
        ("sed=3", "sed: unknown section; did you mean 'seed'?"),
        ("stages.9.x=3", "there is no stages.9 in the recipe"),
        ("stages.length=3", "name a stage and one of its settings"),
        ("seed.deeper.still=3", "there is no seed"),
        ("stages.length.min_bytes=many", "stages[0].length.min_bytes: expected a whole number, got 'many'"),
    ],
)
def test_an_override_that_reaches_nothing_is_an_error(folder: Path, word: str, what: str) -> None:
    found = problems_of(folder, ISSUE, word)
    assert any(what in line for line in found), found


def test_an_override_changes_the_result_like_the_recipe_itself(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(ISSUE)
    result = curate.run(folder / "recipe.yaml", run=folder / "run", workers=1, overrides=["stages.select.budget=3"])
    assert result.outcome.kept == 3
    lock = json.loads((folder / "run" / "recipe.lock.json").read_text())
    assert lock["stages"][3]["budget"] == 3


# -- through the command -------------------------------------------------------------------------------------------------


def test_the_command_says_all_problems_and_exits_with_2(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("corpus: {paths: [pool], txt: text}\nstages: [lenght]\n")
    done = call("run", folder / "recipe.yaml", "--run", folder / "run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "corpus.txt: unknown setting" in done.stderr
    assert "stages[0].lenght: unknown stage" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    "words",
    [["run"], ["run", "nothing.yaml"], ["run", "nothing-of-this-name"], ["rn", "x.yaml"], ["run", "x.yaml", "--worker", "2"],
     ["run", "x.yaml", "--workers", "0"], ["sql", "no-run-here", "SELECT 1"], ["score", "dsri", "pool", "-o", "x"]],
)  # fmt: skip
def test_wrong_words_exit_with_2(words: list[str]) -> None:
    done = call(*words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_a_shipped_recipes_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert recipes.find("demo").name == "demo.yaml"


#: Words enough for texts that are English to a model and near to no other.
WORDS = ["the", "and", "of", "to", "in", "that", "with", "have", "was", "for", "on", "are", "as", "his", "they", "at", "be", "this", "from", "had", "not", "but", "what", "all", "were", "when", "we", "there", "can", "an", "your", "which", "their", "said", "if", "do", "will", "each", "about", "how", "up", "out", "them", "then", "she", "many", "some", "so", "these", "would", "other", "into", "has", "more", "her", "two", "like", "him", "see", "time", "could", "no", "make", "than", "first", "been", "its", "who", "now", "people", "my", "made", "over", "did", "down", "only", "way", "find", "use", "may", "water", "long", "little", "very", "after", "words", "called", "just", "where", "most", "know"]


def prose(seed: int, sentences: int = 12) -> str:
    """Lines of one English-looking sentence each, every one another."""
    draw = random.Random(seed)
    return "\n".join(" ".join(draw.choices(WORDS, k=11)).capitalize() + "." for _ in range(sentences))


def told(name: str, rows: list[dict[str, Any]], folder: Path, *overrides: str) -> tuple[dict[str, str | None], dict[str, Any]]:
    """The reason of each document of a shipped recipe's run, by id, and the rows that were published."""
    write_rows(folder / "pool" / "0.parquet", rows)
    run(recipes.load(recipes.find(name), [f"corpus.paths=[{folder / 'pool'}]", *overrides]), folder / "run")
    assert sum(counts(folder / "run").values()) == len(rows)
    return {row["id"]: row[DROP_REASON] for row in docs(folder / "run").to_pylist()}, {row["id"]: row for row in published_rows(folder / "run")}


def test_the_shipped_recipe_for_web_text_drops_what_it_is_for(tmp_path: Path) -> None:
    texts = {
        "good": prose(1), "mail": prose(2) + "\nThen write to jane.doe@mail-host.org for more of it.", "copy": prose(3), "copy2": prose(3).upper().lower().replace(" ", "  "),
        "near": prose(4, 30), "near2": prose(4, 30) + "\nThe end.", "short": "Not much to say here.", "lorem": prose(5) + "\nLorem ipsum dolor sit amet and so on.",
        "code": prose(6) + "\nif (x) { return; }", "again": prose(7, 3) + ("\n" + prose(8, 1)) * 20, "menu": prose(9) + "\nHOME\nABOUT US\nCONTACT US NOW\nLOG IN HERE",
        "german": "\n".join(["Der Hund und die Katze sind heute mit dem Zug nach Hause gefahren, weil es geregnet hat."] + [f"Das ist der {n}. Satz, und er steht in have with einem anderen Buch aus der Stadt." for n in range(9)]),
    }  # fmt: skip
    reasons, left = told("web", [{"id": name, "text": text, "source": "s"} for name, text in texts.items()], tmp_path)
    assert {name: reason for name, reason in reasons.items() if name not in ("copy", "copy2", "near", "near2", "german")} == {
        "good": None, "mail": None, "short": "most frequent 2-gram", "lorem": "lorem ipsum", "code": "curly bracket", "again": "duplicate lines", "menu": "too many words in cut lines",
    }  # fmt: skip
    assert {reasons["copy"], reasons["copy2"]} == {None, "copy of another document"}
    assert {reasons["near"], reasons["near2"]} == {None, "near-duplicate of another document"}
    assert reasons["german"] is not None
    assert set(left) == {name for name, reason in reasons.items() if reason is None}
    assert left["mail"]["text"] == texts["mail"].replace("jane.doe@mail-host.org", "<EMAIL>")


def test_the_shipped_recipe_for_instruction_data_tells_prompts_and_responses_apart(tmp_path: Path) -> None:
    pairs = {
        "good": (prose(1, 3), prose(2, 3)), "empty": (prose(3, 3), " "), "refusal": (prose(4, 3), "I'm sorry, but I can't help with that, and that is all of it."), "long": ("Why is it so?", prose(5, 60)),
        "prompt": (prose(6, 3), prose(7, 3)), "prompt2": (prose(6, 3).upper(), prose(8, 3)), "response": (prose(9, 3), prose(10, 3)), "response2": (prose(11, 3), prose(10, 3) + " "),
        "near": (prose(12, 12), prose(13, 3)), "near2": (prose(12, 12) + " Now.", prose(14, 3)), "answer": (prose(15, 3), prose(16, 12)), "answer2": (prose(17, 3), prose(16, 12) + " Now."),
    }  # fmt: skip
    rows = [{"id": name, "prompt": prompt, "response": response, "source": "s"} for name, (prompt, response) in pairs.items()]
    reasons, left = told("sft", rows, tmp_path)
    assert (reasons["good"], reasons["empty"], reasons["refusal"], reasons["long"]) == (None, "response too short", "refusal", "response too long for its prompt")
    for one, other, why in (("prompt", "prompt2", "copy of another document"), ("response", "response2", "copy of another document"), ("near", "near2", "near-duplicate of another document"), ("answer", "answer2", "near-duplicate of another document")):
        assert {reasons[one], reasons[other]} == {None, why}
    labels = {(stage, reason) for stage, reason in counts(tmp_path / "run")}
    assert {("same_prompt", "copy of another document"), ("same_response", "copy of another document"), ("near_prompt", "near-duplicate of another document"), ("near_response", "near-duplicate of another document")} <= labels
    assert (left["good"]["prompt"], left["good"]["response"]) == pairs["good"]
