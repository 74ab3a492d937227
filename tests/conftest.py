"""A small checkout of a book in a temporary folder, for the tests of the course tools."""

from pathlib import Path

import pytest
import yaml

REPOSITORY = "https://example.org/book"


def page(*cells, course=None, kernelspec=True) -> str:
    """A page in MyST. A cell is Markdown (a string) or (tags, source) or (metadata, source)."""
    head = {"jupytext": {"text_representation": {"extension": ".md", "format_name": "myst"}}}
    if kernelspec:
        head["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    head["course"] = {"part": "demo", "minutes": 5} | (course or {})
    parts = [f"---\n{yaml.safe_dump(head)}---\n"]
    for cell in cells:
        if isinstance(cell, str):
            parts.append(cell)
            continue
        metadata, source = cell
        if not isinstance(metadata, dict):
            metadata = {"tags": list(metadata)} if metadata else {}
        block = f"---\n{yaml.safe_dump(metadata)}---\n" if metadata else ""
        parts.append(f"```{{code-cell}} ipython3\n{block}{source}\n```")
    return "\n\n".join(parts) + "\n"


class Book:
    """A checkout at `root`; `add` writes a page and returns its chapter."""

    def __init__(self, root: Path):
        self.root = root
        (root / "book").mkdir(parents=True)
        (root / "notebooks").mkdir()
        (root / "jupytext.toml").touch()
        (root / "_config.yml").write_text(f"repository: {{url: {REPOSITORY}}}\n")

    def add(self, name, *cells, text=None, **options):
        from panorama.course.chapters import Chapter

        chapter = Chapter(self.root, name)
        chapter.source.parent.mkdir(parents=True, exist_ok=True)
        chapter.source.write_text(page(*cells, **options) if text is None else text)
        return chapter

    def read(self, chapter):
        """The chapter's notebook as it stands on the disk."""
        import nbformat

        return nbformat.read(chapter.notebook, as_version=4)


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path / "checkout")


@pytest.fixture(scope="module")
def shared_book(tmp_path_factory):
    return Book(tmp_path_factory.mktemp("shared") / "checkout")
