"""What can be said against a chapter without running it. One finding a line: `path:line:
message`."""

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from panorama.course import FRAMEWORKS, CourseError, sources
from panorama.course.chapters import (
    Chapter,
    all_chapters,
    front_matter,
    is_stale,
    orphans,
    pair,
    read_notebook,
    tags,
)
from panorama.course.exercises import BEGIN, END, has_markers
from panorama.course.schema import EXTRAS, TAGS, refuse_unknown

# The budgets of STYLE for chapters; pages of `part: front` are exempt.
WORDS = (2000, 4500)
CODE_CELLS = (15, 40)
MEDIAN_LINES, MAX_LINES, COLUMNS = 12, 40, 100
FIGURES, REFERENCES, EXERCISES = 3, 5, 4
DETERMINISTIC = 1  # cells whose printed text the tests compare with the recording

INSTALL = """import importlib.util
if importlib.util.find_spec("panorama") is None:
    %pip install -q "dl-panorama[{extras}] @ git+{url}\""""

Finding = tuple[int, str]
_DIRECTIVE = re.compile(r"^\s*(?::{3,}|`{3,})\{([\w-]+)\}")
_CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def findings(chapters: list[Chapter], whole_book: bool = False) -> list[str]:
    """Everything found, in the order of the pages. `whole_book` adds what belongs to no chapter."""
    found = []
    for chapter in chapters:
        try:
            for line, message in sorted(set(_chapter(chapter))):
                found.append(f"{chapter.where}:{line}: {message}")
        except CourseError as error:
            found.append(_with_line(str(error)))
    if whole_book and chapters:
        found += whole_book_findings(chapters[0].root)
    return found


def _with_line(message: str) -> str:
    path, colon, rest = message.partition(": ")
    return f"{path}:1: {rest}" if colon and ":" not in path else message


def whole_book_findings(root: Path) -> Iterator[str]:
    """Notebooks without a page, and pages without a kernelspec that look like chapters."""
    for path in orphans(root):
        yield f"{path.relative_to(root)}:1: no page in book/ has this name; remove it, or rename it"
    names = {chapter.name for chapter in all_chapters(root)}
    for page in sorted((root / "book").rglob("*.md")):
        name = page.relative_to(root / "book").with_suffix("").as_posix()
        if name in names or any(part.startswith(("_", ".")) for part in name.split("/")):
            continue
        where = page.relative_to(root)
        if "course" in front_matter(root, page):
            yield f"{where}:1: a page without kernelspec has no `course:` block"
        for line, text in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            if text.startswith("```{code-cell}"):
                yield f"{where}:{line}: a code cell, but the front matter has no kernelspec"


def _chapter(chapter: Chapter) -> Iterator[Finding]:
    course = chapter.course  # first: without it nothing else can be read
    code = [
        (line, cell)
        for line, cell in zip(chapter.lines, chapter.nb.cells, strict=True)
        if cell.cell_type == "code" and cell.source.strip()
    ]
    yield from _front_matter(chapter, code)
    yield from _nested_cells(chapter)
    for line, cell in code:
        yield from _cell(line, cell)
    yield from _solutions(code)
    yield from _import_order(code)
    yield from _install(chapter, code)
    yield from _notebook(chapter)
    if course.part != "front":
        yield from _budgets(chapter, code)


def _front_matter(chapter: Chapter, code) -> Iterator[Finding]:
    course = chapter.course
    parameter_cells = [line for line, cell in code if "parameters" in tags(cell)]
    front = course.part == "front"
    if len(parameter_cells) > 1 or (not front and not parameter_cells):
        yield 1, f"{len(parameter_cells)} cells tagged `parameters`; a chapter has exactly one"
    for profile in ("tiny", "full"):
        try:
            refuse_unknown(
                course.values(profile), chapter.parameters, f"course.parameters.{profile}"
            )
        except CourseError as error:
            yield 1, str(error).removeprefix(f"{chapter.where}: ")
    folder = chapter.name.rpartition("/")[0]
    opens_a_part = front and chapter.name.endswith("/index")
    if folder and not opens_a_part and course.part != folder.partition("/")[0]:
        yield 1, f"course.part is {course.part}, but the page stands in book/{folder}/"
    if not front and not course.outcomes:
        yield 1, "course.outcomes: a chapter says what its reader can do afterwards"
    for name in course.prerequisites:
        if not (chapter.root / "book" / f"{name}.md").is_file():
            yield 1, f"course.prerequisites: there is no page {name}"
    known = _data_sets()
    for name in course.data:
        if known is not None and name not in known:
            yield 1, f"course.data: unknown data set {name}; valid are: {', '.join(sorted(known))}"
    used = {tag for _, cell in code for tag in tags(cell) & set(FRAMEWORKS)}
    for name in sorted(used - set(course.frameworks)):
        yield 1, f"course.frameworks lacks {name}, which cells are tagged with"
    imported = {name for _, cell in code for name, _ in sources.imports(cell.source)}
    needed = {EXTRAS[name] for name in imported & set(EXTRAS)}
    for name in sorted(needed - set(course.extras)):
        packages = ", ".join(sorted(n for n in imported if EXTRAS.get(n) == name))
        yield 1, f"course.extras lacks {name}, which {packages} comes with"
    for name in sorted(set(course.extras) - needed):
        yield 1, f"course.extras names {name}, but no cell imports what it brings"
    for name in sorted(set(course.frameworks) - used):
        yield 1, f"course.frameworks names {name}, but no cell is tagged with it"


