"""The tools around the chapters: reading, running, recording and checking them."""

FRAMEWORKS = ("pytorch", "tensorflow")
PROFILES = ("tiny", "default", "full")


class CourseError(Exception):
    """Something the author or the reader can mend. The message is one line that says what."""
