"""Chapters run side by side; whatever one of them does, the others finish, and it is named."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from panorama.course import CourseError, offline, processes, runner, worker
from panorama.course.runner import Options

MEMORY_MB = 400
EAT = """import time
eaten = []
while True:
    eaten.append(b"x" * 20_000_000)
    time.sleep(0.01)"""
KILL_PARENT = """import os, signal
from pathlib import Path
Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGKILL)
signal.pause()"""


def gone(pid: int) -> bool:
    """True when the process has ended, at once or within ten seconds."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        process.wait(timeout=10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.fixture(scope="module")
def faults(shared_book, tmp_path_factory):
    """One run of chapters that go wrong in every way we know, beside two that are well."""
    book = shared_book
    first = ([], "x = 1")
    pid_file = tmp_path_factory.mktemp("pid") / "kernel"
    chapters = [
        book.add("demo/well", first, "Text.", (["check"], "assert x == 1")),
        book.add("demo/raises", first, "Text.", ([], "y = 2\nassert x == y, 'not equal'"), first),
        book.add("demo/kernel_killed", first, ([], "import os; os.kill(os.getpid(), 9)")),
        book.add("demo/worker_killed", first, ([], KILL_PARENT)),
        book.add("demo/eats", first, ([], EAT)),
        book.add("demo/leaves", first, ([], "import sys; sys.exit()"), ([], "x = 2")),
        book.add("demo/invalid", first, course={"minutes": "many"}),
        book.add(
            "demo/parameter",
            (["parameters"], "epochs = 3"),
            course={"parameters": {"tiny": {"epoch": 1}}},
        ),
        book.add("demo/well_too", first, (["check"], "assert x == 1")),
    ]
    os.environ["PID_FILE"] = str(pid_file)
    options = Options(profile="tiny", jobs=4, memory_mb=MEMORY_MB)
    try:
        results = runner.run(chapters, options)
    finally:
        del os.environ["PID_FILE"]
    by_name = {result.chapter.removeprefix("demo/"): result for result in results}
    by_name["pid of the orphaned kernel"] = int(pid_file.read_text())
    return by_name


@pytest.mark.parametrize("name", ["well", "well_too"])
def test_the_others_finish(faults, name):
    result = faults[name]
    assert result.ok
    assert (result.cells_run, result.cells_left_out, result.checks) == (2, 0, 1)
    assert result.seconds > 0
    assert result.peak_memory_mb > 20


def test_an_exception_comes_with_its_cell_source_and_traceback(faults):
    error = faults["raises"].error
    assert (error["kind"], error["cell"]) == ("exception", 2)
    assert error["source"].startswith("y = 2")
    assert "not equal" in error["message"]
    assert "AssertionError" in error["traceback"]
    assert faults["raises"].cells_run == 2  # the third cell was not reached


def test_the_line_is_that_of_the_cell_in_the_page(faults, shared_book):
    page = (shared_book.root / "book/demo/raises.md").read_text().splitlines()
    assert page[faults["raises"].error["line"] - 1] == "y = 2"


def test_a_killed_kernel_is_reported_with_its_cell(faults):
    error = faults["kernel_killed"].error
    assert (error["kind"], error["cell"]) == ("killed", 2)


def test_a_killed_worker_is_reported_with_its_cell_and_its_kernel_dies(faults):
    error = faults["worker_killed"].error
    assert (error["kind"], error["cell"]) == ("killed", 2)
    assert "signal 9" in error["message"]
    assert gone(faults["pid of the orphaned kernel"])


def test_a_cell_that_never_ends_is_stopped_and_the_next_chapter_runs(book):
    hangs = book.add(
        "demo/hangs", ([], "x = 1"), ([], "import threading; threading.Event().wait()")
    )
    well = book.add("demo/well", ([], "x = 1"))
    results = runner.run([hangs, well], Options(timeout=5))
    by_name = {result.chapter: result for result in results}
    error = by_name["demo/hangs"].error
    assert (error["kind"], error["cell"]) == ("timeout", 2)
    assert "5 s" in error["message"]
    assert by_name["demo/well"].ok


def test_a_cell_that_eats_memory_is_stopped(faults):
    error = faults["eats"].error
    assert (error["kind"], error["cell"]) == ("memory", 2)
    assert "budget of 0.4 GB" in error["message"]
    assert faults["eats"].peak_memory_mb > MEMORY_MB


def test_a_cell_left_without_being_run_is_an_error(faults):
    """Papermill takes `sys.exit()` for success and drops the cells that follow."""
    error = faults["leaves"].error
    assert (error["kind"], error["source"]) == ("skipped", "x = 2")


def test_invalid_front_matter_names_file_and_field(faults):
    error = faults["invalid"].error
    assert error["kind"] == "invalid"
    assert error["message"].startswith("book/demo/invalid.md: course.minutes:")


def test_an_unknown_parameter_lists_the_valid_ones(faults):
    assert faults["parameter"].error["message"] == (
        "book/demo/parameter.md: unknown parameter epoch; valid are: epochs"
    )