def _data_sets() -> set[str] | None:
    try:
        from panorama.data import registry
    except ImportError:
        return None
    return set(registry.REGISTRY)


def _nested_cells(chapter: Chapter) -> Iterator[Finding]:
    for line, text in enumerate(chapter.text.splitlines(), start=1):
        if "{code-cell}" in text and not text.startswith("```{code-cell} ipython3"):
            yield line, "a code cell starts with ```{code-cell} ipython3, outside other directives"


def _cell(line: int, cell) -> Iterator[Finding]:
    own = tags(cell)
    for tag in sorted(own - TAGS):
        yield line, f"unknown tag {tag}; valid are: {', '.join(sorted(TAGS))}"
    if ("gpu" in own) != ("skip-execution" in own):
        yield line, "the tags gpu and skip-execution stand together or not at all"
    if "gpu" in own and sources.defines(cell.source):
        yield line, "a gpu cell calls; move the definition to a cell that every profile runs"
    if "solution" in own and not has_markers(cell.source):
        yield line, f"a solution cell has a line `{BEGIN}` and, after it, a line `{END}`"
    if "solution" not in own and (BEGIN in cell.source or END in cell.source):
        yield line, "solution markers in a cell that is not tagged `solution`"
    if "check" in own and not sources.can_fail(cell.source):
        yield line, "a check cell asserts or compares; this one cannot fail"
    if len(cell.source.splitlines()) > MAX_LINES:
        yield line, f"{len(cell.source.splitlines())} lines in one cell; at most {MAX_LINES}"
    for at, text in enumerate(cell.source.splitlines()):
        if len(text) > COLUMNS and "remove-cell" not in own:
            yield line + at, f"{len(text)} characters in a line of code; at most {COLUMNS}"
    for message, at in sources.unsafe_loads(cell.source):
        yield line + at - 1, f"{message}; use safetensors, or weights_only=True"
    for key in sorted(set(cell.metadata) - {"tags", "mystnb", "deterministic"}):
        yield line, f"unknown cell metadata {key}; valid are: deterministic, mystnb, tags"
    mystnb = cell.metadata.get("mystnb", {})
    caption = mystnb.get("figure", {}).get("caption")
    if bool(caption) != bool(mystnb.get("image", {}).get("alt")):
        missing = "an alternative text (mystnb.image.alt)" if caption else "a caption"
        yield line, f"this cell's figure lacks {missing}"


def _solutions(code) -> Iterator[Finding]:
    for number, (line, cell) in enumerate(code):
        if "solution" in tags(cell):
            later = [
                tags(other) for _, other in code[number + 1 :] if "solution" not in tags(other)
            ]
            if not later or "check" not in later[0]:
                yield line, "no check cell follows this solution"


def _import_order(code) -> Iterator[Finding]:
    """TensorFlow before torch crashes the interpreter. What imports torch only when it is used
    (transformers, diffusers) does not protect."""
    found = [(n, line + at - 1) for line, c in code for n, at in sources.imports(c.source)]
    first_torch = next((i for i, (n, _) in enumerate(found) if n in sources.TORCH_AT_ONCE), None)
    first_tensorflow = next((i for i, (n, _) in enumerate(found) if n in sources.TENSORFLOW), None)
    if first_tensorflow is None or not any(name in sources.TORCH for name, _ in found):
        return
    if first_torch is None or first_tensorflow < first_torch:
        name, line = found[first_tensorflow]
        yield line, f"{name} is imported before torch, which crashes the interpreter: torch first"


def install_cell(root: Path, extras: list[str]) -> str:
    """The source of the cell that installs the package in Colab, with the chapter's extras."""
    import yaml

    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return INSTALL.format(extras=",".join(["data", *extras]), url=config["repository"]["url"])


