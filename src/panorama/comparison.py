"""Our tensor against the reference's."""

import numpy as np

from panorama._arrays import to_numpy


def compare(ours, reference, rtol: float = 1e-5, what: str = "values") -> float:
    """Print the largest relative error between two tensors, and raise if it is over `rtol`.

    `ours` and `reference` are numpy, PyTorch or TensorFlow tensors of one shape.

    The error is max|ours - reference| / max|reference|: the largest difference, in units of the
    largest reference value. Element by element it would say nothing: where a sum of large terms
    happens to come out near zero, rounding alone gives any relative error. Where the reference is
    zero everywhere, the error is the absolute one.

    Returns the error. Raises AssertionError when the shapes differ, when there is nothing to
    compare, when a value on either side is infinite or not a number, and when the error is over
    `rtol`; then the message gives the worst index and both values there.
    """
    a, b = to_numpy(ours), to_numpy(reference)
    if a.shape != b.shape:
        raise AssertionError(f"{what}: our shape is {a.shape}, the reference's is {b.shape}")
    if a.size == 0:
        raise AssertionError(f"{what}: nothing to compare, the shape is {a.shape}")
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    for side, values in (("ours", a), ("the reference", b)):
        bad = ~np.isfinite(values)
        if bad.any():
            index = _first(np.flatnonzero(bad)[0], a.shape)
            raise AssertionError(
                f"{what}: {side} has {bad.sum()} of {a.size} values that are not finite, "
                f"the first at {_show(index)}: {values[index]}"
            )
    difference = np.abs(a - b)
    scale = np.abs(b).max() or 1.0
    error = float(difference.max() / scale)
    if error > rtol:
        index = _first(difference.argmax(), a.shape)
        raise AssertionError(
            f"{what}: largest relative error {error:.1e} is over the limit {rtol:.0e}; "
            f"worst at {_show(index)}: ours {a[index]:.8g}, reference {b[index]:.8g}"
        )
    print(f"{what}: largest relative error {error:.1e} (limit {rtol:.0e})")
    return error


def _first(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _show(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]" if index else "the only value"
