"""One seed for every source of random numbers."""

import random
import sys

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed `random` and numpy, and torch, TensorFlow and Keras where they are already imported.

    Raises ValueError for a seed that numpy cannot take (0 to 2**32 - 1).
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"a seed is an integer from 0 to {2**32 - 1}, and this is {seed}")
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)  # every device
    random.seed(seed)
    np.random.seed(seed)
