"""Versions of a model on disk: checked when they are loaded, swapped while requests come in."""

import asyncio
import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import onnxruntime

SIDE = 28  # pixels; images are SIDE x SIDE, grey, bright on dark


class ModelError(Exception):
    """A version that must not be served; the message says why."""


class Model:
    """One version: a session of ONNX Runtime that has passed every check and is warm."""

    def __init__(self, folder: Path, version: int, threads: int, largest_batch: int):
        """Raises ModelError."""
        self.version = version
        try:
            self.metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
            content = (folder / "model.onnx").read_bytes()
            self.classes = [str(name) for name in self.metadata["classes"]]
            expected = str(self.metadata["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"version {version} cannot be read: {error!r}") from error
        # What was hashed is what is loaded: the file is not opened a second time.
        if not hmac.compare_digest(hashlib.sha256(content).hexdigest().encode(), expected.encode()):
            raise ModelError(
                f"version {version}: model.onnx is not the file that metadata.json names"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            self._check_signature()
            self._warm_up(largest_batch)
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime's have no common base class
            raise ModelError(f"version {version} does not run: {error}") from error

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (B, K) of images (B, 28, 28), uint8."""
        return self.session.run(["probabilities"], {"image": images})[0]

    def _check_signature(self):
        found = [
            (tensor.name, tensor.type, tensor.shape[1:], isinstance(tensor.shape[0], int))
            for tensor in (*self.session.get_inputs(), *self.session.get_outputs())
            if tensor.shape
        ]
        wanted = [
            ("image", "tensor(uint8)", [SIDE, SIDE], False),
            ("probabilities", "tensor(float)", [len(self.classes)], False),
        ]
        if found != wanted:
            raise ModelError(
                f"version {self.version}: name, type, shape and fixed batch of the tensors "
                f"should be {wanted}, and are {found}"
            )

    def _warm_up(self, largest_batch: int):
        """The first runs allocate memory: before the first request, not during it."""
        for size in (1, largest_batch):
            rows = self(np.zeros((size, SIDE, SIDE), np.uint8))
            right_shape = rows.shape == (size, len(self.classes))
            if not right_shape or not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
                raise ModelError(f"version {self.version}: its answers are not probabilities")


class Models:
    """The versions on disk, the one that answers, and the one before it."""

    def __init__(self, folder: Path, threads: int, largest_batch: int):
        self.folder, self.threads, self.largest_batch = folder, threads, largest_batch
        self.active: Model | None = None
        self.previous: Model | None = None
        self.changing = asyncio.Lock()

    def versions(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(f.name) for f in self.folder.iterdir() if f.name.isdecimal())

    async def activate(self, version: int):
        """Load, check and warm a version beside the active one, then let it answer.

        Raises ModelError; then the active one goes on answering as before.
        """
        async with self.changing:
            if version not in self.versions():
                raise ModelError(f"no version {version} among {self.versions()}")
            folder = self.folder / str(version)
            model = await asyncio.to_thread(
                Model, folder, version, self.threads, self.largest_batch
            )
            if self.active is None or self.active.version != version:  # or the way back is lost
                self.previous = self.active
            self.active = model  # the swap: batches read it once

    async def rollback(self):
        """Back to the version before, which is still in memory. Raises ModelError."""
        async with self.changing:
            if self.previous is None:
                raise ModelError("no version was active before this one")
            self.previous, self.active = self.active, self.previous
