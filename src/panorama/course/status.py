"""What was recorded, when, where, and whether it is still the output of the chapter's code."""

from pathlib import Path

from panorama.course import CourseError
from panorama.course.chapters import Chapter, all_chapters, code_hash


def status_rows(root: Path) -> list[dict]:
    """One row a chapter, by name. Keys: chapter, title, recorded (ISO time or None), device,
    seconds, peak_memory_mb, checks, frameworks, versions, gpu_recorded, gpu, gpu_seconds, stale
    (the code has changed since, or was never recorded), gpu_stale."""
    return [_row(chapter) for chapter in all_chapters(root)]


def _row(chapter: Chapter) -> dict:
    recorded = chapter.recorded()
    default, full = recorded.get("default", {}), recorded.get("full", {})
    try:
        frameworks = chapter.course.frameworks
    except CourseError:
        frameworks = []
    return {
        "chapter": chapter.name,
        "title": title(chapter),
        "recorded": default.get("when"),
        "device": default.get("device", {}).get("cpu"),
        "seconds": default.get("seconds"),
        "peak_memory_mb": default.get("peak_memory_mb"),
        "checks": default.get("checks"),
        "frameworks": frameworks,
        "versions": default.get("versions", {}),
        "gpu_recorded": full.get("when"),
        "gpu": full.get("device", {}).get("gpu"),
        "gpu_seconds": full.get("seconds"),
        "stale": default.get("code") != code_hash(chapter.nb),
        "gpu_stale": bool(full) and full.get("code") != code_hash(chapter.nb, "full"),
    }


def title(chapter: Chapter) -> str:
    """The page's first heading, or its name."""
    for cell in chapter.nb.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return chapter.name


COLUMNS = ("chapter", "recorded", "device", "seconds", "memory", "checks", "GPU", "state")


def cells(row: dict) -> list[str]:
    """The row as text, one string for each of `COLUMNS`."""
    if row["recorded"] is None:
        state = "not recorded"
    else:
        state = "code changed since" if row["stale"] else "current"
    gpu = f"{row['gpu']}, {row['gpu_seconds']:.0f} s" if row["gpu_recorded"] else "–"
    return [
        row["chapter"],
        (row["recorded"] or "–")[:10],
        row["device"] or "–",
        f"{row['seconds']:.0f} s" if row["seconds"] is not None else "–",
        f"{row['peak_memory_mb'] / 1000:.1f} GB" if row["peak_memory_mb"] is not None else "–",
        str(row["checks"]) if row["checks"] is not None else "–",
        gpu + (" (code changed since)" if row["gpu_stale"] else ""),
        state,
    ]


def markdown(root: Path) -> str:
    """The table in Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, status_rows(root))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def show(root: Path, as_markdown: bool) -> None:
    """Print the table; the device only where there is room for it."""
    from rich.console import Console
    from rich.table import Table

    if as_markdown:
        print(markdown(root))
        return
    console = Console()
    shown = [n for n, name in enumerate(COLUMNS) if name != "device" or console.width >= 110]
    table = Table(*[COLUMNS[n] for n in shown])
    for row in status_rows(root):
        text = cells(row)
        table.add_row(*[text[n] for n in shown], style="yellow" if row["stale"] else None)
    console.print(table)
