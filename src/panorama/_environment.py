"""Switches that have to be set before other libraries are imported, and a guard on import order."""

import importlib.abc
import importlib.machinery
import os
import sys

# Set only where the reader has not chosen otherwise.
SWITCHES = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # TensorFlow: errors only
    "KERAS_BACKEND": "tensorflow",
    "TOKENIZERS_PARALLELISM": "false",  # no warning after a fork
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
    "YOLO_OFFLINE": "true",  # ultralytics: no usage reports, no look for updates
    "DO_NOT_TRACK": "1",
}

TORCH_TOO_LATE = (
    "import torch before tensorflow: the other order crashes the Python interpreter. "
    "Restart the kernel and let `import torch` stand above `import tensorflow`."
)


class _RefuseToLoad(importlib.abc.Loader):
    def create_module(self, spec):
        raise ImportError(TORCH_TOO_LATE, name="torch")

    def exec_module(self, module):
        raise ImportError(TORCH_TOO_LATE, name="torch")


class TorchFirst(importlib.abc.MetaPathFinder):
    """Refuses to load torch once TensorFlow is there.

    `importlib.util.find_spec("torch")` still tells whether torch is installed: libraries ask.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torch" or "tensorflow" not in sys.modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _RefuseToLoad()
        return spec


def prepare():
    """Set the switches and install the guard. Calling it twice changes nothing."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    if not any(isinstance(finder, TorchFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchFirst())
