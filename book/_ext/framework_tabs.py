"""Adjacent cells of the two frameworks become synced tabs.

A cell tagged `pytorch` next to a cell tagged `tensorflow` gives one set of two tabs, "PyTorch" and
"TensorFlow". Several cells of one framework in a row share its tab, in their order. A reader's
choice holds for all tabs of the page and for the next pages (sphinx-design keeps it in the
browser's local storage, under the group `framework`).

A cell that carries both tags compares the two and stays outside. On a page that has tabs, a cell
of one framework that has no partner gets a tab of its own, so that its framework is named.
"""

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_design.shared import create_component

FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}


def framework_of(node):
    """The framework of a cell that needs exactly one; None for any other node."""
    if not isinstance(node, nodes.container) or "cell" not in node["classes"]:
        return None
    needed = [name for name in FRAMEWORKS if f"tag_{name}" in node["classes"]]
    return needed[0] if len(needed) == 1 else None


def runs_of_cells(parent):
    """Lists of adjacent framework cells among the children; comments do not separate them."""
    runs, current = [], []
    for child in parent.children:
        if framework_of(child):
            current.append(child)
        elif current and not isinstance(child, nodes.comment):
            runs.append(current)
            current = []
    return [*runs, current] if current else runs


def tab_set(cells):
    """The sphinx-design components for these cells: one tab a framework."""
    result = create_component("tab-set", classes=["sd-tab-set", "framework-tabs"])
    for name, title in FRAMEWORKS.items():
        mine = [cell for cell in cells if framework_of(cell) == name]
        if not mine:
            continue
        label = nodes.rubric(title, nodes.Text(title), classes=["sd-tab-label"])
        label["sync_group"], label["sync_id"] = "framework", name
        content = create_component("tab-content", classes=["sd-tab-content"], children=mine)
        item = create_component("tab-item", classes=["sd-tab-item"], children=[label, content])
        item["selected"] = False
        result += item
    return result


class FrameworkTabs(SphinxPostTransform):
    """Runs after MyST-NB chose the outputs to show, and before sphinx-design renders tabs (200)."""

    default_priority = 150

    def run(self, **kwargs):
        parents = {id(cell.parent): cell.parent for cell in self.document.findall(framework_of)}
        runs = [run for parent in parents.values() for run in runs_of_cells(parent)]
        if len({framework_of(cell) for run in runs for cell in run}) < len(FRAMEWORKS):
            return  # a page on one framework needs no tabs
        for run in runs:
            parent, place = run[0].parent, run[0].parent.index(run[0])
            for cell in run:
                parent.remove(cell)
            parent.insert(place, tab_set(run))


def setup(app):
    app.setup_extension("sphinx_design")
    app.add_post_transform(FrameworkTabs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
