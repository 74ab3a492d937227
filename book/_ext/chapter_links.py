"""The role `chapter`: a link to a chapter if it exists, else its title marked as planned.

    {chapter}`Attention <language/attention>`

Pages that show the plan of the book (the front page, the landscape) name chapters before they are
written. When the chapter's page is added, the link appears at the next build.
"""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import ReferenceRole


class ChapterRole(ReferenceRole):
    def run(self):
        self.env.metadata[self.env.docname]["names_chapters"] = "yes"
        if self.target in self.env.found_docs:
            reference = pending_xref(
                "", nodes.inline("", self.title), refdomain="std", reftype="doc",
                reftarget=f"/{self.target}", refdoc=self.env.docname, refexplicit=True, refwarn=True,
            )  # fmt: skip
            return [reference], []
        planned = nodes.inline("", self.title, classes=["planned"])
        planned += nodes.inline("", " (planned)", classes=["planned-note"])
        return [planned], []


def read_again(app, env, added, changed, removed):
    """Pages that name chapters, when pages came or went (event `env-get-outdated`)."""
    if not (added or removed):
        return []
    return [name for name in env.found_docs if "names_chapters" in env.metadata.get(name, {})]


def setup(app):
    app.add_role("chapter", ChapterRole())
    app.connect("env-get-outdated", read_again)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
