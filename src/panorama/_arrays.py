"""From any framework's tensor to numpy."""

import numpy as np


def to_numpy(tensor) -> np.ndarray:
    """A numpy array with the values of a numpy, PyTorch, TensorFlow or Keras tensor, or a list."""
    if hasattr(tensor, "detach"):  # PyTorch
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such type
            tensor = tensor.float()
    if hasattr(tensor, "numpy"):
        tensor = tensor.numpy()
    return np.asarray(tensor)
