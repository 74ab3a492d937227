"""What a run shows: a live list of running chapters on a terminal, plain lines elsewhere."""

import threading

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.text import Text


class Display:
    """A context manager whose `listen` is the runner's listener."""

    def __init__(self, chapters, options, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.total, self.finished, self.tasks = len(chapters), 0, {}
        self.lock = threading.Lock()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("cell {task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self):
        self.progress.start()
        return self

    def __exit__(self, *exception):
        self.progress.stop()

    def listen(self, event, chapter, details):
        with self.lock:
            if event == "start":
                self.tasks[chapter.name] = self.progress.add_task(chapter.name, total=None)
            elif event == "cell":
                done, total = details["done"], details["total"]
                self.progress.update(self.tasks[chapter.name], completed=done, total=total)
            elif event == "end":
                task = self.tasks.pop(chapter.name, None)
                if task is not None:
                    self.progress.remove_task(task)
                self.finished += 1
                self.console.print(Text(self.line(details["result"])))

    def line(self, result) -> str:
        """One line a chapter, the same on a terminal and in a log."""
        facts = [f"{result.seconds:.1f} s", f"{result.peak_memory_mb} MB"]
        facts.append(f"{result.cells_run} of {result.cells} cells")
        if result.cells_left_out:
            facts.append(f"{result.cells_left_out} left out")
        facts.append(f"{result.checks} check{'' if result.checks == 1 else 's'}")
        if not result.ok and result.error:
            facts.append(where(result))
        word = "ok    " if result.ok else "FAILED"
        return f"[{self.finished}/{self.total}] {word} {result.chapter}  {', '.join(facts)}"

    def summary(self, results) -> None:
        """The failures in full: cell, source, traceback."""
        failed = [result for result in results if not result.ok]
        for result in failed:
            error = result.error
            self.console.print()
            self.console.rule(Text(f"{result.chapter}: {where(result)}"), align="left")
            self.console.print(Text(error["message"], style="bold"))
            if error.get("source"):
                self.console.print(Syntax(error["source"], "python", background_color="default"))
            if error.get("traceback"):
                self.console.print(Text.from_ansi(error["traceback"]))
        if self.total != 1:
            self.console.print(f"{self.total - len(failed)} of {self.total} chapters ran")


def where(result) -> str:
    """The kind of failure and the cell, as `timeout in cell 7 (book/vision/convolution.md:120)`."""
    error = result.error
    if "cell" not in error:
        return error["kind"]
    place = f"book/{result.chapter}.md:{error['line']}"
    if error["cell"] == 0:
        return f"{error['kind']} in the cell of the profile's parameters"
    return f"{error['kind']} in code cell {error['cell']} ({place})"
