"""Helpers of Deep Learning Panorama.

Importing this package needs numpy and matplotlib only. Import it before the other libraries: it
sets the switches that keep them quiet and off the network, and lets PyTorch and TensorFlow live in
one interpreter.
"""

from panorama import _environment

_environment.prepare()

from panorama import data  # noqa: E402
from panorama.comparison import compare  # noqa: E402
from panorama.devices import device  # noqa: E402
from panorama.examples import example  # noqa: E402
from panorama.glueing import glue  # noqa: E402
from panorama.parameters import parameter_table  # noqa: E402
from panorama.plotting import (  # noqa: E402
    image_grid,
    label_lines,
    learning_curves,
    use_style,
)
from panorama.seeding import seed_everything  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "compare",
    "data",
    "device",
    "example",
    "glue",
    "image_grid",
    "label_lines",
    "learning_curves",
    "parameter_table",
    "seed_everything",
    "use_style",
]
