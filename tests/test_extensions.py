"""The book's own Sphinx extensions, each in a small book that is built with the real settings."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "book" / "_ext"))

from recorded_outputs import is_complete  # noqa: E402

HEAD = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
course:
"""

RUN = {
    "when": "2026-11-22T05:10:11+00:00",
    "profile": "default",
    "frameworks": ["pytorch", "tensorflow"],
    "device": {"cpu": "Abacus 9", "cores": 2, "gpu": None},
    "python": "3.11.7",
    "versions": {"numpy": "2.1.0", "torch": "2.9.0"},
    "seconds": 71.4,
    "peak_memory_mb": 2100,
    "cells_run": 5,
    "cells_left_out": 1,
    "checks": 2,
}
GPU_RUN = RUN | {"profile": "full", "device": {"cpu": "Abacus 9", "cores": 8, "gpu": "Loom G1"}}

# Every cell fails when it is executed: what the page shows can only come from the record.
RECORDED = f"""{HEAD}\
  part: sight
  prerequisites: [sight/edited, sight/unwritten-chapter]
  outcomes:
    - compute $n - k + 1$
    - write `conv2d` by hand
  minutes: 75
  frameworks: [pytorch, tensorflow]
  licences: ["The data are under the MIT licence"]
---

# Recorded

A page whose formula is $y = x^2$.

```{{code-cell}} ipython3
:tags: [pytorch]
raise RuntimeError("first torch cell was executed")
```

```{{code-cell}} ipython3
:tags: [pytorch]
raise RuntimeError("second torch cell was executed")
```

```{{code-cell}} ipython3
:tags: [tensorflow]
raise RuntimeError("keras cell was executed")
```

```{{code-cell}} ipython3
:tags: [pytorch, tensorflow]
raise RuntimeError("comparison was executed")
```

Prose between them.

```{{code-cell}} ipython3
:tags: [tensorflow]
raise RuntimeError("lone keras cell was executed")
```

```{{code-cell}} ipython3
:tags: [solution]
raise RuntimeError("solution was executed")
```

```{{code-cell}} ipython3
:tags: [check]
raise RuntimeError("check was executed")
```

```{{code-cell}} ipython3
:tags: [gpu, skip-execution]
raise RuntimeError("full-scale cell was executed")
```
"""

EDITED = f"""{HEAD}\
  part: sight
  minutes: 30
  frameworks: [pytorch]
---

# Edited since

```{{code-cell}} ipython3
:tags: [pytorch]
print(6 * 7)
```

```{{code-cell}} ipython3
:tags: [gpu, skip-execution]
raise RuntimeError("full-scale cell was executed")
```
"""

INDEX = """\
# A small book

```{chapter-status}
```

```{learning-paths}
- title: Everything
  about: All there is.
  chapters: [sight/*, sight/unwritten-chapter]
```
"""

TOC = """\
format: jb-book
root: index
chapters:
  - file: sight/recorded
  - file: sight/edited
"""


def notebook_of(page, record, old_code=()):
    """The page's notebook with `recorded: CODE` as each cell's output.

    Cells whose text contains a string of `old_code` were recorded with other code.
    """
    import jupytext

    notebook = jupytext.reads(page, fmt={"extension": ".md", "format_name": "myst"})
    notebook.metadata["recorded"] = record
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code" or ("gpu" in cell.metadata.tags and "full" not in record):
            continue
        count += "gpu" not in cell.metadata.tags
        output = nbformat.v4.new_output("stream", name="stdout", text=f"recorded: {cell.source}\n")
        cell.outputs, cell.execution_count = [output], count
        cell.metadata["execution"] = {"iopub.execute_input": "2026-11-22T05:10:11Z"}
        if any(part in cell.source for part in old_code):
            cell.source = "print('old code')"
    return notebook


def write_book(folder):
    """A book of three pages; returns its folder."""
    (folder / "notebooks" / "sight").mkdir(parents=True)
    (folder / "book" / "sight").mkdir(parents=True)
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    settings = (ROOT / "_config.yml").read_text().replace("book/_ext", f"{ROOT}/book/_ext")
    (folder / "_config.yml").write_text(settings)
    (folder / "_toc.yml").write_text(TOC)
    (folder / "jupytext.toml").touch()
    (folder / "book" / "references.bib").touch()
    (folder / "book" / "index.md").write_text(INDEX)
    (folder / "book" / "sight" / "recorded.md").write_text(RECORDED)
    (folder / "book" / "sight" / "edited.md").write_text(EDITED)
    recorded = notebook_of(RECORDED, {"default": RUN, "full": GPU_RUN})
    nbformat.write(recorded, folder / "notebooks" / "sight" / "recorded.ipynb")
    edited = notebook_of(EDITED, {"default": RUN}, old_code=["6 * 7"])
    nbformat.write(edited, folder / "notebooks" / "sight" / "edited.ipynb")
    return folder


