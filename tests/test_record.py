"""What `panorama record` and `panorama pair` write into `notebooks/`, and what they leave alone."""

import base64
import copy
import io
import os

import nbformat
import numpy as np
import pytest
from PIL import Image

from panorama.course import CourseError
from panorama.course import record as recording
from panorama.course.chapters import (
    Chapter,
    is_stale,
    orphans,
    pair,
    paired,
    tags,
    write_atomically,
)
from panorama.course.record import write_recording
from panorama.course.runner import Options
from panorama.course.status import status_rows

CELLS = [
    ([], "x = 1"),
    ([], "print('x is', x)"),
    (["gpu", "skip-execution"], "print('big')"),
    (["check"], "assert x == 1"),
]


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def executed(chapter, texts, name="stdout"):
    """The chapter as if it had been run: `texts` maps a code cell's number to what it printed."""
    nb = copy.deepcopy(chapter.nb)
    for number, cell in enumerate(nb.cells):
        cell.metadata["course_cell"] = number
        if number in texts:
            cell.outputs = [stream(texts[number], name)]
        if number in texts or (cell.cell_type == "code" and "gpu" not in tags(cell)):
            cell.execution_count = number + 1
    return nb


def facts(chapter, profile="default"):
    return {"profile": profile, "code": recording.code_hash(chapter.nb, profile), "seconds": 1.0}


def texts(nb):
    return ["".join(output.text for output in c.outputs) for c in nb.cells if c.cell_type == "code"]


def test_record_writes_outputs_and_provenance(book):
    chapter = book.add("demo/one", "# The title", *CELLS, course={"frameworks": []})
    (result,) = recording.record([chapter], Options())
    assert result.ok
    nb = book.read(chapter)
    assert texts(nb) == ["", "x is 1\n", "", ""]
    default = nb.metadata.recorded.default
    assert default.profile == "default"
    assert default.when.endswith("Z")
    assert default.device.cores >= 1
    assert default.device.gpu is None
    assert (default.cells_run, default.cells_left_out, default.checks) == (3, 1, 1)
    assert default.seconds > 0
    assert default.peak_memory_mb > 0
    assert not is_stale(nb)
    assert pair(chapter, check=True)
    assert all(set(cell.metadata) <= {"tags"} for cell in nb.cells)  # no timing, no papermill
    (row,) = status_rows(book.root)
    assert (row["chapter"], row["title"], row["stale"]) == ("demo/one", "The title", False)
    assert row["recorded"] == default.when


def test_a_chapter_that_fails_keeps_its_old_recording(book):
    chapter = book.add("demo/one", *CELLS)
    write_recording(chapter, executed(chapter, {1: "old"}), facts(chapter))
    before = chapter.notebook.read_text()
    fails = book.add("demo/one", ([], "x = 2"), *CELLS[1:])
    (result,) = recording.record([fails], Options())
    assert result.error["kind"] == "exception"
    assert chapter.notebook.read_text() == before


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("record", "import sys; print('oh', file=sys.stderr)"),
        ("time", "import time\nwhile time.process_time() < 2:\n    pass"),
    ],
)
def test_a_refused_recording_keeps_what_was_executed(book, kind, source):
    course = {"frameworks": []}
    if kind == "time":
        course["budget"] = {"seconds": 1, "reason": "a test of budgets"}
    chapter = book.add("demo/one", ([], source), course=course)
    (result,) = recording.record([chapter], Options(timeout=120))
    assert result.error["kind"] == kind
    assert "kept: _build/refused/demo/one.ipynb" in result.error["message"]
    kept = nbformat.read(chapter.root / "_build/refused/demo/one.ipynb", as_version=4)
    assert any(cell.get("execution_count") for cell in kept.cells)
    assert not chapter.notebook.exists()


def test_gpu_outputs_survive_a_default_recording_and_are_all_that_a_full_one_writes(book):
    chapter = book.add("demo/one", *CELLS)
    write_recording(chapter, executed(chapter, {1: "default", 2: "no"}), facts(chapter))
    full = executed(chapter, {1: "of the full profile", 2: "big"})
    write_recording(chapter, full, facts(chapter, "full"))
    assert texts(book.read(chapter)) == ["", "default", "big", ""]
    write_recording(chapter, executed(chapter, {1: "again"}), facts(chapter))
    assert texts(book.read(chapter)) == ["", "again", "big", ""]
    assert set(book.read(chapter).metadata.recorded) == {"default", "full"}


def test_an_edited_gpu_cell_loses_its_output_and_the_row_says_that_it_is_stale(book):
    chapter = book.add("demo/one", *CELLS)
    write_recording(chapter, executed(chapter, {2: "big"}), facts(chapter, "full"))
    edited = book.add("demo/one", *CELLS[:2], (["gpu", "skip-execution"], "print('bigger')"))
    pair(edited)
    assert texts(book.read(edited)) == ["", "", ""]
    (row,) = status_rows(book.root)
    assert row["gpu_stale"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("a warning", "stderr", "writes to stderr: a warning"),
        ("<object at 0x7f12ab34cd56>", "stdout", "a memory address"),
        (f"saved in {os.path.expanduser('~')}/data", "stdout", "a path of this machine"),
        ("x" * 1_000_001, "stdout", "would have 1.0 MB, more than 1"),
    ],
)
def test_outputs_not_fit_to_be_kept_are_an_error_that_names_the_cell(book, text, name, message):
    chapter = book.add("demo/one", *CELLS)
    with pytest.raises(CourseError, match=message) as caught:
        write_recording(chapter, executed(chapter, {1: text}, name), facts(chapter))
    assert str(caught.value).startswith(f"book/demo/one.md:{chapter.lines[1]}: ")
    assert not chapter.notebook.exists()


