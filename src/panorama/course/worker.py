"""One chapter in one process: `python -m panorama.course.worker JOB.json`, started by the runner.

Standard output carries events, one JSON object a line. The executed notebook and the result are
files that the job names. When standard input ends (the runner is gone) this process and its kernel
end too.
"""

import ctypes
import json
import logging
import os
import platform
import sys
import threading
import time
from pathlib import Path


def main(job_path: str) -> None:
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    if job["offline"]:
        leave_the_network()
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    result = run_chapter(job)
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def _end_with_the_runner() -> None:
    from panorama.course.processes import kill_tree

    while os.read(0, 4096):  # not sys.stdin: its lock would disturb the interpreter's exit
        continue
    kill_tree(os.getpid())


def leave_the_network() -> None:
    """Move this process, and so its kernel, into a network namespace that holds only the loopback
    device. Where that is not permitted, put a socket guard on the kernels' PYTHONPATH instead."""
    os.environ.update(HF_HUB_OFFLINE="1", YOLO_OFFLINE="1")
    if os.environ.get("PANORAMA_OFFLINE") != "guard" and _own_network_namespace():
        return
    paths = [str(Path(__file__).with_name("guard")), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def _own_network_namespace() -> bool:
    """Linux only. Without privileges it takes a user namespace, with this user mapped to itself."""
    new_user, new_network = 0x10000000, 0x40000000
    try:
        import fcntl
        import socket
        import struct

        libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
        if libc.unshare(new_network) != 0:
            if libc.unshare(new_user | new_network) != 0:
                return False
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            set_flags, up_and_running = 0x8914, 0x41
            request = struct.pack("16sh14x", b"lo", up_and_running)
            fcntl.ioctl(device, set_flags, request)
    except (OSError, AttributeError, ImportError):
        return False
    return True


def send(event: str, **details) -> None:
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def run_chapter(job: dict) -> dict:
    """Execute the chapter as the job says. Returns the result; see `runner.Result` for the
    fields."""
    import copy

    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from panorama.course import CourseError
    from panorama.course.chapters import Chapter, code_cells, tags
    from panorama.course.engine import RunError
    from panorama.course.exercises import with_proofs
    from panorama.course.schema import refuse_unknown

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    chapter = Chapter(Path(job["root"]), job["chapter"])
    usage = {"peak_memory_mb": 0, "cpu_seconds": 0.0}
    result = {"chapter": chapter.name, "ok": False, "error": None, "seconds": 0.0}
    started = time.monotonic()
    try:
        parameters = {**chapter.course.values(job["profile"]), **job["set"]}
        refuse_unknown(parameters, chapter.parameters, chapter.where)
        nb = copy.deepcopy(chapter.nb)
    except CourseError as error:
        return {**result, "error": {"kind": "invalid", "message": str(error)}}
    for number, cell in enumerate(nb.cells):
        cell.metadata["course_cell"] = number  # survives papermill's own additions
    run = [c for c in code_cells(nb) if not tags(c) & set(job["leave_out"])]
    result.update(cells=len(run), cells_left_out=len(code_cells(nb)) - len(run))
    if job["prove"]:
        with_proofs(nb, job["leave_out"])
    executed, done = None, 0

    def on_event(name, **details):
        nonlocal nb, done
        if name == "usage":
            usage.update(details)
        elif name == "notebook":
            nb = details["nb"]  # papermill works on a copy, and returns nothing when a cell fails
        elif name == "cell":
            cell = nb.cells[details["index"]]
            number = cell.metadata.get("course_cell")
            done += number is not None and "proof" not in cell.metadata
            send("cell", done=done, total=len(run), **describe(chapter, number, cell.source))
        else:
            send(name, **details)

    try:
        executed = papermill.execute_notebook(
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
    except PapermillExecutionError as error:
        cell = _cell_that_failed(nb, error)
        result["error"] = {
            "kind": "exception",
            "message": f"{error.ename}: {error.evalue}".strip(),
            "traceback": "\n".join(error.traceback),
            **describe(chapter, cell.metadata.get("course_cell"), cell.source),
        }
    except RunError as error:
        result["error"] = {"kind": error.kind, "message": str(error)}
        if error.cell is not None:
            number = error.cell.metadata.get("course_cell")
            result["error"].update(describe(chapter, number, error.cell.source))
    except (CourseError, DeadKernelError, RuntimeError, ValueError) as error:
        result["error"] = {"kind": "start", "message": f"{type(error).__name__}: {error}"}
    seconds = time.monotonic() - started
    result.update(seconds=round(seconds, 2), **usage)
    ran = [c for c in code_cells(nb) if c.execution_count is not None]
    ran = [c for c in ran if "course_cell" in c.metadata and "proof" not in c.metadata]
    result.update(cells_run=len(ran), checks=sum("check" in tags(c) for c in ran))
    # A busy machine stretches the wall time but not the CPU time, so both must be over the budget.
    used = min(seconds, usage["cpu_seconds"])
    if result["error"] is None and job["seconds"] and used > job["seconds"]:
        message = f"{seconds:.0f} s ({usage['cpu_seconds']:.0f} s of CPU)"
        message = f"took {message}; the budget is {job['seconds']:.0f} s"
        result["error"] = {"kind": "time", "message": message}
    result["ok"] = result["error"] is None
    if executed is not None:
        nbformat.write(executed, job["executed"])
        result["provenance"] = {"python": platform.python_version(), "versions": versions(ran)}
    return result


def describe(chapter, number: int | None, source: str) -> dict:
    """Where a cell stands: its number among the code cells (from 1), its line, its source."""
    if number is None:
        return {"cell": 0, "line": 1, "source": source}
    cells = chapter.nb.cells[: number + 1]
    count = sum(cell.cell_type == "code" for cell in cells)
    return {"cell": count, "line": chapter.lines[number], "source": source}


def _cell_that_failed(nb, error):
    """The cell of `nb` that raised: papermill's own index counts the marker cells it inserted."""
    for cell in nb.cells:
        if cell.cell_type == "code" and any(o.output_type == "error" for o in cell.outputs):
            return cell
    return nb.cells[min(error.cell_index, len(nb.cells) - 1)]


def versions(cells) -> dict[str, str]:
    """Distribution versions of the packages that the cells import, without the standard library."""
    from importlib import metadata

    from panorama.course.sources import imports

    names = {name for cell in cells for name, _ in imports(cell.source)}
    distributions = metadata.packages_distributions()
    found = {}
    for name in sorted(names - set(sys.stdlib_module_names) - {"panorama"}):
        if name in distributions:
            found[name] = metadata.version(distributions[name][0])
    return found


if __name__ == "__main__":
    main(sys.argv[1])
