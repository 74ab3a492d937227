"""Find and read chapters, and keep `notebooks/` in step with `book/`.

A chapter is a page of `book/` with a kernelspec. Its name is its path there without `.md`. The page
is the source; the notebook of the same path in `notebooks/` is generated and carries recorded
outputs.
"""

import copy
import hashlib
import json
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from panorama.course import CourseError
from panorama.course.schema import Course, literal_parameters, read_course


@dataclass(frozen=True)
class Chapter:
    """One chapter: `root` is the checkout, `name` such as `vision/convolution`."""

    root: Path
    name: str

    @property
    def source(self) -> Path:
        return self.root / "book" / f"{self.name}.md"

    @property
    def notebook(self) -> Path:
        return self.root / "notebooks" / f"{self.name}.ipynb"

    @property
    def where(self) -> str:
        """The page's path in the checkout, for messages."""
        return f"book/{self.name}.md"

    @cached_property
    def text(self) -> str:
        return self.source.read_text(encoding="utf-8")

    @cached_property
    def nb(self):
        """The page as a notebook without outputs (an `nbformat` node). Do not change it in
        place."""
        import jupytext

        return jupytext.reads(self.text, fmt={"extension": ".md", "format_name": "myst"})

    @cached_property
    def course(self) -> Course:
        return read_course(front_matter(self.root, self.source).get("course"), self.where)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The defaults of the cell tagged `parameters`; empty if there is none."""
        for cell in code_cells(self.nb):
            if "parameters" in tags(cell):
                return literal_parameters(cell.source, self.where)
        return {}

    @cached_property
    def lines(self) -> list[int]:
        """For each cell of `nb`, the line of the page on which its text starts (1-based)."""
        page = self.text.splitlines()
        found, at = [], 0
        for cell in self.nb.cells:
            first = next((line for line in cell.source.splitlines() if line.strip()), None)
            if cell.cell_type == "code":
                while at < len(page) and not page[at].startswith("```{code-cell}"):
                    at += 1
            start = at
            while first is not None and start < len(page) and page[start].strip() != first.strip():
                start += 1
            if first is not None and start < len(page):
                at = start + 1
                found.append(at)
            else:
                found.append(min(at + 1, len(page)))
        return found

    def recorded(self) -> dict[str, Any]:
        """The provenance in the notebook's metadata: keys `default` and `full`, or empty."""
        try:
            return json.loads(self.notebook.read_text(encoding="utf-8"))["metadata"]["recorded"]
        except (OSError, KeyError, ValueError):
            return {}


def find_root(start: Path | None = None) -> Path:
    """The checkout that holds `start` (the working directory by default)."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "book").is_dir() and (folder / "jupytext.toml").is_file():
            return folder
    raise CourseError(f"{start} is not inside a checkout of the book: go there and try again")


def front_matter(root: Path, page: Path) -> dict[str, Any]:
    """The YAML block at the head of a page; empty if it has none."""
    import yaml

    head, *rest = page.read_text(encoding="utf-8").partition("\n---")
    if not head.startswith("---\n") or not rest[0]:
        return {}
    try:
        return yaml.safe_load(head) or {}
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        where = page.relative_to(root)
        raise CourseError(f"{where}: the front matter is not valid YAML: {message}") from None


def all_chapters(root: Path) -> list[Chapter]:
    """Every page with a kernelspec, by name. A page whose YAML is broken counts as a chapter."""
    chapters = []
    for page in sorted((root / "book").rglob("*.md")):
        path = page.relative_to(root / "book")
        if any(part.startswith(("_", ".")) for part in path.parts):
            continue
        try:
            is_chapter = "kernelspec" in front_matter(root, page)
        except CourseError:
            is_chapter = True
        if is_chapter:
            chapters.append(Chapter(root, path.with_suffix("").as_posix()))
    return chapters


def select(root: Path, names: list[str]) -> list[Chapter]:
    """The named chapters (all if none is named); `book/vision/convolution.md` is a name too."""
    chapters = {chapter.name: chapter for chapter in all_chapters(root)}
    if not names:
        return list(chapters.values())
    wanted = []
    for name in names:
        short = name.removeprefix("book/").removeprefix("notebooks/")
        short = short.removesuffix(".md").removesuffix(".ipynb")
        if short not in chapters:
            raise CourseError(f"unknown chapter {name}; valid are: {', '.join(chapters) or 'none'}")
        if chapters[short] not in wanted:
            wanted.append(chapters[short])
    return wanted


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(nb) -> list:
    """The code cells that hold code."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def code_hash(nb, profile: str = "default") -> str:
    """A hash of the code whose outputs a recording shows. Text and `gpu` cells do not enter that of
    the default profile, so that mending a sentence leaves a recording valid."""
    cells = [c.source for c in code_cells(nb) if profile == "full" or "gpu" not in tags(c)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def is_stale(nb) -> bool:
    """True if the notebook was never recorded, its code has changed since, or a cell has lost its
    output (`pair` drops it when the code changes; changing the code back does not restore it)."""
    recorded = nb.metadata.get("recorded", {}).get("default", {})
    ran = all(cell.execution_count or "gpu" in tags(cell) for cell in code_cells(nb))
    return recorded.get("code") != code_hash(nb) or not ran


def write_atomically(path: Path, text: str) -> None:
    """Write the whole file or leave the old one: a temporary file beside it, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def to_text(nb) -> str:
    import nbformat

    return nbformat.writes(nb, version=4) + "\n"


def read_notebook(path: Path):
    """The notebook, or None where there is none. A broken one is a `CourseError`."""
    import nbformat

    if not path.exists():
        return None
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise CourseError(f"{path}: not a notebook ({error}); delete it and try again") from None


def paired(chapter: Chapter):
    """The chapter's notebook as it should stand in `notebooks/`: the page's cells and metadata,
    with the recorded outputs of cells whose source has not changed. Cell ids derive from the
    content."""
    old = read_notebook(chapter.notebook)
    nb = copy.deepcopy(chapter.nb)
    nb.metadata.pop("jupytext", None)
    nb.nbformat_minor = 5
    outputs = defaultdict(list)
    if old is not None:
        for cell in code_cells(old):
            outputs[cell.source].append(cell)
        if "recorded" in old.metadata:
            nb.metadata["recorded"] = old.metadata["recorded"]
    seen = defaultdict(int)
    for cell in nb.cells:
        key = f"{cell.cell_type}\n{cell.source}"
        cell.id = hashlib.sha256(f"{key}\n{seen[key]}".encode()).hexdigest()[:12]
        seen[key] += 1
        if cell.cell_type == "code" and outputs[cell.source]:
            match = outputs[cell.source].pop(0)
            cell.outputs, cell.execution_count = match.outputs, match.execution_count
    return nb


def pair(chapter: Chapter, check: bool = False) -> bool:
    """Bring the notebook in step with the page; with `check` only look. True if it was in step."""
    text = to_text(paired(chapter))
    path = chapter.notebook
    in_step = path.exists() and path.read_text(encoding="utf-8") == text
    if not in_step and not check:
        write_atomically(path, text)
    return in_step


def orphans(root: Path) -> list[Path]:
    """Notebooks without a page."""
    expected = {chapter.notebook for chapter in all_chapters(root)}
    found = (root / "notebooks").rglob("*.ipynb")
    return sorted(p for p in found if p not in expected and ".ipynb_checkpoints" not in p.parts)
