"""Switches that have to be set before other libraries are imported, and a guard on import order."""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import warnings

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
    "import torch before tensorflow, or import panorama before both: TensorFlow loaded first "
    "crashes the Python interpreter. Restart the kernel and reorder the imports."
)
IMPORT_PANORAMA_FIRST = (
    "import panorama before tensorflow: with torch and TensorFlow loaded as they are, the first "
    "optimizer step would crash the Python interpreter. Restart the kernel and let "
    "`import panorama` stand first."
)


class _RefuseToLoad(importlib.abc.Loader):
    def create_module(self, spec):
        raise ImportError(TORCH_TOO_LATE, name="torch")

    def exec_module(self, module):
        raise ImportError(TORCH_TOO_LATE, name="torch")


class TritonFirst(importlib.abc.MetaPathFinder):
    """Loads triton ahead of TensorFlow, and refuses to load torch where it is too late for that.

    Both triton (the compiler that torch brings on Linux) and TensorFlow carry an LLVM. Loaded
    after TensorFlow's, triton's ends the process: a segmentation fault, or "inconsistency in
    registered CommandLine options", as late as the first optimizer step. Loaded before, it does
    no harm (tried with torch 2.15, triton 3.9 and TensorFlow 2.21, in every order of imports).

    `importlib.util.find_spec("torch")` still tells whether torch is installed: libraries ask.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "tensorflow":
            with contextlib.suppress(ImportError):  # not installed: nothing to order
                importlib.import_module("triton")
        if fullname != "torch" or not _triton_is_too_late():
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _RefuseToLoad()
        return spec


def _triton_is_too_late() -> bool:
    loaded = sys.modules
    if "tensorflow" not in loaded or "triton" in loaded:
        return False
    return importlib.util.find_spec("triton") is not None


def _keep_freed_memory():
    """Let glibc keep the memory that a training step frees, for the next step.

    By default it gives freed memory back to the system, and asks for it again in the next step,
    page by page. In the convolution chapter, two epochs of PyTorch after a Keras model had run
    caused 3.2 million page faults, and a third of the time went there; with this, 24 thousand.
    The price is that a process keeps its peak memory. Other C libraries are left alone. See
    mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 * 2**20)
        mallopt(mmap_max, 0)  # large tensors from the heap too


def prepare():
    """Set the switches and install the guard. Calling it twice changes nothing.

    Raises ImportError when torch and TensorFlow are both loaded already, but triton is not.
    """
    if "torch" in sys.modules and _triton_is_too_late():
        raise ImportError(IMPORT_PANORAMA_FIRST)
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    # tqdm's, in a kernel without ipywidgets: the bar is drawn as text then, which is what we want.
    warnings.filterwarnings("ignore", message="IProgress not found")
    _keep_freed_memory()
    if not any(isinstance(finder, TritonFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, TritonFirst())
