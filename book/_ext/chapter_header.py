"""A chapter's header and its provenance footer, from the front matter and the recorded notebook.

The header stands under the title: reading time, frameworks, buttons that open or download the
notebook, outcomes, prerequisites (a chapter that the book does not have yet is plain text) and
notes on other licences. The footer says when, where and with what the outputs were recorded, and
is open about what was not: code newer than the record, full-scale cells that no GPU ran.

Pages without `course:` in their front matter are left alone.
"""

import json
import re
from datetime import datetime

from chapter_links import chapter_link
from docutils import nodes
from framework_tabs import FRAMEWORKS
from launch_links import links
from recorded_outputs import is_current, record_of

BUTTONS = {
    "colab": "Open in Colab",
    "binder": "Launch on Binder",
    "notebook": "Download notebook",
    "source": "MyST source",
}


def inline(text):
    """Nodes for a line of plain text with `code` and $mathematics$."""
    for part in re.split(r"(`[^`]+`|\$[^$]+\$)", text):
        if part.startswith("`"):
            yield nodes.literal("", part.strip("`"))
        elif part.startswith("$"):
            yield nodes.math("", part.strip("$"))
        elif part:
            yield nodes.Text(part)


def box(kind, *children):
    return nodes.container("", *children, classes=[kind])


def line(kind, label, children):
    """A paragraph that starts with a label."""
    return nodes.paragraph("", "", nodes.strong("", f"{label} "), *children, classes=[kind])


def buttons(app, docname):
    """Links that open or download the page's notebook, relative to the page where local."""
    up = "../" * docname.count("/")
    result = nodes.paragraph(classes=["chapter-buttons"])
    for service, address in links(app, docname).items():
        uri = address if "://" in address else up + address
        result += nodes.reference("", BUTTONS[service], refuri=uri, classes=[f"open-{service}"])
        result += nodes.Text(" ")
    return result


def header(app, docname, course):
    """The container that stands under the title."""
    facts = []
    if course.get("minutes"):
        extent = "" if course.get("part") == "front" else ", exercises included"
        facts.append(f"{course['minutes']} minutes{extent}")
    if names := [FRAMEWORKS[name] for name in course.get("frameworks", []) if name in FRAMEWORKS]:
        facts.append(" and ".join(names))
    result = box("chapter-header")
    if facts:
        result += nodes.paragraph("", " · ".join(facts), classes=["chapter-facts"])
    result += buttons(app, docname)
    if course.get("outcomes"):
        items = [
            nodes.list_item("", nodes.paragraph("", "", *inline(o))) for o in course["outcomes"]
        ]
        title = nodes.paragraph("", "After this page you can", classes=["chapter-label"])
        result += box("chapter-outcomes", title, nodes.bullet_list("", *items))
    if course.get("prerequisites"):
        parts = []
        for target in course["prerequisites"]:
            parts += [chapter_link(app.env, target, note=" (planned)"), nodes.Text(", ")]
        result += line("chapter-prerequisites", "Builds on", parts[:-1])
    for note in course.get("licences", []):
        result += line("chapter-licence", "Licence", inline(note))
    return result


def run_in_words(run):
    """One recorded run: when, where, with what, how long."""
    when = datetime.fromisoformat(run["when"])
    device = run["device"]
    place = device.get("gpu") or f"{device['cores']} cores of {device['cpu']}"
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    memory = f"{run['peak_memory_mb'] / 1000:.1f} GB"
    return (
        f"on {when.day} {when:%B %Y}, on {place}, with Python {run['python']}, {versions}: "
        f"{run['seconds']:.0f} seconds, {memory} of memory at most, {run['checks']} checks passed."
    )


def provenance(app, docname, has_gpu_cells):
    """The container at the end of the page: how its outputs came about."""
    record = record_of(app, docname)
    result = box("provenance", nodes.paragraph("", "Provenance", classes=["chapter-label"]))

    def say(text):
        result.append(nodes.paragraph("", text))

    if is_current(app, docname):
        say(f"The outputs were recorded {run_in_words(record['default'])}")
    elif record.get("default"):
        say("The code is newer than its record: this page was executed when the site was built.")
    else:
        say("This page has no record yet: it was executed when the site was built.")
    if has_gpu_cells and record.get("full"):
        say(f"The cells at full scale were recorded {run_in_words(record['full'])}")
    elif has_gpu_cells:
        say("The cells at full scale have not been recorded on a GPU yet.")
    return result


def add_header_and_footer(app, doctree):
    """Insert both into the page's first section (event `doctree-read`)."""
    docname = app.env.docname
    course = json.loads(app.env.metadata[docname].get("course", "null"))
    section = next(doctree.findall(nodes.section), None)
    if not course or section is None:
        return
    has_gpu_cells = any("tag_gpu" in n["classes"] for n in doctree.findall(nodes.container))
    section.insert(1, header(app, docname, course))
    section.append(provenance(app, docname, has_gpu_cells))


def setup(app):
    for extension in ("recorded_outputs", "framework_tabs", "launch_links", "chapter_links"):
        app.setup_extension(extension)
    app.connect("doctree-read", add_header_and_footer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