def build(folder, **environment):
    """Build the book as `make book` does; returns the log. Warnings are errors."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder / "book"]
    command += ["--toc", folder / "_toc.yml", "-W", "-n", "--keep-going"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    done = subprocess.run(
        command, env=clean | environment, text=True, capture_output=True, timeout=120
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    return log


def read(folder, page):
    html = (folder / "_build" / "html" / f"{page}.html").read_text(encoding="utf-8")
    return BeautifulSoup(html, "html.parser")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Built as `make book` does: MathJax from npm if it is there, the project's own repository."""
    folder = write_book(tmp_path_factory.mktemp("book"))
    if (ROOT / "node_modules" / "mathjax").is_dir():
        (folder / "node_modules").symlink_to(ROOT / "node_modules")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """Built in a fork's workflow, on a machine without npm; the log is in `build.log`."""
    folder = write_book(tmp_path_factory.mktemp("fork"))
    (folder / "build.log").write_text(build(folder, GITHUB_REPOSITORY="Ada/my-course"))
    return folder


@pytest.fixture(scope="module")
def recorded(book):
    return read(book, "sight/recorded")


@pytest.fixture(scope="module")
def edited(book):
    return read(book, "sight/edited")


def outputs(node):
    return [output.get_text().strip() for output in node.select(".cell_output")]


# ---------------------------------------------------------------------------- recorded outputs


def test_recorded_outputs_are_shown_and_nothing_is_executed(recorded):
    """Timing metadata in the notebook does not matter; the cells would raise if they ran."""
    shown = outputs(recorded)
    assert len(shown) == 8
    assert all(text.startswith("recorded: raise RuntimeError") for text in shown)


def test_a_page_edited_since_is_executed(edited):
    assert outputs(edited) == ["42"]


def test_a_new_record_reaches_a_page_that_is_already_built(book, tmp_path):
    folder = shutil.copytree(book, tmp_path / "again", symlinks=True)
    nbformat.write(
        notebook_of(EDITED, {"default": RUN}), folder / "notebooks" / "sight" / "edited.ipynb"
    )
    build(folder)
    assert outputs(read(folder, "sight/edited")) == ["recorded: print(6 * 7)"]


@pytest.mark.parametrize(
    ("counts", "complete"),
    [
        ([1, 2, 3], True),
        ([1, None, 3], False),  # a cell was edited, and its outputs dropped
        ([1, 3], False),  # a cell was removed
        ([2, 1, 3], False),  # a cell was moved
    ],
)
def test_a_record_is_complete_only_if_its_cells_ran_in_one_go(counts, complete):
    cells = [nbformat.v4.new_code_cell("1", execution_count=count) for count in counts]
    assert is_complete(nbformat.v4.new_notebook(cells=cells)) is complete


def test_cells_for_a_gpu_may_be_missing_from_a_complete_record():
    full_scale = nbformat.v4.new_code_cell("1", metadata={"tags": ["gpu", "skip-execution"]})
    cells = [nbformat.v4.new_code_cell("1", execution_count=1), full_scale]
    assert is_complete(nbformat.v4.new_notebook(cells=cells))


# ---------------------------------------------------------------------------- framework tabs


def test_adjacent_cells_of_the_two_frameworks_become_tabs(recorded):
    tabs = recorded.select_one(".sd-tab-set")
    assert [label.get_text().strip() for label in tabs.select("label")] == ["PyTorch", "TensorFlow"]
    torch, keras = tabs.select(".sd-tab-content")
    assert [len(torch.select(".cell")), len(keras.select(".cell"))] == [2, 1]
    assert "first torch" in outputs(torch)[0]
    assert "second torch" in outputs(torch)[1]


def test_tabs_are_synced_by_framework(recorded):
    labels = recorded.select(".sd-tab-label")
    assert {label["data-sync-group"] for label in labels} == {"framework"}
    assert [label["data-sync-id"] for label in labels] == ["pytorch", "tensorflow", "tensorflow"]


def test_a_cell_of_both_frameworks_stays_outside(recorded):
    comparison = recorded.select_one(".cell.tag_pytorch.tag_tensorflow")
    assert comparison.find_parent(class_="sd-tab-set") is None


def test_a_cell_without_partner_still_names_its_framework(recorded):
    lone = recorded.select(".sd-tab-set")[1]
    assert [label.get_text().strip() for label in lone.select("label")] == ["TensorFlow"]


def test_a_page_on_one_framework_has_no_tabs(edited):
    assert edited.select(".sd-tab-set") == []


# ---------------------------------------------------------------------------- marks on cells


def test_a_solution_is_hidden_behind_a_click(recorded):
    details = recorded.select_one(".cell.tag_solution > details")
    assert not details.has_attr("open")
    assert "Show solution" in details.summary.get_text()
    assert "solution was executed" in details.select_one(".cell_input").get_text()


def test_a_check_is_labelled(recorded):
    label = recorded.select_one(".cell.tag_check").find_previous_sibling()
    assert label.get_text() == "Check: must hold in every run"


def test_full_scale_cells_say_which_gpu_ran_them(recorded):
    assert recorded.select_one(".cell-mark-gpu").get_text() == "Recorded on Loom G1"


