"""The tools around the chapters: reading, running, recording and checking them."""

import sys

# nbformat imports jsonschema, which would compile a grammar of internationalised addresses at each
# start: more than a second, for a format that no notebook has. jsonschema does without it.
sys.modules.setdefault("rfc3987_syntax", None)

FRAMEWORKS = ("pytorch", "tensorflow")
PROFILES = ("tiny", "default", "full")


class CourseError(Exception):
    """Something the author or the reader can mend. The message is one line that says what."""
