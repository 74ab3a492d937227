"""A papermill engine that adds what papermill lacks: leaving out cells by several tags, and errors
where papermill is silent (an unknown parameter, a cell that did not run) or blind (memory, time).

Registered under the entry point `papermill.engine` as `panorama`. Papermill imports this module
when it is imported itself, so import papermill before this module.
"""

import sys
import time
from collections.abc import Callable

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine

from panorama.course.chapters import code_cells, tags
from panorama.course.processes import Monitor
from panorama.course.schema import literal_parameters, refuse_unknown


class RunError(Exception):
    """A chapter did not run as it should. `kind` is a word, `cell` the notebook's cell or None."""

    def __init__(self, kind: str, message: str, cell=None):
        super().__init__(message)
        self.kind, self.cell = kind, cell


class ThisInterpreter(KernelSpecManager):
    """Kernels run in the interpreter that runs this, whatever kernelspecs the machine has."""

    def get_kernel_spec(self, kernel_name):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


class Client(PapermillNotebookClient):
    """nbclient with a deadline for the whole notebook and a set of tags to leave out."""

    def __init__(self, nb_man, leave_out, on_event, **options):
        self.leave_out, self.on_event = set(leave_out), on_event
        self.current = None
        super().__init__(nb_man, skip_cells_with_tag="", **options)

    def start_clock(self, seconds: float):
        """From now on the cells share `seconds`."""
        end = time.monotonic() + seconds
        self.timeout_func = lambda cell: max(0.01, end - time.monotonic())

    def leaves_out(self, cell) -> bool:
        return bool(self.leave_out & tags(cell))

    def execute_cell(self, cell, cell_index, **options):
        if cell.cell_type != "code" or not cell.source.strip() or self.leaves_out(cell):
            return cell
        self.current = cell
        self.on_event("cell", index=cell_index)
        return super().execute_cell(cell, cell_index, **options)


class PanoramaEngine(Engine):
    """`papermill.execute_notebook(..., engine_name="panorama", ...)` with these extra arguments.

    leave_out: tags; a cell that has any of them is left out. `gpu` and `skip-execution` by default.
    memory_mb: the budget of the kernel and its children; beyond it they are killed.
    execution_timeout: seconds for all cells together, after which the kernel is killed.
    on_event: called as on_event("notebook", nb=…), on_event("kernel", pid=…), on_event("cell",
        index=…) and at the end on_event("usage", peak_memory_mb=…, cpu_seconds=…).

    Raises `RunError` (kinds: timeout, killed, memory, skipped) or `CourseError`; an exception in a
    cell is papermill's `PapermillExecutionError`, as always.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man,
        kernel_name,
        leave_out=("gpu", "skip-execution"),
        memory_mb: float | None = None,
        execution_timeout: float | None = None,
        on_event: Callable = lambda name, **details: None,
        start_timeout=60,
        log_output=False,
        **ignored,
    ):
        on_event("notebook", nb=nb_man.nb)
        cls.check_parameters(nb_man.nb)
        manager = AsyncKernelManager(kernel_spec_manager=ThisInterpreter())
        client = Client(
            nb_man,
            leave_out,
            on_event,
            km=manager,
            startup_timeout=start_timeout,
            shutdown_kernel="immediate",
            coalesce_streams=True,
            record_timing=False,
            log_output=log_output,
        )
        client.owns_km = True
        monitor = None

        def watch(notebook):
            nonlocal monitor
            monitor = Monitor(manager.provisioner.pid, memory_mb)
            monitor.start()
            if execution_timeout:
                client.start_clock(execution_timeout)
            on_event("kernel", pid=manager.provisioner.pid)

        client.on_notebook_start = watch
        run_cells = client.papermill_execute_cells

        def run_and_measure():
            try:
                run_cells()
            finally:
                monitor.stop()
                usage = {
                    "peak_memory_mb": round(monitor.peak_mb),
                    "cpu_seconds": monitor.cpu_seconds,
                }
                on_event("usage", **usage)

        client.papermill_execute_cells = run_and_measure
        try:
            client.execute()
        except CellTimeoutError:
            message = f"the time-out of {execution_timeout:.0f} s was over while this cell ran"
            raise RunError("timeout", message, client.current) from None
        except DeadKernelError:
            if monitor is not None and monitor.exceeded:
                used = (
                    f"{monitor.peak_mb / 1000:.1f} GB used of a budget of {memory_mb / 1000:g} GB"
                )
                raise RunError(
                    "memory", f"{used}; the kernel was stopped", client.current
                ) from None
            message = "the kernel was killed or crashed while this cell ran"
            raise RunError("killed", message, client.current) from None
        if not nb_man.nb.metadata.papermill.get("exception") or _left_quietly(nb_man.nb):
            for cell in code_cells(nb_man.nb):
                if not client.leaves_out(cell) and cell.execution_count is None:
                    message = "this cell should have run and did not (did one before it exit?)"
                    raise RunError("skipped", message, cell)

    @staticmethod
    def check_parameters(nb) -> None:
        """Papermill only logs an unknown parameter; here it is an error."""
        given = nb.metadata.get("papermill", {}).get("parameters", {})
        known = {}
        for cell in code_cells(nb):
            if "parameters" in tags(cell):
                known = literal_parameters(cell.source, "notebook")
        refuse_unknown(given, known, "notebook")


def _left_quietly(nb) -> bool:
    """True if a cell raised SystemExit with status 0, which papermill takes for success."""
    errors = [o for c in code_cells(nb) for o in c.outputs if o.output_type == "error"]
    return any(error.ename == "SystemExit" and error.evalue in ("", "0") for error in errors)
