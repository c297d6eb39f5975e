"""Many members at one run: `curate run RECIPE --join`, started on every machine of a job array.

    RUN/.lease/<work>.claims/plan.json             what all members must have in common
    RUN/.lease/<work>.claims/<member>.member       who takes part, a heartbeat beside it
    RUN/.lease/<work>.claims/<pass>/7-0.claim      who has taken task 7 of a pass
    RUN/.lease/<work>.claims/<pass>/7.done         what came of it

The first holds the run's lease: it merges states, runs what sees all documents, and publishes. All go through the
same passes and claim tasks of them by creating files, which one of them can. What a task computes is stored under
keys of its content, so a task that is done twice does no harm; it is counted. A claim of a member that died is taken
over under the next number, and so is the lease. `<work>` is the nonce of the first holder: a run that finds all of
them dead begins a work of its own, and what the old one had computed is in the store.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from curate import registry
from curate.engine import LocalEngine
from curate.errors import ConfigError, CurateError, DataError, RunHeldError, StageError, plainly
from curate.lease import (
    BEATS,
    FOLDER,
    LOOK_SECONDS,
    Heart,
    Holder,
    Lease,
    Watch,
    acquire,
    create,
    ending,
    failure,
    newest,
    read_holder,
    take,
    this_process,
)
from curate.passes import PartResult, PassTask, run_pass
from curate.records import versions
from curate.store import digest, empty, noting

if TYPE_CHECKING:
    from curate.outcome import Outcome
    from curate.runner import Run

#: Into how many tasks a pass is cut at least: the last ones decide how long the members wait for one another.
TASKS = 64


class WorkEndedError(Exception):
    """The work that a member joined is over; `holder` is who published it, None where it has to be joined anew."""

    def __init__(self, holder: Holder | None) -> None:
        self.holder = holder


@dataclass(frozen=True)
class ClaimTask:
    """A task of a pass, for the member that claims it first."""

    task: PassTask
    folder: Path
    number: int
    attempt: int
    member: str

    def described(self) -> str:
        """What to call this task in an error."""
        return self.task.described()


def run_claimed(claim: ClaimTask) -> list[PartResult] | None:
    """Claim a task and run it; None where another member has it. Called in the workers."""
    done = claim.folder / f"{claim.number}.done"
    file = claim.folder / f"{claim.number}-{claim.attempt}.claim"
    try:
        if done.exists() or not (create(file, claim.member.encode(), lasting=False) or file.read_text() == claim.member):
            return None  # ours where a worker of ours died with it, and this is the next one
    except FileNotFoundError:
        return None  # the work has ended
    results = run_pass(claim.task)
    with contextlib.suppress(FileNotFoundError):
        if not create(done, msgspec.json.encode(results), lasting=False):
            create(claim.folder / f"{claim.number}-{claim.member}.twice", b"", lasting=False)
    return results


class Crew:
    """All who work at one run, as one of them sees it."""

    def __init__(self, folder: Path, me: Holder, lease: Lease | None, promoted: Callable[[Lease], None]) -> None:
        self.me, self.lease = me, lease
        self._folder, self._promoted = folder, promoted
        self.root = folder / FOLDER / f"{me.joined}.claims"
        self._lead: tuple[Path, Holder | None, Watch] | None = None
        self._members: dict[str, Watch] = {}
        self.parts = self.all_parts = self.passes = self.twice = 0

    # -- coming and going -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def taking_part(self) -> Iterator[None]:
        """Be a member for the length of a block, seen to live by the others."""
        if self.lease is not None:
            self.root.mkdir(exist_ok=True)
        file = self.root / f"{self.me.nonce}.member"
        try:
            create(file, msgspec.json.encode(self.me))
        except FileNotFoundError:
            raise WorkEndedError(None) from None  # it ended, or has not begun yet
        heart = Heart(file.with_suffix(".beat"), self.me.lease_seconds / BEATS)
        try:
            yield
        finally:
            heart.stop()
            file.unlink(missing_ok=True)

    def open(self, run: Run) -> None:
        """Say what is planned, so that others can join."""
        create(self.root / "plan.json", msgspec.json.encode(planned(run)))

    def agree(self, run: Run) -> None:
        """Raise a RunHeldError where the plan of this member is not that of the others."""
        theirs = msgspec.json.decode((self.root / "plan.json").read_bytes(), type=dict[str, str])
        mine = planned(run)
        differ = [name for name in sorted(theirs | mine) if theirs.get(name) != mine.get(name)]
        if differ:
            told = "; ".join(f"{name}: {theirs.get(name, 'nothing')} there, {mine.get(name, 'nothing')} here" for name in differ)
            raise RunHeldError(f"the run in {self._folder} that was to be joined is another one ({told}); all members need the same recipe, inputs and versions")

    def begun(self) -> bool:
        """Whether the plan is there."""
        return (self.root / "plan.json").exists()

    def clear(self) -> None:
        """Remove all claims: nobody needs them any more."""
        gone = self.root.with_suffix(".gone-making")
        with contextlib.suppress(OSError):
            self.root.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def share(self) -> str:
        """What this member did of the whole."""
        twice = f"; {self.twice} tasks were done twice" if self.twice else ""
        return f"this member did {self.parts} of the {self.all_parts} parts of {self.passes} passes{twice}"

    # -- the lease ------------------------------------------------------------------------------------------------

    def look(self) -> tuple[Path, bool]:
        """The lease as it stands, and whether it can be taken; raises what ends the work for this member."""
        path = newest(self._folder)
        holder = read_holder(path) if path else None
        if path is None or (holder is not None and holder.joined != self.me.joined):
            raise WorkEndedError(None)
        if holder is not None and holder.free:
            if holder.outcome == "finished":
                raise WorkEndedError(holder)
            if holder.outcome == "failed":
                kinds: dict[int, type[CurateError]] = {2: ConfigError, 3: DataError, 75: RunHeldError}
                raise kinds.get(holder.exit_code, StageError)(f"{holder.described()}, which leads the run, failed: {holder.error}")
            return path, True
        if self._lead is None or self._lead[:2] != (path, holder):
            self._lead = (path, holder, Watch(holder, path.with_suffix(".beat")))
        return path, self._lead[2].dead()

    def vanished(self) -> NoReturn:
        """The claims are gone: wait until the leader has said why."""
        if self.lease is not None:
            self.lease.check()
        else:
            while not self.look()[1]:
                time.sleep(LOOK_SECONDS)
        raise WorkEndedError(None)

    def leads(self) -> bool:
        """Whether this member holds the lease by now; takes it where its holder is gone, waits a little otherwise."""
        if self.lease is not None:
            self.lease.check()
            return True
        path, takeable = self.look()
        if takeable:
            before = read_holder(path)
            lease = take(self._folder, path, self.me, [])
            if lease is not None:
                lease.taken_from = before if before is not None and not before.free else None
                self.lease = lease
                self._promoted(lease)
                return True
        time.sleep(min(LOOK_SECONDS, self.me.lease_seconds / BEATS))
        return False

    # -- passes ---------------------------------------------------------------------------------------------------

    def run_pass(self, engine: LocalEngine, key: str, tasks: list[PassTask], advance: Callable[[list[PartResult]], None]) -> list[list[PartResult]]:
        """Run what no other member runs of a pass, and collect what they have: the results of all tasks, in order."""
        folder = self.root / key
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            self.vanished()
        results: list[list[PartResult] | None] = [None] * len(tasks)
        first = int(self.me.nonce, 16) % max(1, len(tasks))  # members begin at different places
        todo = [(i, 0) for i in (*range(first, len(tasks)), *range(first))]
        self.passes += 1
        while True:
            claims = [ClaimTask(tasks[i], folder, i, attempt, self.me.nonce) for i, attempt in todo]
            own = engine.map("curate.joining:run_claimed", claims, lambda group: advance(group) if group is not None else None)
            for (i, _), group in zip(todo, own, strict=True):
                if group is not None:
                    results[i] = group
                    self.parts += len(group)
            todo = self._wait(folder, tasks, results, advance)
            if not todo:
                break
        found = [group for group in results if group is not None]
        self.all_parts += sum(len(group) for group in found)
        with contextlib.suppress(FileNotFoundError):
            self.twice += sum(name.endswith(".twice") for name in os.listdir(folder))
        return found

    def _wait(
        self, folder: Path, tasks: list[PassTask], results: list[list[PartResult] | None], advance: Callable[[list[PartResult]], None]
    ) -> list[tuple[int, int]]:
        """Collect what others have done until all is there, or until there are tasks to take over: (task, attempt)."""
        while True:
            try:
                names = set(os.listdir(folder))
            except FileNotFoundError:
                self.vanished()
            over = []
            for i, task in enumerate(tasks):
                if results[i] is None and f"{i}.done" in names:
                    results[i] = group = _others(folder / f"{i}.done", task)
                    advance(group)
                elif results[i] is None:
                    attempt = 0
                    while f"{i}-{attempt}.claim" in names:
                        attempt += 1
                    if not attempt or self._gone(folder / f"{i}-{attempt - 1}.claim"):
                        over.append((i, attempt))
            if over or all(group is not None for group in results):
                return over
            if self.leads():
                time.sleep(LOOK_SECONDS)

    def _gone(self, claim: Path) -> bool:
        """Whether the member that made a claim is dead, or has left."""
        try:
            member = claim.read_text()
        except FileNotFoundError:
            return False
        file = self.root / f"{member}.member"
        holder = read_holder(file)
        if holder is None:
            return not file.exists()
        if member not in self._members:
            self._members[member] = Watch(holder, file.with_suffix(".beat"))
        return self._members[member].dead()


def _others(file: Path, task: PassTask) -> list[PartResult]:
    return msgspec.json.decode(file.read_bytes(), type=list[PartResult])


def pass_key(run: Run, steps: list[tuple[str, int]]) -> str:
    """What a pass is called among the members: all that its results depend on."""
    told = []
    for verb, at in steps:
        node = run.nodes[at]
        places = (node.measures, node.state, node.partials, node.verdicts, node.finished)
        told.append([verb, node.label, node.key, *(place.relative_to(run.store).as_posix() if place else "" for place in places)])
    return digest(run.inputs, told)


def planned(run: Run) -> dict[str, str]:
    """What members must have in common, by what to call it in a message."""
    recipe = run.recipe
    inside = run.store.is_relative_to(run.folder)
    found = {
        "recipe": digest(recipe.name, recipe.seed, recipe.corpus, recipe.emit, [s.label for s in recipe.stages])[:8],
        "inputs": digest(run.inputs, [(p.number, p.file) for p in run.parts])[:8],
        "targets": run.targets.key[:8],
        "store": run.store.relative_to(run.folder).as_posix() if inside else str(run.store),
        "publish": str(run.publish),
    }
    for node in run.nodes:
        source = registry.source_hash(type(node.stage))
        found[f"stage {node.label}"] = digest(node.stage.name, node.stage.version, source, node.spec.params)[:8]
    return found | {f"version of {name}": version for name, version in versions().items()}


def execute(make: Callable[[], Run], wait: float) -> Outcome:
    """Carry a run out together with all who join it; whoever comes first leads."""
    while True:
        run = make()
        try:
            with plainly(f"the run in {run.folder}"):
                return _take_part(run, wait)
        except WorkEndedError as end:
            if end.holder is not None:
                return run.joined(end.holder)
            time.sleep(LOOK_SECONDS)


def _take_part(run: Run, wait: float) -> Outcome:
    me = this_process()
    me = msgspec.structs.replace(me, joined=me.nonce)
    got = acquire(run.folder, wait=wait, mine=me, admit=lambda other: bool(other.joined))
    if isinstance(got, Lease):
        return _lead(run, me, got)
    return _follow(run, msgspec.structs.replace(me, joined=got.joined))


def _lead(run: Run, me: Holder, lease: Lease) -> Outcome:
    run.crew = crew = Crew(run.folder, me, lease, lambda _: None)
    run.scratch = run.scratch / me.nonce
    with ending(lease), _cleared(run, crew), ExitStack() as stack:
        run.lease = lease
        stack.callback(_left, run.scratch)
        empty(run.scratch.parent)  # of all who worked here before
        with crew.taking_part():
            return run.carry_out()


def _follow(run: Run, me: Holder) -> Outcome:
    """Take part in the passes; where the leader dies, lead."""
    with ExitStack() as stack:

        def promoted(lease: Lease) -> None:
            stack.enter_context(ending(lease))
            stack.enter_context(_cleared(run, crew))
            stack.enter_context(run.leading(lease))
            if crew.passes:
                run.say_started()

        run.crew = crew = Crew(run.folder, me, None, promoted)
        run.scratch = run.scratch / me.nonce
        stack.callback(_left, run.scratch)
        try:
            stack.enter_context(crew.taking_part())
            run.engine = stack.enter_context(LocalEngine(run.workers, run.task_timeout))
            run.written = stack.enter_context(noting())
            while not crew.begun():
                if crew.leads():
                    return run.work()
            run.plan()
            crew.agree(run)
            run.passes()
            while not crew.leads():
                pass
            return run.publish_all()
        except (WorkEndedError, RunHeldError):
            raise
        except Exception:
            if crew.lease is None and not crew.root.exists():
                crew.vanished()  # the work has ended, and took the scratch folder away under our hands
            raise


@contextlib.contextmanager
def _cleared(run: Run, crew: Crew) -> Iterator[None]:
    """Remove the claims when the work is done or has failed; one who is only interrupted leaves them to the others."""
    try:
        yield
    except BaseException as error:
        if failure(error)[0] != "interrupted":
            crew.clear()
            empty(run.scratch.parent)
        raise
    crew.clear()
    empty(run.scratch.parent)


def _left(scratch: Path) -> None:
    """Remove a member's own scratch folder, and that of all if it was the last."""
    empty(scratch)
    with contextlib.suppress(OSError):
        scratch.parent.rmdir()
