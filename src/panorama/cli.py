"""The command `panorama`: run, record, check and pair chapters, show their state; data sets."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:
    raise SystemExit(
        "The panorama command needs more than the helpers do: pip install 'dl-panorama[tools]'"
    ) from None

from panorama.course import FRAMEWORKS, PROFILES, CourseError

commands = typer.Typer(
    help="Tools of Deep Learning Panorama. A chapter's name is its path in book/ without .md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
if importlib.util.find_spec("panorama.data.cli"):
    from panorama.data.cli import data_app

    commands.add_typer(data_app, name="data")

Chapters = Annotated[list[str] | None, typer.Argument(help="Chapters; all if none is named.")]
Jobs = Annotated[
    int, typer.Option(min=1, help="Chapters side by side, one thread each if several.")
]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which a chapter is killed.")]
Slack = Annotated[
    float, typer.Option(envvar="PANORAMA_SLACK", help="Multiplies the time budgets.", min=0.1)
]
Framework = Annotated[
    list[str] | None, typer.Option(help="pytorch or tensorflow; both if not given.")
]
Gpu = Annotated[bool, typer.Option("--gpu", help="Execute the cells tagged gpu. Needs CUDA.")]
Report = Annotated[Path | None, typer.Option(help="Write the results as JSON.")]


@commands.command()
def run(
    chapters: Chapters = None,
    profile: Annotated[str, typer.Option(help="tiny, default or full.")] = "default",
    framework: Framework = None,
    gpu: Gpu = False,
    jobs: Jobs = 1,
    shard: Annotated[str, typer.Option(help="K/N: the K-th of N parts.")] = "1/1",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a parameter.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="No network for the chapters.")
    ] = False,
    prove: Annotated[bool, typer.Option("--prove", help="Each exercise's stub must fail.")] = False,
    timeout: Timeout = None,
    slack: Slack = 1.0,
    report: Report = None,
):
    """Run chapters; fail if any cell, check or budget does."""
    from panorama.course import runner

    wanted = runner.shard(_select(chapters), shard)
    options = _options(profile, framework, gpu, jobs, timeout, slack)
    options.offline, options.prove = offline, prove
    options.set = _assignments(set_ or [])
    runner.check_set(wanted, options.set)
    if gpu:
        runner.cuda_device(options.frameworks)
    _execute(runner.run, wanted, options, report)


@commands.command()
def record(
    chapters: Chapters = None,
    profile: Annotated[str, typer.Option(help="default, or full with --gpu.")] = "default",
    framework: Framework = None,
    gpu: Gpu = False,
    jobs: Jobs = 1,
    timeout: Timeout = None,
    slack: Slack = 1.0,
    report: Report = None,
):
    """Run chapters and keep their outputs, with provenance, in notebooks/."""
    from panorama.course.record import record as record_chapters

    wanted = _select(chapters)
    options = _options(profile, framework, gpu, jobs, timeout, slack)
    _execute(record_chapters, wanted, options, report)


@commands.command()
def check(chapters: Chapters = None):
    """Look for faults in front matter, tags, imports, pairs and style budgets, without running."""
    from panorama.course.check import findings

    found = findings(_select(chapters), whole_book=not chapters)
    for line in found:
        typer.echo(line)
    if found:
        raise typer.Exit(1)


@commands.command()
def pair(
    chapters: Chapters = None,
    check: Annotated[bool, typer.Option("--check", help="Only look; fail if out of step.")] = False,
):
    """Bring notebooks/ in step with book/. Recorded outputs of unchanged cells stay."""
    from panorama.course.chapters import pair as pair_chapter

    behind = [chapter for chapter in _select(chapters) if not pair_chapter(chapter, check)]
    for chapter in behind:
        typer.echo(f"{chapter.where}: the notebook {'is not in step' if check else 'was updated'}")
    if check and behind:
        raise typer.Exit(1)


@commands.command()
def status(
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
):
    """What was recorded, when, on which device, and whether the code has changed since."""
    from panorama.course.status import show

    show(_root(), markdown)


def _root() -> Path:
    from panorama.course.chapters import find_root

    return find_root()


def _select(names):
    from panorama.course.chapters import select

    return select(_root(), list(names or []))


def _options(profile, framework, gpu, jobs, timeout, slack):
    from panorama.course.runner import Options

    if profile not in PROFILES:
        raise CourseError(f"unknown profile {profile}; valid are: {', '.join(PROFILES)}")
    for name in framework or []:
        if name not in FRAMEWORKS:
            raise CourseError(f"unknown framework {name}; valid are: {', '.join(FRAMEWORKS)}")
    frameworks = tuple(name for name in FRAMEWORKS if name in (framework or FRAMEWORKS))
    return Options(profile, frameworks, gpu, jobs, timeout=timeout, slack=slack)


def _assignments(items: list[str]) -> dict:
    values = {}
    for item in items:
        name, equals, text = item.partition("=")
        try:
            if not equals:
                raise ValueError
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise CourseError(f"--set {item}: give NAME=VALUE with a Python literal") from None
    return values


def _execute(action, chapters, options, report):
    from panorama.course.display import Display
    from panorama.course.runner import write_report

    try:
        with Display(chapters, options) as display:
            results = action(chapters, options, display.listen)
    except KeyboardInterrupt:
        typer.echo("panorama: interrupted; every chapter was stopped", err=True)
        raise typer.Exit(130) from None
    if report:
        write_report(report, results, options)
    display.summary(results)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def app() -> None:
    """The entry point: what the user can mend is a one-line error with exit status 2."""
    try:
        commands()
    except CourseError as error:
        typer.echo(f"panorama: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    app()
