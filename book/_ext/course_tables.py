"""Two directives that are computed from the chapters, so that nobody has to keep them up to date.

`chapter-status` (no content) is a table of every chapter's recorded runs.

`learning-paths` lists ways through the book. Its body is YAML: a list of `title`, `about` and
`chapters` (chapter paths, or patterns such as `vision/*`). Hours are the sum of `course.minutes` of
the chapters that exist; those that the book does not have yet are named and not counted.
"""

from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

import yaml
from chapter_links import chapter_link
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from panorama.course.chapters import all_chapters, find_root

HEADINGS = ("Chapter", "Recorded", "Device", "Time", "Memory", "Checks", "GPU")


def table(headings, rows, classes):
    """A docutils table; a cell is text or a node."""
    group = nodes.tgroup("", *[nodes.colspec() for _ in headings], cols=len(headings))

    def row(cells):
        entries = []
        for cell in cells:
            content = cell if isinstance(cell, nodes.Node) else nodes.Text(str(cell))
            entries.append(nodes.entry("", nodes.paragraph("", "", content)))
        return nodes.row("", *entries)

    group += nodes.thead("", row(headings))
    group += nodes.tbody("", *[row(cells) for cells in rows])
    return nodes.table("", group, classes=classes)


def day(when):
    """`2026-11-22` from an ISO time stamp or a datetime."""
    return (datetime.fromisoformat(when) if isinstance(when, str) else when).strftime("%Y-%m-%d")


def status_cells(env, row):
    """One line of the status table, from a row of `panorama.course.status.status_rows`."""
    if not row["recorded"]:
        return [chapter_link(env, row["chapter"]), "not yet", "", "", "", "", "not yet"]
    recorded = day(row["recorded"]) + (" (code is newer)" if row["stale"] else "")
    return [
        chapter_link(env, row["chapter"]),
        recorded,
        row["device"],
        f"{row['seconds']:.0f} s",
        f"{row['peak_memory_mb'] / 1000:.1f} GB",
        row["checks"],
        f"{day(row['gpu_recorded'])}, {row['gpu']}" if row["gpu_recorded"] else "not yet",
    ]


class ChapterStatus(SphinxDirective):
    """A table with one row a chapter: recorded when, on what, at what cost, and on which GPU."""

    def run(self):
        from panorama.course.status import status_rows

        self.env.note_reread()
        rows = status_rows(find_root(Path(self.env.srcdir)))
        if not rows:
            return [nodes.paragraph("", "No chapter has been recorded yet.")]
        return [table(HEADINGS, [status_cells(self.env, row) for row in rows], ["status-table"])]


class LearningPaths(SphinxDirective):
    """Ways through the book with their hours."""

    has_content = True

    def run(self):
        self.env.note_reread()
        chapters = all_chapters(find_root(Path(self.env.srcdir)))
        minutes = {c.name: c.course.minutes for c in chapters if c.course.part != "front"}
        try:
            paths = yaml.safe_load("\n".join(self.content))
            return [self.path(minutes, **path) for path in paths]
        except (yaml.YAMLError, TypeError) as error:
            raise self.error(
                f"learning-paths needs a YAML list of title, about, chapters: {error}"
            ) from error

    def path(self, minutes, title, about, chapters):
        """One path: title, hours, a sentence, the chapters in their order."""
        names = []
        for wanted in chapters:
            names += (
                [n for n in sorted(minutes) if fnmatch(n, wanted)] if "*" in wanted else [wanted]
            )
        there = [name for name in names if name in minutes]
        hours = f"{sum(minutes[name] for name in there) / 60:.1f} hours"
        if len(there) < len(names):
            hours += f" so far, with {len(there)} of {len(names)} chapters written"
        head = nodes.paragraph("", "", nodes.strong("", title), nodes.Text(f" · {hours}"))
        route = nodes.paragraph(classes=["learning-route"])
        for name in names:
            if len(route):
                route += nodes.Text(" → ")
            route += chapter_link(self.env, name)
        body = [head, nodes.paragraph("", about), route]
        return nodes.container("", *body, classes=["learning-path"])


def setup(app):
    app.setup_extension("chapter_links")
    app.add_directive("chapter-status", ChapterStatus)
    app.add_directive("learning-paths", LearningPaths)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
