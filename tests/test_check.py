"""`panorama check` finds each fault of a chapter, and nothing in a chapter that has none."""

import json

import pytest

from panorama.course import check, sources
from panorama.course.chapters import (
    Chapter,
    code_cells,
    code_hash,
    pair,
    paired,
    tags,
    to_text,
)
from panorama.course.exercises import has_markers, stub

INSTALL = check.INSTALL.format(extras="data", url="https://example.org/book")
FIGURE = {"mystnb": {"figure": {"caption": "What to see."}, "image": {"alt": "A line that rises."}}}
SOLUTION = "def f(x):\n    ### BEGIN SOLUTION\n    return x + 1\n    ### END SOLUTION"
CITES = " ".join(f"{{cite}}`key{n}`" for n in range(5))
EXERCISE = ":::{{exercise}} Number {n}\n:label: ex-{n}\nDo it.\n:::"
ANSWER = ":::{dropdown} Answer\nDone.\n:::"
COURSE = {
    "outcomes": ["do it"],
    "frameworks": ["pytorch", "tensorflow"],
    "parameters": {"tiny": {"epochs": 1}},
}


def sound(**changes):
    """The cells of a chapter without a fault; `changes` replaces some of them by name."""
    cells = {
        "title": "# A title",
        "install": (["remove-cell"], INSTALL),
        "imports": ([], "import torch\nimport numpy as np\nimport tensorflow as tf"),
        "parameters": (["parameters"], "epochs = 3"),
        "text": "word " * 2500 + CITES,
        "pytorch": (["pytorch"], "x = 1"),
        "tensorflow": (["tensorflow"], "x = 1"),
        "figures": [(FIGURE, f"draw({n})") for n in range(3)],
        "plain": [([], f"x = {n}") for n in range(9)],
        "gpu": (["gpu", "skip-execution"], "train(60_000)"),
        "check": ({"tags": ["check"], "deterministic": True}, "print(x)\nassert x == 8"),
        "exercises": [t for n in range(3) for t in (EXERCISE.format(n=n), ANSWER)],
        "last exercise": EXERCISE.format(n=3),
        "solution": (["solution"], SOLUTION),
        "solution check": (["check"], "assert f(1) == 2"),
    }
    assert set(changes) <= set(cells)
    cells |= changes
    flat = []
    for cell in cells.values():
        flat += cell if isinstance(cell, list) else [cell]
    return flat


def found(book, *cells, course=None, name="demo/one"):
    """What `check` says of the page after it was paired and recorded, without the file's name."""
    chapter = book.add(name, *cells, course=COURSE | (course or {}))
    nb = paired(chapter)
    nb.metadata["recorded"] = {"default": {"code": code_hash(nb)}}
    for number, cell in enumerate(code_cells(nb), start=1):
        cell.execution_count = None if "gpu" in tags(cell) else number
    chapter.notebook.parent.mkdir(parents=True, exist_ok=True)
    chapter.notebook.write_text(to_text(nb))
    pair(chapter)
    return [line.removeprefix(f"book/{name}.md:") for line in check.findings([chapter])]


def test_a_sound_chapter_gives_no_finding(book):
    assert found(book, *sound()) == []


