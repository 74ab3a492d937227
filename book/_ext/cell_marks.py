"""What a cell's tag means is shown on the page.

- `solution`: the cell is hidden behind a click, "Show solution".
- `check`: a small label says that the cell must pass in every run.
- `gpu`: a label names the GPU that the outputs were recorded on, or says that there is no record.
"""

from docutils import nodes
from recorded_outputs import record_of
from sphinx.transforms.post_transforms import SphinxPostTransform

UNRECORDED = "Not recorded on a GPU yet. This cell runs in the full profile on a CUDA GPU."


def has_outputs(cell):
    return any(child.get("nb_element") == "cell_code_output" for child in cell.children)


def mark(kind, text):
    return nodes.paragraph("", text, classes=["cell-mark", f"cell-mark-{kind}"])


class CellMarks(SphinxPostTransform):
    """After the framework tabs (150), before MyST-NB hides cells (199)."""

    default_priority = 160

    def run(self, **kwargs):
        record = record_of(self.app, self.env.docname).get("full", {})
        gpu = record.get("device", {}).get("gpu")
        for cell in list(self.document.findall(nodes.container)):
            classes = cell.get("classes", [])
            if cell.get("nb_element") != "cell_code":
                continue
            if "tag_solution" in classes:
                cell["hide_mode"] = "all"
                cell["prompt_show"], cell["prompt_hide"] = "Show solution", "Hide solution"
            place = cell.parent.index(cell)
            if "tag_gpu" in classes:
                if not has_outputs(cell):
                    cell.parent.insert(place + 1, mark("gpu", UNRECORDED))
                elif gpu:
                    cell.parent.insert(place + 1, mark("gpu", f"Recorded on {gpu}"))
            if "tag_check" in classes:
                cell.parent.insert(place, mark("check", "Check: must hold in every run"))


def setup(app):
    app.setup_extension("recorded_outputs")
    app.add_post_transform(CellMarks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
