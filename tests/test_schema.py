"""The front matter of a chapter: what is refused, and with which words."""

import pytest

from panorama.course import CourseError
from panorama.course.schema import literal_parameters, read_course, refuse_unknown

MINIMAL = {"part": "vision", "minutes": 30}


def refusal(block):
    with pytest.raises(CourseError) as caught:
        read_course(block, "book/a.md")
    return str(caught.value)


def test_a_course_needs_a_part_and_minutes_only():
    course = read_course(MINIMAL, "book/a.md")
    assert course.frameworks == []
    assert course.values("tiny") == {}


def test_each_profile_has_its_values_and_the_default_none():
    parameters = {"tiny": {"epochs": 1}, "full": {"epochs": 20}}
    course = read_course(MINIMAL | {"parameters": parameters}, "book/a.md")
    assert [course.values(p) for p in ("tiny", "default", "full")] == [
        {"epochs": 1}, {}, {"epochs": 20},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": "75"}, "course.minutes: Input should be a valid integer"),
        ({"minutes": 0}, "course.minutes: Input should be greater than 0"),
        ({"frameworks": ["jax"]}, "course.frameworks.0: Input should be 'pytorch' or 'tensorflow'"),
        ({"extras": ["cooking"]}, "course.extras.0: Input should be 'deployment', 'generative'"),
        ({"time": 5}, "course.time: unknown field; valid are budget, data, extras, frameworks"),
        (
            {"parameters": {"small": {}}},
            "course.parameters.small: unknown field; valid are full, tiny",
        ),
        ({"budget": {"seconds": 300}}, "course.budget.reason: is missing"),
        ({"budget": {"seconds": 900, "reason": "because I can"}}, "course.budget.seconds: Input"),
    ],
)
def test_a_refusal_names_the_file_the_field_and_what_is_valid(change, message):
    assert refusal(MINIMAL | change).startswith(f"book/a.md: {message}")


def test_all_faults_are_told_at_once():
    message = refusal({"minutes": "x"})
    assert "course.part: is missing" in message
    assert "course.minutes:" in message


def test_no_course_block_is_told_as_such():
    assert refusal(None) == "book/a.md: the front matter has no `course:` block"


def test_the_parameters_cell_holds_plain_literals():
    source = "# how much\nepochs: int = 3\nsizes = [1, -2]  # a list is a literal\nname = 'a'"
    assert literal_parameters(source, "a") == {"epochs": 3, "sizes": [1, -2], "name": "a"}


@pytest.mark.parametrize(
    "line", ["n = 2 * m", "a, b = 1, 2", "import os", "x.y = 1", "n += 1", "n:int"]
)
def test_anything_else_in_the_parameters_cell_is_refused_with_its_line(line):
    with pytest.raises(CourseError, match="only NAME = LITERAL may stand there") as caught:
        literal_parameters(f"epochs = 3\n{line}", "a")
    assert f"`{line}`" in str(caught.value)


def test_an_unknown_parameter_lists_the_valid_ones():
    with pytest.raises(CourseError, match="unknown parameter epoch; valid are: epochs, size"):
        refuse_unknown({"epoch": 1}, {"size": 1, "epochs": 3}, "a")