def test_the_install_line_has_the_extras_of_the_chapter(book):
    install = INSTALL.replace("[data]", "[data,scikit]")
    imports = ([], "import torch\nimport sklearn\nimport tensorflow as tf")
    cells = sound(install=(["remove-cell"], install), imports=imports)
    assert found(book, *cells, course={"extras": ["scikit"]}) == []
    (message,) = found(
        book, *sound(imports=imports), course={"extras": ["scikit"]}, name="demo/two"
    )
    assert "must be the Colab install" in message
    (message,) = found(
        book,
        *sound(install=(["remove-cell"], install)),
        course={"extras": ["scikit"]},
        name="demo/three",
    )
    assert "course.extras names scikit, but no cell imports what it brings" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plain": [(["slow"], "x = 8")] * 9}, "unknown tag slow; valid are: check, gpu"),
        ({"gpu": (["gpu"], "train()")}, "the tags gpu and skip-execution stand together"),
        (
            {"gpu": (["skip-execution"], "train()")},
            "the tags gpu and skip-execution stand together",
        ),
        ({"gpu": (["gpu", "skip-execution"], "def train(): pass")}, "a gpu cell calls"),
        (
            {"solution": (["solution"], "f = abs")},
            "a solution cell has a line `### BEGIN",
        ),
        ({"solution": ([], SOLUTION)}, "solution markers in a cell that is not tagged"),
        ({"solution check": ([], "f(1)")}, "no check cell follows this solution"),
        (
            {"check": ({"tags": ["check"], "deterministic": True}, "print(x)")},
            "this one cannot fail",
        ),
        ({"parameters": []}, "0 cells tagged `parameters`"),
        ({"parameters": [(["parameters"], "epochs = 3")] * 2}, "2 cells tagged `parameters`"),
        ({"parameters": (["parameters"], "size = 3")}, "unknown parameter epochs; valid are: size"),
        ({"parameters": (["parameters"], "a, b = 1, 2")}, "only NAME = LITERAL may stand there"),
        ({"install": (["remove-cell"], "%pip install x")}, "must be the Colab install"),
        ({"install": ([], INSTALL)}, "must be the Colab install"),
        ({"imports": ([], "import tensorflow, torch")}, "tensorflow is imported before torch"),
        (
            {"imports": ([], "import keras\nfrom diffusers import X")},
            "keras is imported before torch",
        ),
        (
            {"imports": ([], "import torch\nimport onnx, onnxruntime\nimport tensorflow as tf")},
            "course.extras lacks onnx, which onnx, onnxruntime comes with",
        ),
        ({"check": (["check"], "import pickle\nassert x")}, "pickle unpickles"),
        ({"check": (["check"], "assert torch.load(x)")}, "torch.load without weights_only=True"),
        ({"check": (["check"], "x = np.load(f, allow_pickle=True)\nassert x")}, "unpickles"),
        ({"tensorflow": []}, "course.frameworks names tensorflow, but no cell is tagged with it"),
        ({"plain": [({"tags": [], "colour": 1}, "x = 8")] * 9}, "unknown cell metadata colour"),
        ({"text": "word " * 100 + CITES}, "words; a chapter has 2000 to 4500"),
        ({"text": "word " * 2500}, "0 distinct references; a chapter has at least 5"),
        ({"plain": [([], "x = 8")] * 2}, "code cells; a chapter has 15 to 40"),
        (
            {"plain": [([], "x = 8\n" * 41)] + [([], "x = 8")] * 9},
            "41 lines in one cell",
        ),
        ({"plain": [([], "x = " + "8" * 97)] + [([], "x = 8")] * 9}, "101 characters in a line"),
        ({"plain": [([], "x = 8\n" * 13)] * 20}, "the median cell has 13 lines; at most 12"),
        ({"check": (["check"], "assert x")}, "0 cells with `deterministic: true`"),
        ({"figures": [([], "x = 8")] * 3}, "0 figures with caption; a chapter has at least 3"),
        ({"exercises": []}, "1 exercises; a chapter has at least 4"),
        (
            {"exercises": [EXERCISE.format(n=n) for n in range(3)]},
            "this exercise has neither a solution cell nor an answer in a dropdown",
        ),
        (
            {"figures": [({"mystnb": {"figure": {"caption": "Look."}}}, "draw()")] * 3},
            "this cell's figure lacks an alternative text",
        ),
    ],
)
def test_each_fault_is_found(book, changes, message):
    assert any(message in line for line in found(book, *sound(**changes)))


@pytest.mark.parametrize(
    ("course", "message"),
    [
        ({"part": "vision"}, "course.part is vision, but the page stands in book/demo/"),
        ({"outcomes": []}, "course.outcomes: a chapter says"),
        ({"prerequisites": ["demo/none"]}, "course.prerequisites: there is no page demo/none"),
        ({"data": ["imagenet"]}, "course.data: unknown data set imagenet; valid are: "),
        ({"frameworks": ["pytorch"]}, "course.frameworks lacks tensorflow"),
        ({"minutes": -1}, "course.minutes: Input should be greater than 0"),
    ],
)
def test_each_fault_of_the_front_matter_is_found(book, course, message):
    assert any(message in line for line in found(book, *sound(), course=course))


