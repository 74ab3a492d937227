"""Stubs from `solution` cells."""

import re

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_SPAN = re.compile(rf"^([ \t]*){BEGIN}[ \t]*\n.*?^[ \t]*{END}[ \t]*$", re.MULTILINE | re.DOTALL)


def has_markers(source: str) -> bool:
    """True if the source holds at least one well-formed solution span, and no loose marker."""
    rest = _SPAN.sub("", source)
    return rest != source and BEGIN not in rest and END not in rest


def stub(source: str) -> str:
    """The student's version of a `solution` cell: each span between the markers, markers included,
    becomes `raise NotImplementedError("your code here")` at the indentation of its begin marker.
    Raises ValueError if there is no such span."""
    if not has_markers(source):
        raise ValueError(f"the cell needs a line `{BEGIN}` and, after it, a line `{END}`")
    return _SPAN.sub(r'\1raise NotImplementedError("your code here")', source)
