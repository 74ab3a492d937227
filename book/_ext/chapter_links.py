"""The role `chapter`: a link to a chapter that exists, else its title as plain text.

    {chapter}`Attention <language/attention>`

Pages that show the plan of the whole book (the front page, the landscape) name chapters before
they are written. Once the chapter's page is there, the next build makes the link.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import ReferenceRole


class ChapterRole(ReferenceRole):
    def run(self):
        self.env.note_reread()
        if self.target not in self.env.found_docs:
            return [nodes.inline("", self.title, classes=["planned-chapter"])], []
        link = addnodes.pending_xref(
            "", nodes.inline("", self.title, classes=["doc"]), refdomain="std", reftype="doc",
            reftarget=f"/{self.target}", refexplicit=True, refwarn=True, refdoc=self.env.docname,
        )  # fmt: skip
        return [link], []


def setup(app):
    app.add_role("chapter", ChapterRole())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