def test_a_finding_points_at_the_line_in_the_page(book):
    marked = {"tags": ["check"], "deterministic": True}
    lines = found(book, *sound(check=(marked, "import math\nimport pickle\nassert math")))
    assert len(lines) == 1
    number = int(lines[0].partition(":")[0])
    page = (book.root / "book/demo/one.md").read_text().splitlines()
    assert page[number - 1] == "import pickle"


def test_a_front_page_has_no_budgets(book):
    assert found(book, "# Set up", ([], "x = 1"), course={"part": "front", **NONE}, name="a") == []


NONE = {"parameters": {}, "frameworks": []}


def test_a_page_that_was_edited_is_neither_in_step_nor_current(book):
    found(book, *sound())
    edited = book.add("demo/one", *sound(check=(["check"], "assert x")), course=COURSE)
    assert any("not in step with the page" in line for line in check.findings([edited]))
    pair(edited)
    assert any("the recording is older than the code" in line for line in check.findings([edited]))


def test_a_recorded_figure_needs_a_caption(book):
    found(book, *sound())
    chapter = Chapter(book.root, "demo/one")
    nb = json.loads(chapter.notebook.read_text())
    cell = next(c for c in nb["cells"] if "".join(c["source"]) == "x = 3")
    output = {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}}
    cell["outputs"], cell["execution_count"] = [output], 1
    chapter.notebook.write_text(json.dumps(nb))
    pair(chapter)
    assert any("lacks a caption and an alternative" in line for line in check.findings([chapter]))


def test_pages_and_notebooks_outside_the_chapters_are_looked_at_too(book):
    chapter = book.add("demo/one", *sound(), course=COURSE)
    book.add("plain", "# No kernel", ([], "x = 1"), kernelspec=False)
    lost = book.root / "notebooks/lost.ipynb"
    lost.write_text("{}")
    text = "\n".join(check.findings([chapter], whole_book=True))
    assert "notebooks/lost.ipynb:1: no page in book/ has this name" in text
    assert "book/plain.md:1: a page without kernelspec has no `course:` block" in text
    assert "a code cell, but the front matter has no kernelspec" in text


def test_broken_yaml_is_a_finding_of_its_page(book):
    chapter = book.add("demo/one", text="---\ncourse: [\n---\n# A\n")
    (line,) = check.findings([chapter])
    assert line.startswith("book/demo/one.md:1: the front matter is not valid YAML")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Three plain words.", 3),
        ("A formula $a + b = c$ is one.", 5),
        ("$$\na + b\n$$\n", 0),
        (":::{exercise} Title\n:label: a\nOne two.\n:::", 2),
        ("```python\nx = 1\n```\nOne.", 1),
        ("(a-label)=\n## A heading", 2),
    ],
)
def test_words_are_those_of_the_prose(text, number):
    assert check.words(text) == number


def test_a_pair_of_tabs_counts_as_one_cell(book):
    chapter = book.add(
        "demo/one", *[(t, "x") for t in ([], ["pytorch"], ["tensorflow"], ["pytorch"])]
    )
    assert check.count_cells(chapter.nb.cells) == 3


def test_a_solution_and_its_check_are_not_counted_among_the_cells(book):
    cells = [(["check"], "assert x"), (["solution"], "x = 1"), (["check"], "assert x"), ([], "x")]
    assert check.count_cells(book.add("demo/one", *cells).nb.cells) == 2


def test_a_stub_replaces_the_solution_at_its_indentation():
    assert stub(SOLUTION) == 'def f(x):\n    raise NotImplementedError("your code here")'
    twice = f"{SOLUTION}\n\n{SOLUTION.replace('f(x)', 'g(x)')}"
    assert stub(twice).count("NotImplementedError") == 2


@pytest.mark.parametrize("source", ["x = 1", "### BEGIN SOLUTION\nx", "### END SOLUTION\nx"])
def test_without_both_markers_there_is_no_stub(source):
    assert not has_markers(source)
    with pytest.raises(ValueError, match="BEGIN SOLUTION"):
        stub(source)


def test_imports_are_read_in_order_and_magics_are_passed_over():
    source = "%pip install x\nimport b.c, a\ndef f():\n    !ls\n    from d import e"
    assert [name for name, _ in sources.imports(source)] == ["b", "a", "d"]