def test_what_tensorflow_logs_at_import_is_left_out(book):
    chapter = book.add("demo/one", *CELLS)
    log = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    log += "I0000 00:00:1795328044.614368   11043 port.cc:153] oneDNN custom operations are on.\n"
    write_recording(chapter, executed(chapter, {1: log}, "stderr"), facts(chapter))
    assert "oneDNN" not in chapter.notebook.read_text(encoding="utf-8")
    worse = executed(chapter, {1: f"{log}E0000 00:00: no memory\n"}, "stderr")
    with pytest.raises(CourseError, match="writes to stderr: E0000"):
        write_recording(chapter, worse, facts(chapter))


def test_a_page_edited_during_the_run_is_not_recorded(book):
    chapter = book.add("demo/one", *CELLS)
    run = executed(chapter, {1: "old"})
    book.add("demo/one", ([], "x = 3"), *CELLS[1:])
    with pytest.raises(CourseError, match="edited during the run"):
        write_recording(chapter, run, facts(chapter))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(profile="tiny"), "valid are: default, full"),
        (Options(profile="full"), "with --gpu"),
        (Options(gpu=True), "with --gpu"),
        (Options(frameworks=("pytorch",)), "needs all its frameworks; add tensorflow"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_runs(book, options, message):
    chapter = book.add("demo/one", *CELLS, course={"frameworks": ["pytorch", "tensorflow"]})
    with pytest.raises(CourseError, match=message):
        recording.record([chapter], options)


def test_pairing_keeps_outputs_of_unchanged_cells_only_and_says_that_the_recording_is_old(book):
    chapter = book.add("demo/one", "Text.", *CELLS)
    write_recording(chapter, executed(chapter, {1: "one", 2: "two"}), facts(chapter))
    edited = book.add("demo/one", "Other text.", ([], "x = 4"), *CELLS[1:])
    assert not pair(edited, check=True)
    assert not pair(edited)
    assert pair(edited)
    nb = book.read(edited)
    assert texts(nb) == ["", "two", "", ""]
    assert is_stale(nb)
    assert status_rows(book.root)[0]["stale"]
    undone = book.add("demo/one", "Text.", *CELLS)
    pair(undone)
    assert is_stale(book.read(undone)), "the output that the edit cost does not come back"


def test_mending_the_text_leaves_the_recording_current(book):
    chapter = book.add("demo/one", "Text.", *CELLS)
    write_recording(chapter, executed(chapter, {1: "one"}), facts(chapter))
    edited = book.add("demo/one", "Better text.", "# With a heading", *CELLS)
    pair(edited)
    assert not is_stale(book.read(edited))


def test_equal_cells_keep_their_own_outputs_and_ids_differ(book):
    chapter = book.add("demo/one", ([], "f()"), ([], "f()"))
    write_recording(chapter, executed(chapter, {0: "first", 1: "second"}), facts(chapter))
    nb = paired(chapter)
    assert texts(nb) == ["first", "second"]
    assert len({cell.id for cell in nb.cells}) == 2


def test_pairing_gives_the_same_file_on_any_machine(book):
    chapter = book.add("demo/one", "Text.", *CELLS)
    pair(chapter)
    first = chapter.notebook.read_text()
    chapter.notebook.unlink()
    pair(Chapter(book.root, "demo/one"))
    assert chapter.notebook.read_text() == first


def test_a_notebook_without_a_page_is_found(book):
    chapter = book.add("demo/one", *CELLS)
    pair(chapter)
    lost = book.root / "notebooks/demo/lost.ipynb"
    lost.write_text(chapter.notebook.read_text())
    assert orphans(book.root) == [lost]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.ipynb"
    path.write_text("old")

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_large_figure_is_stored_with_256_colours_and_looks_the_same():
    columns = np.linspace(0, 255, 300)
    smooth = np.stack([columns + 0 * columns[:, None], columns[:, None] + 0 * columns], axis=2)
    noise = np.random.default_rng(0).integers(0, 8, (300, 300, 4))
    pixels = np.concatenate([smooth, 90 + 0 * smooth[..., :1], 255 + 0 * smooth[..., :1]], axis=2)
    pixels = (pixels - noise).clip(0, 255).astype(np.uint8)
    pixels[..., 3] = 255
    large, small = encoded(pixels), encoded(pixels[:10, :10])
    outputs = [nbformat.v4.new_output("display_data", {"image/png": p}) for p in (large, small)]
    recording.with_palettes(outputs)
    stored = outputs[0].data["image/png"]
    assert len(stored) < 0.6 * len(large)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(stored))).convert("RGB"))
    assert picture.shape == (300, 300, 3)
    assert np.abs(picture.astype(int) - pixels[..., :3]).mean() < 12
    assert outputs[1].data["image/png"] == small


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
