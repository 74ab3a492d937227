"""One chapter in one process: `python -m panorama.course.worker JOB.json`, started by the runner.

Standard output carries events, one JSON object a line. The executed notebook and the result are
files that the job names. When standard input ends (the runner is gone) this process and its kernel
end too.
"""

import copy
import json
import logging
import os
import platform
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from panorama.course import CourseError
from panorama.course.chapters import Chapter, code_cells, tags
from panorama.course.engine import RunError
from panorama.course.exercises import with_proofs
from panorama.course.processes import kill_tree
from panorama.course.schema import refuse_unknown
from panorama.course.sources import imports


def main(job_path: str) -> None:
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    result = run_chapter(job)
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def _end_with_the_runner() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would disturb the interpreter's exit
        continue
    kill_tree(os.getpid())


def send(event: str, **details) -> None:
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def run_chapter(job: dict) -> dict:
    """Execute the chapter as the job says. Returns the fields of a `runner.Result`."""
    chapter = Chapter(Path(job["root"]), job["chapter"])
    try:
        parameters = {**chapter.course.values(job["profile"]), **job["set"]}
        refuse_unknown(parameters, chapter.parameters, chapter.where)
        nb = copy.deepcopy(chapter.nb)
    except CourseError as error:
        return {"chapter": chapter.name, "error": {"kind": "invalid", "message": str(error)}}
    for number, cell in enumerate(nb.cells):
        cell.metadata["course_cell"] = number  # survives what papermill and the proofs add
    wanted = [cell for cell in code_cells(nb) if not tags(cell) & set(job["leave_out"])]
    left_out = len(code_cells(nb)) - len(wanted)
    if job["prove"]:
        with_proofs(nb, job["leave_out"])
    started = time.monotonic()
    nb, usage, error = _execute(chapter, nb, parameters, job, len(wanted))
    seconds = time.monotonic() - started
    ran = [cell for cell in code_cells(nb) if _is_own(cell) and cell.execution_count is not None]
    if error is None:
        error = _over_budget(seconds, usage["cpu_seconds"], job["seconds"])
        nbformat.write(nb, job["executed"])
    return {
        "chapter": chapter.name,
        "ok": error is None,
        "error": error,
        "seconds": round(seconds, 2),
        **usage,
        "cells": len(wanted),
        "cells_run": len(ran),
        "cells_left_out": left_out,
        "checks": sum("check" in tags(cell) for cell in ran),
        "provenance": {"python": platform.python_version(), "versions": versions(ran)},
    }


def _execute(chapter, nb, parameters, job, total):
    """Papermill's run with our engine: the executed notebook, its usage, and the error or None."""
    usage = {"peak_memory_mb": 0, "cpu_seconds": 0.0}
    done, error = 0, None

    def on_event(name, **details):
        nonlocal nb, done
        if name == "notebook":
            nb = details["nb"]  # papermill works on a copy, and returns nothing when a cell fails
        elif name == "usage":
            usage.update(details)
        elif name == "cell":
            cell = nb.cells[details["index"]]
            done += _is_own(cell)
            send("cell", done=done, total=total, **describe(chapter, cell))
        else:
            send(name, **details)

    try:
        papermill.execute_notebook(
            nb,
            None,
            parameters=parameters,
            engine_name="panorama",
            kernel_name="python3",
            progress_bar=False,
            cwd=job["folder"],
            leave_out=job["leave_out"],
            memory_mb=job["memory_mb"],
            execution_timeout=job["timeout"],
            on_event=on_event,
        )
    except PapermillExecutionError as raised:
        error = {"kind": "exception", "message": f"{raised.ename}: {raised.evalue}".strip()}
        error |= {"traceback": "\n".join(raised.traceback), **describe(chapter, _raising(nb))}
    except RunError as raised:
        error = {"kind": raised.kind, "message": str(raised)}
        error |= describe(chapter, raised.cell) if raised.cell is not None else {}
    except Exception as raised:  # the kernel did not start, say: the runner shows it
        error = {"kind": "start", "message": f"{type(raised).__name__}: {raised}"}
    return nb, usage, error


def _is_own(cell) -> bool:
    """True for a cell of the page, False for one that papermill or the proofs added."""
    return "course_cell" in cell.metadata and "proof" not in cell.metadata


def _raising(nb):
    """The cell that raised; papermill's own index counts the marker cells that it inserts."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    return next(c for c in code if any(o.output_type == "error" for o in c.outputs))


def _over_budget(seconds: float, cpu_seconds: float, budget: float) -> dict | None:
    """A busy machine stretches the wall time but not the CPU time: both must be over the budget."""
    if min(seconds, cpu_seconds) <= budget:
        return None
    used = f"{seconds:.0f} s ({cpu_seconds:.0f} s of CPU)"
    return {"kind": "time", "message": f"took {used}; the budget is {budget:.0f} s"}


def describe(chapter: Chapter, cell) -> dict:
    """Where a cell stands: its number among the code cells (from 1), its line, its source. The cell
    that papermill adds for the parameters has the number 0."""
    number = cell.metadata.get("course_cell")
    if number is None:
        return {"cell": 0, "line": 1, "source": cell.source}
    count = sum(other.cell_type == "code" for other in chapter.nb.cells[: number + 1])
    return {"cell": count, "line": chapter.lines[number], "source": cell.source}


def versions(cells) -> dict[str, str]:
    """Distribution versions of the packages that the cells import, without the standard library."""
    names = {name for cell in cells for name, _ in imports(cell.source)}
    distributions = metadata.packages_distributions()
    found = {}
    for name in sorted(names - set(sys.stdlib_module_names) - {"panorama"}):
        if name in distributions:
            found[name] = metadata.version(distributions[name][0])
    return found


if __name__ == "__main__":
    main(sys.argv[1])
