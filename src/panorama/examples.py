"""Where the examples lie that some chapters run."""

from pathlib import Path

_PLACES = (
    Path(__file__).parent / "_examples",  # in an installed package
    Path(__file__).parents[2] / "examples",  # in the repository
)


def example(name: str) -> Path:
    """The folder of an example, such as `serving`. Read it, and write elsewhere.

    Raises ValueError for a name that is not there.
    """
    folders = {f.name: f for place in _PLACES for f in place.glob("[a-z]*") if f.is_dir()}
    if name not in folders:
        raise ValueError(f"no example named {name!r}: there are {', '.join(sorted(folders))}")
    return folders[name]
