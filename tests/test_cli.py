"""The command: what it answers to mistakes, and its exit status."""

import json
import subprocess
import sys

import pytest

CELLS = [([], "x = 1"), (["parameters"], "epochs = 3")]


@pytest.fixture
def panorama(book):
    book.add("demo/one", *CELLS)
    book.add("demo/two", *CELLS)

    def call(*arguments, cwd=book.root):
        command = [sys.executable, "-m", "panorama.cli", *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demo/three"], "unknown chapter demo/three; valid are: demo/one, demo/two"),
        (["run", "--profile", "big"], "unknown profile big; valid are: tiny, default, full"),
        (["run", "--framework", "jax"], "unknown framework jax; valid are: pytorch, tensorflow"),
        (
            ["run", "--set", "epoch=1"],
            "book/demo/one.md: unknown parameter epoch; valid are: epochs",
        ),
        (["run", "--set", "epochs"], "--set epochs: give NAME=VALUE with a Python literal"),
        (["run", "--shard", "3/2"], "unknown shard 3/2; valid are K/N with 1 <= K <= N, as 1/3"),
        (["record", "--profile", "tiny"], "cannot record profile tiny; valid are: default, full"),
    ],
)
def test_a_mistake_gets_one_line_that_lists_what_is_valid(panorama, arguments, message):
    answer = panorama(*arguments)
    assert answer.returncode == 2
    assert answer.stderr == f"panorama: {message}\n"


def test_outside_a_checkout_it_says_where_to_go(panorama, tmp_path):
    answer = panorama("status", cwd=tmp_path)
    assert answer.returncode == 2
    assert "is not inside a checkout of the book" in answer.stderr


def test_pair_check_fails_until_pair_has_written(panorama):
    assert panorama("pair", "--check").returncode == 1
    assert panorama("pair").stdout.count("was updated") == 2
    assert panorama("pair", "--check").returncode == 0


def test_run_prints_one_line_a_chapter_and_writes_the_report(panorama, book):
    answer = panorama("run", "book/demo/one.md", "demo/two", "--report", "report.json")
    assert answer.returncode == 0
    assert "ok     demo/one" in answer.stdout
    assert "2 of 2 chapters ran" in answer.stdout
    assert json.loads((book.root / "report.json").read_text())["ok"]


def test_a_failing_chapter_is_shown_in_full_and_the_status_is_1(panorama, book):
    book.add("demo/one", ([], "x = 1"), ([], "assert x == 2, 'x differs'"))
    answer = panorama("run", "demo/one")
    assert answer.returncode == 1
    assert "FAILED demo/one" in answer.stdout
    assert "exception in code cell 2 (book/demo/one.md:" in answer.stdout
    assert "AssertionError: x differs" in answer.stdout


def test_an_unknown_tag_is_found(panorama, book):
    book.add("demo/one", (["raises-exception"], "1 / 0"))
    answer = panorama("check", "demo/one")
    assert answer.returncode == 1
    assert "unknown tag raises-exception; valid are: check, gpu, hide-cell" in answer.stdout


def test_status_as_markdown_has_a_row_for_each_chapter(panorama):
    lines = panorama("status", "--markdown").stdout.splitlines()
    assert lines[0].startswith("| chapter |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| demo/one", "| demo/two"]
    assert all(line.endswith("not recorded |") for line in lines[2:])


def test_help_does_not_load_the_heavy_packages():
    heavy = {"torch", "tensorflow", "papermill", "jupytext", "nbformat", "pydantic", "rich.live"}
    code = f"import sys, panorama.cli; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr
