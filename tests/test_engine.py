"""The local engine: a function over tasks in processes, whatever the processes do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import engine_tasks
import pytest
from engine_tasks import Task

from curate.engine import LocalEngine, in_order
from curate.errors import DataError, InternalError, StageError


def tasks(folder: Path, *whats: str) -> list[Task]:
    return [Task(n, what, folder) for n, what in enumerate(whats)]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_come_in_the_order_of_the_tasks(tmp_path: Path, workers: int) -> None:
    heard: list[int] = []
    with LocalEngine(workers) as engine:
        found = engine.map("engine_tasks:work", tasks(tmp_path, *["square"] * 9), heard.append)
        again = engine.map("engine_tasks:work", tasks(tmp_path, *["square"] * 3))
    assert found == [n * n for n in range(9)]
    assert sorted(heard) == found
    assert again == [0, 1, 4]


def test_one_worker_is_this_process_and_more_are_others(tmp_path: Path) -> None:
    with LocalEngine(1) as engine:
        assert set(engine.map("engine_tasks:work", tasks(tmp_path, "who", "who"))) == {os.getpid()}
    with LocalEngine(2) as engine:
        assert os.getpid() not in engine.map("engine_tasks:work", tasks(tmp_path, "who", "who"))


def test_no_tasks_give_no_results() -> None:
    with LocalEngine(2) as engine:
        assert engine.map("engine_tasks:work", []) == []


def test_workers_outlive_a_pass_and_end_with_the_engine(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        first = set(engine.map("engine_tasks:work", tasks(tmp_path, *["who"] * 8)))
        second = set(engine.map("engine_tasks:work", tasks(tmp_path, *["who"] * 8)))
    assert second <= first | second
    assert len(first | second) <= 2
    for process in first | second:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_its_class_and_message_and_stops_the_rest(tmp_path: Path, workers: int) -> None:
    with LocalEngine(workers) as engine:
        with pytest.raises(DataError, match=r"^expected a text, got none: pool\.jsonl, row 3$"):
            engine.map("engine_tasks:work", tasks(tmp_path, "square", "bad data", *["square"] * 20))
        assert engine.map("engine_tasks:work", tasks(tmp_path, "square", "square")) == [0, 1]


def test_an_unforeseen_error_in_a_worker_says_where_it_was_raised(tmp_path: Path) -> None:
    with LocalEngine(2) as engine, pytest.raises(StageError, match=r"(?s)ZeroDivisionError.*engine_tasks\.py"):
        engine.map("engine_tasks:work", tasks(tmp_path, "square", "divide by zero"))


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        assert engine.map("engine_tasks:work", tasks(tmp_path, "square", "die once", "square", "die once", "square")) == [0, 1, 4, 9, 16]


def test_workers_lost_in_one_pass_are_there_in_the_next(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        assert engine.map("engine_tasks:work", tasks(tmp_path, *["die once"] * 4)) == [0, 1, 4, 9]
        assert engine.map("engine_tasks:work", tasks(tmp_path, "square", "square", "square")) == [0, 1, 4]


def test_a_task_that_kills_two_workers_is_named(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        with pytest.raises(InternalError, match=r"^task 1 killed its worker twice \(signal 9\)"):
            engine.map("engine_tasks:work", tasks(tmp_path, "square", "die", "square"))
        assert engine.map("engine_tasks:work", tasks(tmp_path, "square", "square")) == [0, 1]


def test_a_worker_that_leaves_by_itself_is_told_by_its_exit_code(tmp_path: Path) -> None:
    with LocalEngine(2) as engine, pytest.raises(InternalError, match=r"^task 0 killed its worker twice \(exit 9\)"):
        engine.map("engine_tasks:work", tasks(tmp_path, "leave", "square"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_takes_too_long_is_tried_once_more_in_a_fresh_worker(tmp_path: Path, workers: int) -> None:
    with LocalEngine(workers, task_timeout=4) as engine:
        assert engine.map("engine_tasks:work", tasks(tmp_path, "hang once")) == [0]
        assert engine.map("engine_tasks:work", tasks(tmp_path, "square", "square", "square")) == [0, 1, 4]
    assert (tmp_path / "hung-0").exists()


def test_a_task_that_takes_too_long_twice_is_named_and_the_engine_goes_on(tmp_path: Path) -> None:
    with LocalEngine(2, task_timeout=3) as engine:
        with pytest.raises(StageError, match=r"^task 1: two workers were ended, the last after 3 s at it, the limit of --task-timeout"):
            engine.map("engine_tasks:work", tasks(tmp_path, "square", "hang", "square"))
        assert engine.map("engine_tasks:work", tasks(tmp_path, "square", "square")) == [0, 1]


@pytest.mark.parametrize("what", ["answer with a lambda", "answer what cannot be read"])
def test_an_answer_that_cannot_travel_is_an_error_and_no_hang(tmp_path: Path, what: str) -> None:
    with LocalEngine(2) as engine, pytest.raises((InternalError, StageError)):
        engine.map("engine_tasks:work", tasks(tmp_path, "square", what))


def test_a_task_that_cannot_travel_is_an_error_and_no_hang() -> None:
    unsendable: list[Any] = [lambda: None, lambda: None]
    with LocalEngine(2) as engine, pytest.raises(InternalError, match="a message could not be sent or understood"):
        engine.map("engine_tasks:work", unsendable)


def test_what_a_stage_prints_or_reads_does_not_break_the_messages(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        assert engine.map("engine_tasks:work", tasks(tmp_path, "print", "print", "read standard input")) == [0, 1, ""]


def test_a_large_message_travels_both_ways(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        found = engine.map("engine_tasks:echo", [b"x" * 3_000_000, b"y" * 3_000_000])
    assert [len(value) for value in found] == [3_000_000] * 2
    del tmp_path


def test_one_thread_per_worker_and_no_interrupts(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        threads, handler, blocked = engine.map("engine_tasks:work", tasks(tmp_path, "surroundings", "square"))[0]
    assert threads == os.environ.get("OMP_NUM_THREADS", "1")
    assert handler == signal.SIG_IGN
    assert signal.SIGINT not in blocked


def test_a_script_without_a_main_guard_runs_once_and_its_workers_find_its_modules(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def double(task):\n    return task * 2\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from curate.engine import LocalEngine\nprint('once')\n"
        "with LocalEngine(2) as engine:\n    print(engine.map('beside:double', [1, 2, 3]))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "once\n[2, 4, 6]\n", done.stderr


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\nfrom curate.engine import LocalEngine\nfrom engine_tasks import Task\n"
        "with LocalEngine(2) as engine:\n    engine.map('engine_tasks:work', [Task(n, 'kill the parent', Path(sys.argv[2])) for n in range(2)])\n"
    )
    read, write = os.pipe()  # its writing end is open in the script and in all that it starts
    done = subprocess.Popen([sys.executable, str(script), str(Path(engine_tasks.__file__).parent), str(tmp_path)], pass_fds=[write])
    os.close(write)
    assert done.wait(timeout=60) == -signal.SIGKILL
    assert os.read(read, 1) == b""  # returns when nobody is left who could write
    os.close(read)


def test_consecutive_small_items_share_a_group_and_large_ones_stand_alone() -> None:
    sizes = [1, 1, 1, 5, 9, 1, 1]
    assert list(in_order("abcdefg", sizes, 4)) == [["a", "b", "c"], ["d"], ["e"], ["f", "g"]]
    assert list(in_order("abc", [4, 4, 4], 12)) == [["a", "b", "c"]]
    assert list(in_order("", [], 4)) == []