def test_cells_of_the_other_framework_and_gpu_cells_are_left_out(book):
    chapter = book.add(
        "demo/frameworks",
        ([], "seen = []"),
        (["pytorch"], "seen.append('pytorch')"),
        (["tensorflow"], "seen.append('tensorflow')"),
        (["pytorch", "tensorflow"], "seen.append('both')"),
        (["gpu", "skip-execution"], "seen.append('gpu')"),
        (["check"], "print(seen)"),
    )

    def seen(**options):
        (result,) = runner.run([chapter], Options(keep=book.root / "out", **options))
        assert result.ok
        executed = json.loads((book.root / "out/demo/frameworks.ipynb").read_text())
        return result.cells_left_out, "".join(executed["cells"][-1]["outputs"][0]["text"]).strip()

    assert seen(frameworks=("pytorch",)) == (3, "['pytorch']")
    assert seen(gpu=True) == (0, "['pytorch', 'tensorflow', 'both', 'gpu']")


def test_a_profile_sets_its_parameters_and_set_goes_over_it(book):
    chapter = book.add(
        "demo/values",
        (["parameters"], "epochs = 3\nsize = 10"),
        (["check"], "assert (epochs, size) == (1, 5), (epochs, size)"),
        course={"parameters": {"tiny": {"epochs": 1, "size": 4}}},
    )
    (plain,) = runner.run([chapter], Options(profile="tiny"))
    (with_set,) = runner.run([chapter], Options(profile="tiny", set={"size": 5}))
    assert "(1, 4)" in plain.error["message"]
    assert with_set.ok


def test_time_over_the_budget_fails_and_slack_allows_for_a_slow_machine(book):
    busy = "import time\nwhile time.process_time() < 2:\n    pass"
    chapter = book.add(
        "demo/slow", ([], busy), course={"budget": {"seconds": 1, "reason": "a test of budgets"}}
    )
    assert runner.budget_seconds(chapter, Options(slack=5)) == 5
    (result,) = runner.run([chapter], Options(timeout=120))
    assert result.error["kind"] == "time"
    assert "the budget is 1 s" in result.error["message"]
    assert result.cells_run == 1  # it was not cut short


def test_waiting_for_a_busy_machine_does_not_count_as_time(book):
    chapter = book.add(
        "demo/waits",
        ([], "import threading; threading.Event().wait(2)"),
        course={"budget": {"seconds": 1, "reason": "a test of budgets"}},
    )
    (result,) = runner.run([chapter], Options(timeout=120))
    assert result.ok
    assert result.seconds > 1


def test_the_stub_of_an_exercise_must_fail_its_check(book):
    solution = "def f(x):\n    ### BEGIN SOLUTION\n    return x + 1\n    ### END SOLUTION"
    good = book.add("demo/good", (["solution"], solution), (["check"], "assert f(1) == 2"))
    bad = book.add("demo/bad", (["solution"], solution), (["check"], "assert callable(f)"))
    results = runner.run([good, bad], Options(prove=True, jobs=2))
    by_name = {result.chapter: result for result in results}
    assert by_name["demo/good"].ok
    assert by_name["demo/good"].cells_run == 2
    assert "the stub of this exercise passes its check" in by_name["demo/bad"].error["message"]


def test_a_kernel_has_one_thread_when_chapters_run_side_by_side():
    assert runner.environment(Options(jobs=2))["OMP_NUM_THREADS"] == "1"
    assert runner.environment(Options(jobs=1))["OMP_NUM_THREADS"] == str(runner.cores())


def test_without_gpu_the_gpu_is_hidden():
    assert runner.environment(Options())["CUDA_VISIBLE_DEVICES"] == "-1"
    visible = runner.environment(Options(gpu=True)).get("CUDA_VISIBLE_DEVICES")
    assert visible == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_gpu_without_cuda_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(CourseError, match="--gpu needs a CUDA GPU that pytorch can use"):
        runner.cuda_device(("pytorch",))


def recorded(book, name, seconds):
    chapter = book.add(name, ([], "x = 1"))
    if seconds is not None:
        metadata = {"recorded": {"default": {"seconds": seconds}}}
        chapter.notebook.parent.mkdir(parents=True, exist_ok=True)
        chapter.notebook.write_text(json.dumps({"metadata": metadata, "cells": []}))
    return chapter


def test_the_longest_chapter_starts_first_and_an_unknown_one_before_it(book):
    times = {"a": 10, "b": 30, "c": None, "d": 20}
    chapters = [recorded(book, name, seconds) for name, seconds in times.items()]
    assert [c.name for c in runner.longest_first(chapters)] == ["c", "b", "d", "a"]


def test_shards_share_the_chapters_out(book):
    chapters = [recorded(book, f"chapter{n}", n) for n in range(5)]
    parts = [runner.shard(chapters, f"{k}/2") for k in (1, 2)]
    assert [c.name[-1] for c in parts[0]] == ["4", "2", "0"]
    assert {c.name for part in parts for c in part} == {c.name for c in chapters}


