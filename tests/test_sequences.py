"""Whatever is done to a run folder, in whatever order: what stands there is what a fresh run of the same would make.

Each sequence is drawn by a seed, which its test's name has. A step changes the pool or the recipe, takes a document
down, prunes, or cuts the power of a run; then the folder is run, verified, compared with a fresh run, and run again.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    Rows,
    chosen_texts,
    command,
    counts,
    docs,
    docs_without_place,
    leftovers,
    published,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

from curate import cli

TESTS = Path(__file__).parent
BOILERPLATE = "Subscribe to our newsletter for more of this"
#: A power cut comes at one of so many steps on the disk; a small run has about this many.
STEPS = 220


def call(*words: object) -> tuple[int, str]:
    """The command within this process: its exit code, and what it said on both streams."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(left.value.code or 0), said.getvalue()


def varied_rows() -> Rows:
    """The sample's documents, some with a shared line, with an address, nearly equal to another, or equal to another."""
    rows = small_rows()
    random.Random(0).shuffle(rows)
    rows = rows[:260]
    for n, row in enumerate(rows):
        if n % 5 == 0:
            row["text"] += f"\n{BOILERPLATE}"
        if n % 7 == 0:
            row["text"] += f"\nwrite to someone{n}@example.org"
        if n % 11 == 10:
            row["text"] = rows[n - 1]["text"]
        if n % 13 == 12:
            row["text"] = rows[n - 1]["text"] + " indeed"
    return rows