def _install(chapter: Chapter, code) -> Iterator[Finding]:
    uses = any(n == "panorama" for _, cell in code for n, _ in sources.imports(cell.source))
    if not code or (chapter.course.part == "front" and not uses):
        return
    line, first = code[0]
    wanted = install_cell(chapter.root, chapter.course.extras)
    if first.source.strip() != wanted or "remove-cell" not in tags(first):
        text = wanted.replace("\n", "\\n")
        yield line, f"the first code cell, tagged remove-cell, must be the Colab install: {text}"


def _notebook(chapter: Chapter) -> Iterator[Finding]:
    if not pair(chapter, check=True):
        yield 1, "the notebook is not in step with the page: run `panorama pair`"
        return
    nb = read_notebook(chapter.notebook)
    if is_stale(nb):
        state = "is older than the code" if "recorded" in nb.metadata else "does not exist"
        yield 1, f"the recording {state}: run `panorama record {chapter.name}`"
    for line, cell in zip(chapter.lines, nb.cells, strict=True):
        if cell.cell_type == "code" and not tags(cell) & {"remove-cell", "remove-output"}:
            image = any("image/png" in output.get("data", {}) for output in cell.outputs)
            if image and "figure" not in cell.metadata.get("mystnb", {}):
                yield line, "this cell's figure lacks a caption and an alternative text"


def _budgets(chapter: Chapter, code) -> Iterator[Finding]:
    text = [cell.source for cell in chapter.nb.cells if cell.cell_type == "markdown"]
    yield from _within("words", sum(map(words, text)), *WORDS)
    shown = [cell for _, cell in code if "remove-cell" not in tags(cell)]
    yield from _within("code cells", count_cells(shown), *CODE_CELLS)
    lengths = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in shown]
    if lengths and median(lengths) > MEDIAN_LINES:
        yield 1, f"the median cell has {median(lengths):g} lines; at most {MEDIAN_LINES}"
    figures = sum(bool(c.metadata.get("mystnb", {}).get("figure")) for c in shown)
    yield from _within("figures with caption", figures, FIGURES)
    marked = sum(bool(c.metadata.get("deterministic")) for c in shown)
    yield from _within("cells with `deterministic: true`", marked, DETERMINISTIC)
    cited = {key.strip() for t in text for group in _CITE.findall(t) for key in group.split(",")}
    yield from _within("distinct references", len(cited), REFERENCES)
    exercises = list(_exercises(chapter))
    yield from _within("exercises", len(exercises), EXERCISES)
    for line, answered in exercises:
        if not answered:
            yield line, "this exercise has neither a solution cell nor an answer in a dropdown"


def _within(what: str, number: int, low: int, high: int | None = None) -> Iterator[Finding]:
    if number < low or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        yield 1, f"{number} {what}; a chapter has {limits}"


def words(text: str) -> int:
    """Words of prose: without display mathematics, code blocks, directive lines and comments. A
    formula in the line counts as one word."""
    text = re.sub(r"\$\$.*?\$\$|^```(?!\{).*?^```", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\s*(?:[:`]{3,}.*|:[\w-]+:.*|%.*|\(.*\)=)$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\$[^$\n]+\$", "x", text)
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def count_cells(cells) -> int:
    """Code cells, where neighbours that differ in framework only (a pair of tabs) count once, and
    an exercise's solution (hidden behind a click) and the check after it do not count."""
    number, previous, solution = 0, set(), False
    for cell in cells:
        solution = "solution" in tags(cell) or (solution and "check" in tags(cell))
        if solution:
            continue
        own = tags(cell) & set(FRAMEWORKS)
        if not (len(own) == len(previous) == 1 and own != previous):
            number += 1
            previous = own
        else:
            previous = set()
    return number


def _exercises(chapter: Chapter) -> Iterator[tuple[int, bool]]:
    """Each exercise's line, and whether an answer stands before the next exercise."""
    start, answered = None, False
    for line, cell in zip(chapter.lines, chapter.nb.cells, strict=True):
        if "solution" in tags(cell):
            answered = True
        if cell.cell_type != "markdown":
            continue
        first = next((n for n, t in enumerate(cell.source.splitlines()) if t.strip()), 0)
        for number, text in enumerate(cell.source.splitlines()):
            match = _DIRECTIVE.match(text)
            kind = match.group(1) if match else ""
            if kind in ("exercise", "exercise-start"):
                if start is not None:
                    yield start, answered
                start, answered = line + number - first, False
            elif kind in ("dropdown", "solution"):
                answered = True
    if start is not None:
        yield start, answered
