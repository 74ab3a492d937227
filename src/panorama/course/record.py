"""Keep the outputs of a run, with their provenance, in `notebooks/`."""

import base64
import datetime
import io
import json
import re
import tempfile
from pathlib import Path

from PIL import Image

from panorama.course import CourseError, runner
from panorama.course.chapters import (
    Chapter,
    code_cells,
    code_hash,
    paired,
    read_notebook,
    tags,
    to_text,
    write_atomically,
)

MAX_BYTES = 1_000_000
LARGE_FIGURE = 40_000  # bytes of a PNG file
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
# What TensorFlow logs when it is imported, whatever TF_CPP_MIN_LOG_LEVEL says: absl's notice, and
# lines of level "information". It differs from machine to machine and says nothing to a reader.
_LOGGED_AT_IMPORT = re.compile(
    r"^(WARNING: All log messages before absl::InitializeLog|I\d{4} \d\d:).*\n?", re.MULTILINE
)


def record(chapters: list[Chapter], options: runner.Options, listen=None) -> list[runner.Result]:
    """Run the chapters and write the outputs of those that succeed into their notebooks.

    The default profile writes the outputs of all cells that ran, and keeps those of `gpu` cells
    whose source has not changed. The full profile writes those of `gpu` cells only. A chapter that
    fails, or whose outputs are not fit to be kept, leaves its notebook as it was, and its result
    says why; what was executed is then found in _build/refused.
    """
    if options.profile not in ("default", "full"):
        raise CourseError(f"cannot record profile {options.profile}; valid are: default, full")
    if options.gpu != (options.profile == "full"):
        raise CourseError("the full profile is recorded with --gpu, the default one without")
    if options.profile == "default":
        for chapter in chapters:
            missing = sorted(set(chapter.course.frameworks) - set(options.frameworks))
            if missing:
                raise CourseError(
                    f"{chapter.where}: a recording needs all its frameworks; add {missing[0]}"
                )
    gpu = runner.cuda_device(options.frameworks) if options.gpu else None
    device = {"cpu": runner.cpu_name(), "cores": runner.cores(), "gpu": gpu}
    with tempfile.TemporaryDirectory(prefix="panorama-record-") as folder:
        options.keep = Path(folder)

        def write(event, chapter, details):
            result, path = details.get("result"), options.keep / f"{chapter.name}.ipynb"
            if event == "end" and result.ok:
                try:
                    executed = read_notebook(path)
                    write_recording(chapter, executed, provenance(result, chapter, options, device))
                except CourseError as error:
                    result.ok, result.error = False, {"kind": "record", "message": str(error)}
            if event == "end" and not result.ok and path.is_file():
                kept = Path("_build") / "refused" / f"{chapter.name}.ipynb"
                write_atomically(chapter.root / kept, path.read_text(encoding="utf-8"))
                result.error["message"] += f" (the executed notebook is kept: {kept})"
            if listen:
                listen(event, chapter, details)

        return runner.run(chapters, options, write)


def provenance(result, chapter: Chapter, options: runner.Options, device: dict) -> dict:
    """When, where, with what and for how long: the value of `recorded.default` or
    `recorded.full`."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    known = set(chapter.course.frameworks)
    return {
        "when": now.isoformat().replace("+00:00", "Z"),
        "profile": options.profile,
        "frameworks": [name for name in options.frameworks if name in known],
        "device": device,
        "python": result.provenance["python"],
        "versions": result.provenance["versions"],
        "seconds": round(result.seconds, 1),
        "peak_memory_mb": result.peak_memory_mb,
        "cells_run": result.cells_run,
        "cells_left_out": result.cells_left_out,
        "checks": result.checks,
        "code": code_hash(chapter.nb, options.profile),
    }


def write_recording(chapter: Chapter, executed, facts: dict) -> None:
    """Put the outputs of `executed` into the chapter's notebook, atomically.

    Raises CourseError, and writes nothing, if the page has changed during the run or if an output
    is not fit to be kept: anything on stderr, a memory address, a path of this machine, or over 1
    MB."""
    nb = paired(Chapter(chapter.root, chapter.name))
    if code_hash(nb, "full") != code_hash(chapter.nb, "full"):
        raise CourseError(f"{chapter.where}: the page was edited during the run; record it again")
    full = facts["profile"] == "full"
    ran = {}
    for cell in code_cells(executed):
        if "course_cell" in cell.metadata and cell.execution_count is not None:
            ran[cell.metadata["course_cell"]] = cell
    problems = []
    for number, cell in enumerate(nb.cells):
        if cell.cell_type != "code" or ("gpu" in tags(cell)) != full:
            continue
        source = ran.get(number)
        cell.outputs = [] if source is None else without_log(source.outputs)
        with_palettes(cell.outputs)
        cell.execution_count = None if source is None else source.execution_count
        for problem in unfit(cell.outputs, chapter.root):
            problems.append(f"{chapter.where}:{chapter.lines[number]}: {problem}")
    if problems:
        raise CourseError("; ".join(problems))
    recorded = dict(nb.metadata.get("recorded", {}))
    recorded["full" if full else "default"] = facts
    nb.metadata["recorded"] = recorded
    text = to_text(nb)
    if len(text.encode()) > MAX_BYTES:
        sizes = ((len(json.dumps(c.outputs)), n) for n, c in enumerate(nb.cells) if "outputs" in c)
        size, number = max(sizes)
        raise CourseError(
            f"{chapter.where}:{chapter.lines[number]}: the notebook would have "
            f"{len(text.encode()) / 1e6:.1f} MB, more than 1; this cell's outputs {size / 1e6:.1f}"
        )
    write_atomically(chapter.notebook, text)


def without_log(outputs) -> list:
    """The outputs without the lines that TensorFlow logs at its import."""
    kept = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            output.text = _LOGGED_AT_IMPORT.sub("", output.text)
            if not output.text.strip():
                continue
        kept.append(output)
    return kept


def with_palettes(outputs) -> None:
    """Store large figures with 256 colours each: a third of the bytes, and no difference to see."""
    for output in outputs:
        data = output.get("data", {})
        figure = base64.b64decode(data.get("image/png", ""))
        if len(figure) > LARGE_FIGURE:
            file = io.BytesIO()
            with Image.open(io.BytesIO(figure)) as picture:
                opaque = Image.alpha_composite(
                    Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")
                )
                palette = opaque.convert("RGB").quantize(256, dither=Image.Dither.NONE)
                palette.save(file, "PNG", optimize=True)
            data["image/png"] = base64.b64encode(file.getvalue()).decode() + "\n"


def unfit(outputs, root: Path) -> list[str]:
    """What in a cell's outputs must not be recorded, one phrase each."""
    problems = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            first = (output.text.strip().splitlines() or [""])[0]
            problems.append(f"this cell writes to stderr: {first[:120]}")
            continue
        data = {"text/plain": output.get("text", "")} | dict(output.get("data", {}))
        for kind, value in data.items():
            if not kind.startswith("text/") or not isinstance(value, str):
                continue
            if _ADDRESS.search(value):
                problems.append(
                    "this cell's output holds a memory address, which changes each time"
                )
            for place in (str(root), f"{Path.home()}/", f"{tempfile.gettempdir()}/"):
                if place in value:
                    problems.append(f"this cell's output holds a path of this machine ({place})")
                    break
    return problems