class Sequence:
    """A run folder, its pool and its recipe, and what has been done to them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.run = folder / "run"
        self.recipe = folder / "recipe.yaml"
        self.store = folder / "shared" if self.draw.random() < 0.4 else None
        self.spare = varied_rows()
        self.files: dict[str, Rows] = {}
        self.made = 0
        self.taken: set[str] = set()
        self.gone: set[str] = set()  # texts of what was taken down
        self.did: list[str] = [f"store {self.store}"]
        self.length, self.lines, self.pii = 20, 4, "redact"
        self.budget, self.how, self.state = "30%", "top_k", "refit"
        self.on = {"length", "dedup_exact", "dsir", "select"}
        rows = [self.spare.pop() for _ in range(30)]
        write_rows(folder / "before" / "0.parquet", rows)
        self.spare += [{**row, "id": row["id"] + "-again"} for row in rows[:12]]
        self.draw.shuffle(self.spare)
        earlier = recipe_for(folder, paths=["before/*"], stages=[{"length": {"min_bytes": 1}}], target=False)
        self.good("run", write_recipe(folder / "earlier.yaml", earlier), "--run", folder / "earlier", "--workers", 1, "-q", *self.shared())
        for _ in range(3):
            self.add_file()

    # -- what a user does ---------------------------------------------------------------------------------------------

    def add_file(self) -> None:
        rows = [self.spare.pop() for _ in range(min(len(self.spare), self.draw.randrange(8, 30)))]
        if not rows:
            return
        name = f"{self.draw.randrange(100):02d}-{self.made}.{self.draw.choice(['parquet', 'jsonl'])}"
        self.made += 1
        self.put(name, rows)

    def change_file(self) -> None:
        name = self.a_file()
        rows = [dict(row) for row in self.files[name]]
        what = self.draw.randrange(3)
        if what == 0 and len(rows) > 2:
            self.spare.append(rows.pop(self.draw.randrange(len(rows))))
        elif what == 1:
            rows[self.draw.randrange(len(rows))]["text"] += f" and once more {self.draw.randrange(99)}"
        else:
            self.draw.shuffle(rows)
        self.put(name, rows)

    def rename_file(self) -> None:
        name = self.a_file()
        rows = self.files.pop(name)
        new = f"{self.draw.randrange(100):02d}-{self.made}.{name.partition('.')[2]}"
        self.made += 1
        (self.folder / "pool" / name).rename(self.folder / "pool" / new)
        self.files[new] = rows

    def remove_file(self) -> None:
        if len(self.files) > 2:
            name = self.a_file()
            self.spare += self.files.pop(name)
            (self.folder / "pool" / name).unlink()

    def move_a_threshold(self) -> None:
        what = self.draw.randrange(5)
        if what == 0:
            self.length = self.draw.choice([1, 20, 60, 150])
        elif what == 1:
            self.lines = self.draw.choice([2, 4, 40])
        elif what == 2:
            self.pii = self.draw.choice(["redact", "tag", "drop"])
        elif what == 3:
            self.budget = self.draw.choice(["20%", "30%", "12", "0.01MB"])
        else:
            self.how = self.draw.choice(["top_k", "resample", "random"])

    def swap_a_stage(self) -> None:
        self.on ^= {self.draw.choice(["length", "repeated_lines", "pii", "dedup_exact", "against", "minhash", "minhash_against", "zipfit_fast", "twice"])}

    def freeze_or_refit(self) -> None:
        self.state = "refit" if self.state == "frozen" else "frozen"

    def take_down(self) -> None:
        if not (self.run / "ledger.parquet").exists():
            return
        there = sorted({row["id"] for rows in self.files.values() for row in rows} & set(docs(self.run)["id"].to_pylist()))
        ids = self.draw.sample(there, min(len(there), self.draw.randrange(1, 3)))
        (self.folder / "ids.txt").write_text("".join(f"{id}\n" for id in ids))
        held = {row["id"]: row["text"] for rows in self.files.values() for row in rows}
        words = ("takedown", self.run, "--ids", self.folder / "ids.txt", "--workers", 1, "-q")
        if self.draw.random() < 0.3:
            self.cut(*words)
        self.good(*words)
        self.taken |= set(ids)
        self.gone |= {held[id] for id in ids}

    def prune(self) -> None:
        if (self.run / "ledger.parquet").exists():
            self.good("prune", self.run)

    def verify(self) -> None:
        if (self.run / "ledger.parquet").exists():
            code, said = call("verify", self.run)
            assert code in (0, 3), self.told(said)  # the pool may be another by now, and that is said
            if code:
                assert "inputs" in said, self.told(said)

    def cut_a_run(self) -> None:
        self.write()
        self.cut("run", self.recipe, "--run", self.run, "--workers", 1, "-q", *self.shared())

    # -- how it is done -----------------------------------------------------------------------------------------------

    def a_file(self) -> str:
        return self.draw.choice(sorted(self.files))

    def put(self, name: str, rows: Rows) -> None:
        self.files[name] = rows
        write_rows(self.folder / "pool" / name, rows, row_group=13)

    def shared(self) -> list[object]:
        return ["--store", self.store] if self.store else []

    def stages(self) -> list[dict[str, Any]]:
        held = [str(self.folder / "earlier")]
        found: list[tuple[str, dict[str, Any]]] = [
            ("length", {"length": {"min_bytes": self.length}}),
            ("repeated_lines", {"repeated_lines": {"min_documents": self.lines}}),
            ("pii", {"pii": {"mode": self.pii}}),
            ("dedup_exact", {"dedup_exact": {"against": held} if "against" in self.on else {}}),
            ("minhash", {"minhash": {"num_perm": 32, "against": held if "minhash_against" in self.on else []}}),
            ("dsir", {"dsir": {"state": self.state}}),
            ("zipfit_fast", {"zipfit_fast": {"rescore": "30%"}}),
            ("twice", {"zipfit_fast": {"as": "again", "rescore": "30%", "level": 1}}),
            ("select", {"select": {"how": self.how, "budget": self.budget} | ({} if self.how == "random" else {"by": "dsir"})}),
        ]
        return [stage for name, stage in found if name in self.on]

    def write(self) -> None:
        write_recipe(self.recipe, recipe_for(self.folder, stages=self.stages()))

    def cut(self, *words: object) -> None:
        at = self.draw.randrange(1, STEPS)
        self.did[-1] += f" cut at {at}"
        done = subprocess.run(
            [sys.executable, str(TESTS / "crash.py"), str(at), str(self.folder / "steps"), *map(str, words)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), self.told(done.stderr)

    def good(self, *words: object) -> str:
        code, said = call(*words)
        assert code == 0, self.told(said)
        return said

    def told(self, said: str) -> str:
        return "\n".join([*self.did, json.dumps(self.stages()), said])

    # -- what must hold -----------------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        self.write()
        words = ["run", self.recipe, "--run", self.run, *self.shared()]
        how = self.draw.choice(["1", "2", "join"])
        self.did.append(f"run {how}")
        if how == "join":
            self.join(words)
        else:
            self.good(*words, "--workers", how, "-q")

    def join(self, words: list[object]) -> None:
        members = [
            subprocess.Popen(command(*words, "--workers", 1, "--join", "-q"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
            for _ in range(2)
        ]
        try:
            said = [member.communicate(timeout=120)[1] for member in members]
        finally:
            for member in members:
                if member.poll() is None:
                    os.killpg(member.pid, signal.SIGKILL)
        assert [member.returncode for member in members] == [0, 0], self.told("\n".join(said))

    def check(self) -> None:
        self.good("verify", self.run)
        self.nothing_to_do()
        self.check_taken_down()
        if self.state == "refit":
            self.check_against_a_fresh_run()
        if self.draw.random() < 0.5:
            self.did.append("prune")
            self.good("prune", self.run)
            self.good("verify", self.run)
            self.nothing_to_do()
            assert leftovers(self.run) == [], self.told("")

    def nothing_to_do(self) -> None:
        before = published(self.run)
        said = self.good("run", self.recipe, "--run", self.run, "--workers", 1, *self.shared())
        assert "nothing to do" in said, self.told(said)
        assert published(self.run) == before

    def check_taken_down(self) -> None:
        rows = docs(self.run).select(["id", "curate_keep"]).to_pylist()
        assert not self.taken & {row["id"] for row in rows if row["curate_keep"]}, self.told("")
        if not {"pii", "repeated_lines"} & self.on:
            assert not self.gone & set(chosen_texts(self.run)), self.told("")

    def check_against_a_fresh_run(self) -> None:
        fresh = self.folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        if (self.run / "takedown.parquet").exists():
            shutil.copy(self.run / "takedown.parquet", fresh)
        self.good("run", self.recipe, "--run", fresh, "--workers", 1, "-q")
        assert counts(self.run) == counts(fresh), self.told("counts")
        assert docs_without_place(self.run) == docs_without_place(fresh), self.told("docs")
        assert published(self.run) == published(fresh), self.told("mixture")


CHANGES: list[Callable[[Sequence], None]] = [
    Sequence.add_file, Sequence.change_file, Sequence.rename_file, Sequence.remove_file, Sequence.move_a_threshold, Sequence.move_a_threshold,
    Sequence.swap_a_stage, Sequence.swap_a_stage, Sequence.freeze_or_refit, Sequence.take_down, Sequence.prune, Sequence.verify, Sequence.cut_a_run,
]  # fmt: skip


def walk(folder: Path, seed: int, rounds: int) -> None:
    sequence = Sequence(folder, seed)
    for _ in range(rounds):
        for change in sequence.draw.choices(CHANGES, k=sequence.draw.randrange(1, 4)):
            sequence.did.append(change.__name__)
            change(sequence)
        sequence.carry_out()
        sequence.check()


@pytest.mark.parametrize("seed", range(3))
def test_a_short_sequence_ends_as_a_fresh_run(tmp_path: Path, seed: int) -> None:
    walk(tmp_path, seed, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_a_long_sequence_ends_as_a_fresh_run(tmp_path: Path, seed: int) -> None:
    walk(tmp_path, seed, 12)