@pytest.mark.parametrize("spec", ["0/2", "3/2", "2", "a/b"])
def test_an_impossible_shard_is_refused(book, spec):
    with pytest.raises(CourseError, match="valid are K/N"):
        runner.shard([], spec)


CONNECT = "import socket\nsocket.create_connection(({host!r}, {port}), timeout=5).close()"


def namespaces_permitted() -> bool:
    code = f"import runpy; own = runpy.run_path({offline.__file__!r})['own_network_namespace']"
    return subprocess.run([sys.executable, "-c", f"{code}; exit(not own())"]).returncode == 0


def test_offline_a_chapter_reaches_no_other_address(book):
    chapter = book.add("demo/outside", ([], CONNECT.format(host="192.0.2.1", port=80)))
    (result,) = runner.run([chapter], Options(offline=True, timeout=20))
    assert result.error["kind"] == "exception"
    assert "Network is unreachable" in result.error["message"]


def test_offline_a_chapter_is_cut_off_even_from_this_machine(book):
    """The same connection works online, so it is the namespace that prevents it."""
    if not namespaces_permitted():
        pytest.skip("this system permits no network namespace; the socket guard stands in for it")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = CONNECT.format(host="127.0.0.1", port=server.getsockname()[1])
        chapter = book.add("demo/inside", ([], connect))
        (online,) = runner.run([chapter], Options())
        (offline,) = runner.run([chapter], Options(offline=True))
    assert online.ok
    assert "Connection refused" in offline.error["message"]


def test_where_namespaces_are_not_permitted_a_guard_refuses(book, monkeypatch):
    monkeypatch.setenv("PANORAMA_OFFLINE", "guard")
    outside = CONNECT.format(host="192.0.2.1", port=80)
    named = CONNECT.format(host="example.org", port=80)
    chapters = [book.add("demo/address", ([], outside)), book.add("demo/name", ([], named))]
    for result in runner.run(chapters, Options(offline=True, jobs=2)):
        assert "Network is unreachable (run offline)" in result.error["message"]


@contextmanager
def waiting_run(book):
    """A `panorama run` whose chapter has started and waits for ever; gives it and its kernel."""
    book.root.joinpath("kernel").unlink(missing_ok=True)
    fifo = book.root / "kernel"
    os.mkfifo(fifo)
    wait = f"import os, signal\nopen({str(fifo)!r}, 'w').write(str(os.getpid()))\nsignal.pause()"
    book.add("demo/waits", ([], wait))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [sys.executable, "-m", "panorama.cli", "run"]
    folder = {**os.environ, "TMPDIR": str(book.root)}  # a killed command cannot tidy up
    process = subprocess.Popen(
        command, cwd=book.root, env=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        ready, _, _ = select.select([reader], [], [], 30)
        assert ready, "the chapter did not start"
        kernel = int(os.read(reader, 100))
        yield process, kernel
    finally:
        os.close(reader)
        process.kill()
        process.communicate()


def test_ctrl_c_stops_the_kernels(book):
    with waiting_run(book) as (process, kernel):
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "interrupted" in stderr
        assert "Traceback" not in stderr
        assert gone(kernel)


def test_a_killed_command_leaves_no_kernel_behind(book):
    with waiting_run(book) as (process, kernel):
        process.kill()
        assert gone(kernel)


def test_versions_are_those_of_the_imported_packages():
    from types import SimpleNamespace

    cells = [SimpleNamespace(source="import math\nimport numpy as np\n%matplotlib inline")]
    assert list(worker.versions(cells)) == ["numpy"]


def test_the_report_holds_every_result(faults, tmp_path):
    results = [result for result in faults.values() if isinstance(result, runner.Result)]
    runner.write_report(tmp_path / "report.json", results, Options(profile="tiny"))
    report = json.loads(Path(tmp_path / "report.json").read_text())
    assert report["profile"] == "tiny"
    assert report["ok"] is False
    assert [c["chapter"] for c in report["chapters"] if c["ok"]] == ["demo/well", "demo/well_too"]


FORK = """import os, time
held = bytearray(b"x" * 200_000_000)
if all(os.fork() for _ in range(2)):
    print("ready", flush=True)
time.sleep(60)"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which memory is shared")
def test_memory_that_a_process_shares_with_its_children_counts_once():
    parent = subprocess.Popen([sys.executable, "-c", FORK], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "ready\n"
        monitor = processes.Monitor(parent.pid, limit_mb=None)
        monitor.sample()
        assert len(psutil.Process(parent.pid).children()) == 2
        assert 200 < monitor.peak_mb < 400
    finally:
        processes.kill_tree(parent.pid)
        parent.wait()
        parent.stdout.close()


def test_a_chapter_may_declare_more_memory_for_its_default_run(book):
    budget = {"seconds": 300, "memory_mb": 7000, "reason": "it exports a large network"}
    chapter = book.add("demo/large", ([], "x = 1"), course={"budget": budget})
    assert runner.budget_memory(chapter, Options(profile="default")) == 7000
    assert runner.budget_memory(chapter, Options(profile="tiny")) == 3000
    assert runner.budget_memory(chapter, Options(profile="default", memory_mb=400)) == 400