def test_full_scale_cells_without_a_record_say_so(edited):
    assert "Not recorded on a GPU yet" in edited.select_one(".cell-mark-gpu").get_text()


# ---------------------------------------------------------------------------- links and header


def test_links_open_the_notebook_of_the_repository(recorded):
    repository = "deep-learning-panorama/deep-learning-panorama"
    notebook = "notebooks/sight/recorded.ipynb"
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{notebook}"
    for place in (".chapter-buttons", ".article-header-buttons"):
        targets = [link["href"] for link in recorded.select(f"{place} a[href]")]
        assert colab in targets
        assert binder in targets
        assert "../_sources/sight/recorded.ipynb" in targets
        assert "../_sources/sight/recorded.md" in targets


def test_the_download_is_the_recorded_notebook(book):
    download = book / "_build" / "html" / "_sources" / "sight" / "recorded.ipynb"
    original = book / "notebooks" / "sight" / "recorded.ipynb"
    assert json.loads(download.read_bytes()) == json.loads(original.read_bytes())


def test_in_a_fork_all_links_go_to_the_fork(fork):
    page = read(fork, "sight/recorded")
    targets = [link["href"] for link in page.select("a[href^=http]")]
    assert [target for target in targets if "deep-learning-panorama" in target] == []
    assert any("/github/Ada/my-course/blob/main/notebooks/" in target for target in targets)
    canonical = page.select_one("link[rel=canonical]")["href"]
    assert canonical == "https://ada.github.io/my-course/sight/recorded.html"
    assert "/my-course/_static/" in str(read(fork, "404"))


def test_the_header_shows_the_front_matter(recorded):
    header = recorded.select_one(".chapter-header")
    assert header.find_previous_sibling().name == "h1"
    facts = header.select_one(".chapter-facts").get_text()
    assert facts == "75 minutes, exercises included · PyTorch and TensorFlow"
    outcomes = [item.get_text().strip() for item in header.select(".chapter-outcomes li")]
    assert outcomes == [r"compute \(n - k + 1\)", "write conv2d by hand"]
    assert "MIT licence" in header.select_one(".chapter-licence").get_text()


def test_prerequisites_are_links_where_the_chapter_exists(recorded):
    line = recorded.select_one(".chapter-prerequisites")
    assert line.get_text() == "Builds on Edited since, unwritten chapter (planned)"
    assert [link["href"] for link in line.select("a")] == ["edited.html"]


# ---------------------------------------------------------------------------- provenance, status


def test_provenance_says_when_where_and_with_what(recorded):
    text = recorded.select_one(".provenance").get_text(" ")
    assert "recorded on 22 November 2026, on 2 cores of Abacus 9, with Python 3.11.7" in text
    assert "numpy 2.1.0, torch 2.9.0: 71 seconds, 2.1 GB of memory at most, 2 checks" in text
    assert "full scale were recorded on 22 November 2026, on Loom G1" in text


def test_provenance_admits_what_was_not_recorded(edited):
    text = edited.select_one(".provenance").get_text(" ")
    assert "code is newer than its record" in text
    assert "have not been recorded on a GPU yet" in text


def test_the_status_table_has_a_row_for_each_chapter(book):
    rows = read(book, "index").select("table.status-table tbody tr")
    cells = {row.a["href"]: [c.get_text().strip() for c in row.select("td")] for row in rows}
    assert cells["sight/recorded.html"][2:] == [
        "Abacus 9", "71 s", "2.1 GB", "2", "2026-11-22, Loom G1",
    ]  # fmt: skip
    assert cells["sight/edited.html"][-1] == "not yet"


def test_learning_paths_count_the_hours_of_the_chapters_that_exist(book):
    path = read(book, "index").select_one(".learning-path")
    assert "Everything · 1.8 hours so far, with 2 of 3 chapters written" in path.get_text()
    assert len(path.select("a")) == 2


# ---------------------------------------------------------------------------- mathematics


def test_mathematics_comes_from_the_site_itself(book, recorded):
    if not (ROOT / "node_modules" / "mathjax").is_dir():
        pytest.skip("MathJax is not installed: run `npm ci`")
    source = recorded.select_one("script[src*=mathjax]")["src"]
    assert source.startswith("../_static/mathjax/")
    static = book / "_build" / "html" / "_static" / "mathjax"
    assert (static / "es5" / "tex-chtml.js").is_file()
    assert list(static.rglob("MathJax_Main-Regular.woff"))


def test_without_npm_mathematics_comes_from_a_cdn_and_the_log_says_so(fork):
    source = read(fork, "sight/recorded").select_one("script[src*=mathjax]")["src"]
    assert source.startswith("https://")
    assert "mathematics will be loaded from a CDN" in (fork / "build.log").read_text()


def test_extensions_stay_small():
    sizes = {p.name: len(p.read_text().splitlines()) for p in (ROOT / "book/_ext").glob("*.py")}
    assert {name: lines for name, lines in sizes.items() if lines >= 150} == {}
    settings = (ROOT / "_config.yml").read_text()
    assert all(re.search(rf"\b{name.removesuffix('.py')}: book/_ext", settings) for name in sizes)
