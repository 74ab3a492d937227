"""Every chapter of this book: it runs in the `tiny` profile without a network, its exercises work,
its notebook is in step, and what it calls deterministic is what was recorded."""

import os

import nbformat
import pytest
from pytest_notebook.diffing import diff_notebooks, diff_to_string, filter_diff

from panorama.course import check, runner
from panorama.course.chapters import all_chapters, find_root, read_notebook

ROOT = find_root()
CHAPTERS = {chapter.name: chapter for chapter in all_chapters(ROOT)}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """All chapters run once, in parallel; results by name, and the folder of executed notebooks."""
    keep = tmp_path_factory.mktemp("tiny")
    slack = float(os.environ.get("PANORAMA_SLACK", 1))
    options = runner.Options(
        profile="tiny", jobs=runner.cores(), offline=True, prove=True, slack=slack, keep=keep
    )
    results = runner.run(list(CHAPTERS.values()), options)
    return {result.chapter: result for result in results}, keep


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_chapter_runs_within_its_budgets_and_each_stub_fails_its_check(tiny, name):
    result = tiny[0][name]
    assert result.ok, f"{result.error['message']}\n{result.error}"
    assert result.cells_run == result.cells


@pytest.mark.parametrize("name", CHAPTERS)
def test_nothing_can_be_said_against_the_page(name):
    """Front matter, tags, import order, the pair, the recording, the style budgets."""
    assert check.findings([CHAPTERS[name]]) == []


def test_nothing_can_be_said_against_the_book_as_a_whole():
    assert list(check.whole_book_findings(ROOT)) == []


def printed(nb, numbers):
    """The cells of those numbers with their printed text only, as a notebook of their own."""
    cells = []
    for cell in nb.cells:
        if cell.metadata.get("course_cell") in numbers and "proof" not in cell.metadata:
            text = ""
            for output in cell.outputs:
                text += output.get("text", output.get("data", {}).get("text/plain", ""))
            outputs = [nbformat.v4.new_output("stream", text=text)] if text else []
            new = nbformat.v4.new_code_cell(cell.source, outputs=outputs, id=f"cell-{len(cells)}")
            cells.append(new)
    return nbformat.v4.new_notebook(cells=cells)


def difference(recorded, executed, numbers):
    """What the printed text of those cells differs in, as a text; empty if in nothing."""
    before, after = printed(recorded, numbers), printed(executed, numbers)
    found = filter_diff(diff_notebooks(before, after), {"/cells/*/execution_count"})
    return diff_to_string(before, found, use_color=False) if found else ""


@pytest.mark.parametrize("name", CHAPTERS)
def test_deterministic_cells_print_what_was_recorded(tiny, name):
    """Cells with `deterministic: true` print the same on every machine and in every profile."""
    cells = enumerate(CHAPTERS[name].nb.cells)
    numbers = {number for number, cell in cells if cell.metadata.get("deterministic")}
    if not numbers:
        pytest.skip("no cell of this page is marked `deterministic: true`")
    recorded = read_notebook(CHAPTERS[name].notebook)
    for number, cell in enumerate(recorded.cells):
        cell.metadata["course_cell"] = number  # as in a notebook that was run
    executed = read_notebook(tiny[1] / f"{name}.ipynb")
    assert all(cell.outputs for cell in printed(recorded, numbers).cells)
    assert difference(recorded, executed, numbers) == ""


def test_the_comparison_sees_a_changed_output():
    def notebook(text):
        output = nbformat.v4.new_output("stream", text=text)
        cell = nbformat.v4.new_code_cell("f()", outputs=[output], metadata={"course_cell": 0})
        return nbformat.v4.new_notebook(cells=[cell])

    assert difference(notebook("61,706\n"), notebook("61,706\n"), {0}) == ""
    assert "61,707" in difference(notebook("61,706\n"), notebook("61,707\n"), {0})
    assert difference(notebook("61,706\n"), notebook("61,707\n"), set()) == ""
