"""Files of a finished run that rot: truncated, emptied, overwritten, a bit flipped. Damage is named or healed, never passed on."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import STAGES, call, lasting, leftovers, recipe_for, small_rows, write_recipe, write_rows

BAD_DATA = 3
HOW = ["half", "empty", "garbage", "a bit"]
#: Written anew by every run, or a memory of what can be asked again: damage there is no event.
HEALED = {"events.jsonl", "files.json", "status.json", "catalog.duckdb", "a lease"}


class Rotten:
    """A finished run with a frozen state, and one file of each kind that lies in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for n in range(3):
            write_rows(folder / "pool" / f"{n}.parquet", small_rows()[:240][n::3])
        stages = [*STAGES[:2], {"dsir": {"state": "frozen"}}, STAGES[3]]
        self.recipe = write_recipe(folder / "recipe.yaml", recipe_for(folder, stages=stages))
        done = self.run("calm")
        assert done.returncode == 0, done.stderr
        self.expected = lasting(folder / "calm")
        self.kinds: dict[str, Path] = {}
        for file in sorted((folder / "calm").rglob("*")):
            if file.is_file() and not file.is_symlink() and file.stat().st_size:
                self.kinds.setdefault(kind_of(file.relative_to(folder / "calm")), file.relative_to(folder / "calm"))

    def run(self, name: str, *more: object) -> subprocess.CompletedProcess[str]:
        return call("run", self.recipe, "--run", self.folder / name, "--workers", 1, "-q", *more)

    def damaged(self, kind: str, how: str) -> tuple[Path, Path]:
        """A copy of the run with one file damaged: the run, the file."""
        run = self.folder / "rough"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "calm", run, symlinks=True)
        file = run / self.kinds[kind]
        content = bytearray(file.read_bytes())
        if how == "a bit":
            content[random.Random(kind).randrange(len(content))] ^= 0x10
        file.write_bytes({"half": content[: len(content) // 2], "empty": b"", "garbage": b"\x00\xffnonsense", "a bit": content}[how])
        return run, file


def kind_of(file: Path) -> str:
    """What a file of a run folder is: its name, or in the store its place, without keys."""
    if file.parts[0] == "store":
        return "store, " + (file.parts[2] if len(file.parts[2]) < 32 else "measures with a state")
    if file.parts[0] in ("mixtures", ".docs"):
        return f"{file.parts[0]}, {file.name}"
    return "a lease" if file.parts[0] == ".lease" else str(file)


@pytest.fixture(scope="module")
def rotten(tmp_path_factory: pytest.TempPathFactory) -> Rotten:
    return Rotten(tmp_path_factory.mktemp("rotten"))


def check(rotten: Rotten, kind: str, how: str) -> int:
    """Damage one file and run again: named with the remedy, which works; or everything else is as it was."""
    run, file = rotten.damaged(kind, how)
    done = rotten.run("rough")
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        after = lasting(run)
        assert {k for k in after.keys() | rotten.expected.keys() if after.get(k) != rotten.expected.get(k)} <= places(run, file)
        assert how == "a bit" or not places(run, file) & rotten.expected.keys() or after == rotten.expected, "a size was not compared"
        return 0
    assert done.returncode == BAD_DATA, done.stderr
    assert f"{file} is damaged (" in done.stderr
    assert "`curate verify RUN --repair` removes what is damaged" in done.stderr
    repaired = call("verify", run, "--repair")
    assert "Traceback" not in repaired.stderr
    assert str(file.relative_to(run)) in repaired.stdout + repaired.stderr
    again = rotten.run("rough")
    assert again.returncode == 0, again.stderr
    assert lasting(run) == rotten.expected
    assert leftovers(run) == []
    return BAD_DATA


def places(run: Path, file: Path) -> set[str]:
    """The names under which `lasting` knows a file."""
    inside = file.relative_to(run)
    if inside.parts[0] == "mixtures":
        return {"mixture/" + "/".join(inside.parts[2:])}
    return {str(inside)}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("store, measures", "half"), ("store, measures", "a bit"), ("store, measures with a state", "empty"), ("store, fit", "garbage"),
        ("store, state", "half"), ("store, verdict", "half"), ("store, finish", "a bit"), (".docs, docs-00000.parquet", "half"),
        (".docs, _funnel.parquet", "empty"), ("mixtures, manifest.json", "half"), ("mixtures, train-00000-of-00001.parquet", "garbage"),
        ("parts.parquet", "half"), ("ledger.parquet", "a bit"), ("frozen/dsir.json", "a bit"), ("files.json", "garbage"), ("recipe.lock.json", "half"),
        ("catalog.duckdb", "a bit"), ("status.json", "garbage"), ("a lease", "garbage"), ("events.jsonl", "half"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_repaired_or_made_anew(rotten: Rotten, kind: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_LEASE_SECONDS", "1")  # a lease that cannot be read is waited out
    code = check(rotten, kind, how)
    if kind in HEALED:
        assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_every_kind_of_file_that_is_damaged_is_named_and_repaired_or_made_anew(rotten: Rotten, how: str) -> None:
    assert len(rotten.kinds) > 20
    for kind in rotten.kinds:
        check(rotten, kind, how)


def test_what_a_recipe_with_another_setting_reads_of_rotten_files_is_checked(rotten: Rotten) -> None:
    """A no-op compares sizes only; whatever is read has its pages' checksums compared, so no bit of it gets into a result."""
    other = ("--set", "stages.select.budget=30%")
    assert rotten.run("other", *other).returncode == 0
    expected = lasting(rotten.folder / "other")
    for kind in ("store, measures", "store, measures with a state", "store, verdict"):
        run, file = rotten.damaged(kind, "a bit")
        done = rotten.run("rough", *other)
        if done.returncode == 0:  # the bit was in none of the pages that were read
            after = lasting(run)
            assert {k for k, v in expected.items() if after.get(k) != v} <= places(run, file)
        else:
            assert done.returncode == BAD_DATA, done.stderr
            assert f"{file} is damaged (" in done.stderr


def test_a_missing_file_is_computed_again(rotten: Rotten) -> None:
    for kind in ("store, measures", "store, verdict", ".docs, docs-00000.parquet", "mixtures, train-00000-of-00001.parquet", "ledger.parquet"):
        run, file = rotten.damaged(kind, "half")
        file.unlink()
        done = rotten.run("rough")
        assert done.returncode == 0, (kind, done.stderr)
        assert lasting(run) == rotten.expected, kind


@pytest.mark.parametrize("how", ["half", "a bit"])
def test_a_frozen_state_and_what_it_was_fitted_on_may_rot_together(rotten: Rotten, how: str) -> None:
    """Both are made again, the same bytes; without the partials the state would be fitted on what is there now."""
    run, partial = rotten.damaged("store, fit", how)
    states = [file for file in (run / "store").glob("*/state/*.parquet") if file.parent.parent.name == partial.parent.parent.name]
    assert len(states) == 1
    states[0].write_bytes(b"nonsense")
    done = rotten.run("rough")
    assert done.returncode == BAD_DATA
    assert "`curate verify RUN --repair` removes what is damaged" in done.stderr
    call("verify", run, "--repair")
    assert not partial.exists()
    assert not states[0].exists()
    again = rotten.run("rough")
    assert again.returncode == 0, again.stderr
    assert "fitted anew" not in again.stderr
    assert lasting(run) == rotten.expected
    assert call("verify", run).returncode == 0


def test_what_a_frozen_state_was_fitted_on_is_said_to_be_gone_where_its_part_is_another_now(rotten: Rotten) -> None:
    run, partial = rotten.damaged("store, fit", "half")
    shutil.copytree(rotten.folder / "pool", rotten.folder / "pool-as-it-was")
    try:
        for n in range(3):  # every part is another content
            write_rows(rotten.folder / "pool" / f"{n}.parquet", [row | {"text": row["text"] + " now"} for row in small_rows()[:240][n::3]])
        call("verify", run, "--repair")
        done = call("run", rotten.recipe, "--run", run, "--workers", 1)
        assert done.returncode == 0, done.stderr
        assert "1 files of what its frozen state was fitted on are gone" in done.stderr
        assert not partial.exists()
        assert call("verify", run).returncode == 0
    finally:
        shutil.rmtree(rotten.folder / "pool")
        (rotten.folder / "pool-as-it-was").rename(rotten.folder / "pool")
