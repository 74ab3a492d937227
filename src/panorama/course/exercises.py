"""Stubs from `solution` cells, and the proof that each fails its check."""

import re

from panorama.course.chapters import tags

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PROOF = """\
# Added by the runner: with the stub of this exercise, its check must fail.
for _source in {sources!r}:
    try:
        exec(get_ipython().transform_cell(_source), globals())
    except (NotImplementedError, AssertionError):
        break
else:
    raise AssertionError("the stub of this exercise passes its check")
"""
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


def with_proofs(nb, leave_out) -> None:
    """Put before each `solution` cell of `nb` a code cell that runs its stub and the checks that
    follow, and fails unless the stub or a check does. Cells with a tag in `leave_out` play no part.

    Neighbouring `solution` cells (one a framework) share their checks: one is a stub at a time.
    """
    import nbformat

    code = [c for c in nb.cells if c.cell_type == "code" and not tags(c) & set(leave_out)]
    for number, cell in enumerate(code):
        if "solution" not in tags(cell):
            continue
        first, end = number, number + 1
        while first > 0 and "solution" in tags(code[first - 1]):
            first -= 1
        while end < len(code) and "solution" in tags(code[end]):
            end += 1
        group = [c.source if c is not cell else stub(c.source) for c in code[first:end]]
        while end < len(code) and "check" in tags(code[end]):
            group.append(code[end].source)
            end += 1
        proof = nbformat.v4.new_code_cell(PROOF.format(sources=group))
        proof.metadata["course_cell"] = cell.metadata["course_cell"]
        proof.metadata["proof"] = True
        nb.cells.insert(nb.cells.index(code[first]), proof)
