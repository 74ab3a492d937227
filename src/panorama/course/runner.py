"""Run chapters in parallel processes, and lose none when one fails, hangs, is killed or eats
memory."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from panorama.course import FRAMEWORKS, CourseError
from panorama.course.chapters import Chapter
from panorama.course.schema import refuse_unknown

# Seconds and megabytes on two CPU cores, one chapter at a time.
SECONDS = {"tiny": 30, "default": 180, "full": 1800}
SECONDS_TINY_BOTH_FRAMEWORKS = 45
MEMORY_MB = {"tiny": 3000, "default": 6000, "full": None}
TIMEOUT_FACTOR = 4  # a chapter over its budget is reported; at this multiple it is killed
GRACE = 60  # seconds for a kernel's start, after which the worker itself is killed


@dataclass
class Options:
    """How to run. `slack` multiplies the time budgets, for machines slower than two current cores;
    `timeout` (seconds a chapter) replaces four times the budget; `memory_mb` replaces the
    budget."""

    profile: str = "default"
    frameworks: tuple[str, ...] = FRAMEWORKS
    gpu: bool = False
    jobs: int = 1
    offline: bool = False
    prove: bool = False  # that the stub of every exercise fails its check
    slack: float = 1.0
    timeout: float | None = None
    memory_mb: float | None = None
    set: dict[str, Any] = field(default_factory=dict)
    keep: Path | None = None  # a folder for the executed notebooks

    @property
    def leave_out(self) -> list[str]:
        missing = [name for name in FRAMEWORKS if name not in self.frameworks]
        return missing if self.gpu else [*missing, "gpu", "skip-execution"]


@dataclass
class Result:
    """What became of one chapter. `error` is None or has `kind`, `message`, and for an error in a
    cell its number among the code cells, its line in the page, its source and its traceback. Kinds:
    exception, timeout, killed, memory, time, skipped, invalid, start, stopped."""

    chapter: str
    ok: bool = False
    error: dict | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: int = 0
    cells: int = 0
    cells_run: int = 0
    cells_left_out: int = 0
    checks: int = 0
    provenance: dict = field(default_factory=dict)


def budget_memory(chapter: Chapter, options: Options) -> float | None:
    """The memory budget of a chapter in this profile, in MB; None for no limit."""
    if options.memory_mb:
        return options.memory_mb
    if options.profile == "default" and chapter.course.budget and chapter.course.budget.memory_mb:
        return chapter.course.budget.memory_mb
    return MEMORY_MB[options.profile]


def budget_seconds(chapter: Chapter, options: Options) -> float:
    """The time budget of a chapter in this profile, `slack` included."""
    both = set(FRAMEWORKS) <= set(chapter.course.frameworks) & set(options.frameworks)
    seconds = SECONDS[options.profile]
    if options.profile == "tiny" and both:
        seconds = SECONDS_TINY_BOTH_FRAMEWORKS
    if options.profile == "default" and chapter.course.budget:
        seconds = chapter.course.budget.seconds
    return seconds * options.slack


def longest_first(chapters: list[Chapter]) -> list[Chapter]:
    """By recorded duration; those never recorded come first, since they may be long."""

    def duration(chapter):
        return chapter.recorded().get("default", {}).get("seconds", float("inf"))

    return sorted(chapters, key=lambda chapter: (-duration(chapter), chapter.name))


def shard(chapters: list[Chapter], spec: str) -> list[Chapter]:
    """Part K of N (`"1/3"`): the chapters dealt out longest first, so that the parts take alike."""
    try:
        part, parts = map(int, spec.split("/"))
        if not 1 <= part <= parts:
            raise ValueError
    except ValueError:
        raise CourseError(f"unknown shard {spec}; valid are K/N with 1 <= K <= N, as 1/3") from None
    return longest_first(chapters)[part - 1 :: parts]


def check_set(chapters: list[Chapter], given: dict[str, Any]) -> None:
    """Every name given with `--set` must be a parameter of every chapter."""
    for chapter in chapters:
        if given:
            refuse_unknown(given, chapter.parameters, chapter.where)


def cuda_device(frameworks: tuple[str, ...]) -> str:
    """The name of the CUDA device; a `CourseError` if the framework sees none."""
    torch = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    tensorflow = (
        "import tensorflow as tf; c = tf.config; d = c.list_physical_devices('GPU');"
        "print(c.experimental.get_device_details(d[0]).get('device_name', 'GPU') if d else '')"
    )
    for name, code in (("pytorch", torch), ("tensorflow", tensorflow)):
        if name in frameworks:
            found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            lines = found.stdout.strip().splitlines()
            if found.returncode == 0 and lines:
                return lines[-1]
    raise CourseError(
        f"--gpu needs a CUDA GPU that {' or '.join(frameworks)} can use, and none was found here; "
        "leave --gpu out to run on the CPU"
    )


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(options: Options) -> dict[str, str]:
    """The kernels' environment: threads for `jobs` side by side, a fixed hash seed, inline figures,
    and the GPU hidden unless it was asked for."""
    threads = str(1 if options.jobs > 1 else cores())
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")  # fmt: skip
    result = {**os.environ, **dict.fromkeys(names, threads), "PYTHONHASHSEED": "0"}
    result["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    result["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if not options.gpu:
        result["CUDA_VISIBLE_DEVICES"] = "-1"
    return result


Listener = Callable[[str, Chapter, dict], None]


def run(chapters: list[Chapter], options: Options, listen: Listener | None = None) -> list[Result]:
    """Run the chapters, `options.jobs` at a time, longest first. Never raises for a chapter.

    `listen(event, chapter, details)` hears `start`, `cell` and `end`, from several threads.
    On KeyboardInterrupt every process is killed before the exception goes on.
    """
    runner = _Runner(options, listen or (lambda event, chapter, details: None))
    pool = ThreadPoolExecutor(max(1, options.jobs))
    try:
        futures = [pool.submit(runner.one, chapter) for chapter in longest_first(chapters)]
        return [future.result() for future in as_completed(futures)]
    except BaseException:
        runner.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Runner:
    def __init__(self, options: Options, listen: Listener):
        self.options, self.listen = options, listen
        self.environment = environment(options)
        self.stopped = False
        self.workers: set[subprocess.Popen] = set()
        self.lock = threading.Lock()

    def stop(self):
        from panorama.course.processes import kill_tree

        with self.lock:
            self.stopped = True
            for worker in self.workers:
                kill_tree(worker.pid)

    def one(self, chapter: Chapter) -> Result:
        result = Result(chapter.name)
        try:
            if not self.stopped:
                self.listen("start", chapter, {})
                with tempfile.TemporaryDirectory(prefix="panorama-") as folder:
                    result = self.execute(chapter, Path(folder))
        except CourseError as error:
            result.error = {"kind": "invalid", "message": str(error)}
        except Exception as error:  # the others must go on
            result.error = {"kind": "start", "message": f"{type(error).__name__}: {error}"}
        if not self.stopped:
            self.listen("end", chapter, {"result": result})
        return result

    def execute(self, chapter: Chapter, folder: Path) -> Result:
        from panorama.course.processes import kill_tree

        options = self.options
        seconds = budget_seconds(chapter, options)
        timeout = options.timeout or TIMEOUT_FACTOR * seconds
        keep = Path(options.keep or folder) / f"{chapter.name}.ipynb"
        keep.parent.mkdir(parents=True, exist_ok=True)
        scratch = folder / "work"
        scratch.mkdir()
        job = {
            "root": str(chapter.root),
            "chapter": chapter.name,
            "profile": options.profile,
            "set": options.set,
            "leave_out": options.leave_out,
            "prove": options.prove,
            "seconds": seconds,
            "timeout": timeout,
            "memory_mb": budget_memory(chapter, options),
            "executed": str(keep),
            "folder": str(scratch),  # a chapter depends on no file of the checkout, as in Colab
            "result": str(folder / "result.json"),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "panorama.course.worker", str(folder / "job.json")]
        if options.offline:
            command = [sys.executable, str(Path(__file__).with_name("offline.py")), *command]
        kernel, cell, late = None, {}, threading.Event()
        private = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder)}
        with (folder / "stderr").open("w+") as stderr:
            with self.lock:
                if self.stopped:
                    return Result(chapter.name, error={"kind": "stopped", "message": "not run"})
                worker = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    env={**self.environment, **private},
                    start_new_session=True,
                )
                self.workers.add(worker)

            def too_late():
                late.set()
                kill_tree(worker.pid)

            watchdog = threading.Timer(timeout + GRACE, too_late)
            watchdog.start()
            try:
                for line in worker.stdout:
                    event = json.loads(line) if line.startswith('{"event"') else {}
                    if event.get("event") == "kernel":
                        kernel = event["pid"]
                    elif event.get("event") == "cell":
                        cell = event
                        self.listen("cell", chapter, event)
                code = worker.wait()
            finally:
                watchdog.cancel()
                worker.stdin.close()
                worker.stdout.close()
                with self.lock:
                    self.workers.discard(worker)
            stderr.seek(0)
            noise = stderr.read().strip()
        try:
            return Result(**json.loads((folder / "result.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            kill_tree(kernel)  # a worker that was killed leaves its kernel behind
        if self.stopped:
            return Result(chapter.name, error={"kind": "stopped", "message": "interrupted"})
        error = {key: cell[key] for key in ("cell", "line", "source") if key in cell}
        if late.is_set():
            error.update(kind="timeout", message=f"no answer {GRACE} s after the time-out")
        else:
            cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            last = f": {noise.splitlines()[-1]}" if noise else ""
            error.update(kind="killed", message=f"the chapter's process ended with {cause}{last}")
            error["traceback"] = noise[-4000:]
        return Result(chapter.name, error=error)


def write_report(path: Path, results: list[Result], options: Options) -> None:
    """The run as JSON: the options, and each chapter's `Result`."""
    from panorama.course.chapters import write_atomically

    head = {"profile": options.profile, "frameworks": list(options.frameworks)}
    head |= {"gpu": options.gpu, "jobs": options.jobs, "ok": all(r.ok for r in results)}
    body = sorted((asdict(result) for result in results), key=lambda item: item["chapter"])
    write_atomically(path, json.dumps({**head, "chapters": body}, indent=1) + "\n")
