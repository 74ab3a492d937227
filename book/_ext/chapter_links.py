"""The role `chapter`: a link to a chapter that exists, else its title as plain text.

    {chapter}`Attention <language/attention>`

Pages that show the plan of the whole book (the front page, the landscape) name chapters before
they are written. Once the chapter's page is there, the next build makes the link.

For other extensions: `chapter_link` makes the same node.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import ReferenceRole


def chapter_link(env, target, title=None, note=""):
    """A link to the chapter, with its own title if none is given.

    Where the book does not have the chapter yet: the title (or the last part of its path) and the
    note, as plain text.
    """
    if target not in env.found_docs:
        name = title or target.rsplit("/", 1)[-1].replace("-", " ")
        return nodes.inline("", name + note, classes=["planned-chapter"])
    text = nodes.inline("", title or target, classes=["doc"])
    return addnodes.pending_xref(
        "", text, refdomain="std", reftype="doc", reftarget=f"/{target}",
        refexplicit=title is not None, refwarn=True, refdoc=env.docname,
    )  # fmt: skip


class ChapterRole(ReferenceRole):
    def run(self):
        self.env.note_reread()
        return [chapter_link(self.env, self.target, self.title)], []


def setup(app):
    app.add_role("chapter", ChapterRole())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
