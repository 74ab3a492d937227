"""The directive `timeline-table`: the works of the timeline's data file, with source and chapter.

The figure on the landscape page is drawn by that page's own code from the same file.
"""

import csv
from importlib import resources

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

TIMELINE = resources.files("panorama") / "data/files/timeline.csv"


def read_timeline():
    """The rows of the data file: dictionaries of year, name, fields, idea, chapter, source."""
    with TIMELINE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TimelineTable(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(TIMELINE))
        lines = [
            ":::{list-table}",
            ":header-rows: 1",
            ":widths: auto",
            ":class: timeline-table",
            "",
        ]
        rows = [("Year", "Work", "Chapter")]
        for work in read_timeline():
            rows.append(
                (
                    work["year"],
                    f"**{work['name']}**: {work['idea']} {{cite}}`{work['source']}`",
                    f"{{chapter}}`{work['chapter']}`",
                )
            )
        for row in rows:
            lines += [f"* - {row[0]}", *(f"  - {cell}" for cell in row[1:])]
        lines.append(":::")
        box = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(TIMELINE)), self.content_offset, box)
        return box.children


def setup(app):
    app.add_directive("timeline-table", TimelineTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
