"""One yardstick for all generators of clothes: how near, how varied, how much copied.

The functions compare rows of features, one row an image. `features` gives them for 28×28 clothes,
from a small classifier that the page generative/index trains and explains. It is written in numpy,
so that PyTorch, TensorFlow and a reader without either get the same figures.
"""

from functools import cache
from importlib.resources import files

import numpy as np

from panorama._arrays import to_numpy


def features(images, weights: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """The classifier's 64 features of each image, (N, 64) float32.

    `images`: (N, 28, 28), uint8 from 0 to 255 or floating point from 0 to 1, of any framework.
    `weights`: those of another network of the same layers, under the names of the stored ones.
    Raises ValueError for another shape or range.
    """
    weights = weights or _weights()
    return np.concatenate([_forward(part, weights)[0] for part in _batches(images)])


def probabilities(images) -> np.ndarray:
    """The classifier's probabilities of the ten classes of Fashion-MNIST, (N, 10) float32.

    `images` as for `features`.
    """
    logits = np.concatenate([_forward(part, _weights())[1] for part in _batches(images)])
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def frechet_distance(real, generated) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D).

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), with the covariances' unbiased estimates. Heusel et al.,
    "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017,
    who use the Inception network's features and call it FID. For finite samples it is too large
    on average; `frechet_estimate` corrects that. Raises ValueError for fewer than two rows, rows
    of different lengths, and values that are not finite.
    """
    real, generated = _two_sets(real, generated)
    difference = real.mean(axis=0) - generated.mean(axis=0)
    first, second = (
        np.cov(rows, rowvar=False).reshape(rows.shape[1], -1) for rows in (real, generated)
    )
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    # The eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric, are those of Σ₁Σ₂.
    product = np.linalg.eigvalsh(root @ second @ root).clip(0)
    return float(
        difference @ difference + np.trace(first) + np.trace(second) - 2 * np.sqrt(product).sum()
    )


def frechet_estimate(real, generated, folds: int = 20, classes=(None, None)) -> tuple[float, float]:
    """The Fréchet distance without its bias in the sample size, and its standard error.

    Both by the jackknife: each set is divided at random into `folds` parts, and the distance is
    computed again without the first part of both, without the second, and so on. A bias in
    proportion to one over the number of rows cancels. The estimate can be a little below zero
    when the two sets have one distribution. Source: Efron and Stein, "The jackknife estimate of
    variance", 1981.

    `classes`: for each set that has the same number of rows of every class by design, as the test
    images have, the class of each row, (N,) or (M,) int; else None. Such a set is divided class by
    class, for its class shares have no sampling error that the folds should show.

    Raises ValueError as `frechet_distance` does, and for fewer than two rows a part.
    """
    real, generated = _two_sets(real, generated)
    if folds < 2 or min(len(real), len(generated)) < 2 * folds:
        raise ValueError(
            f"{folds} folds need at least {2 * folds} rows a set, there are {len(real)} and "
            f"{len(generated)}: give more images, or fewer folds (2 or more)"
        )
    rng = np.random.default_rng(0)
    part = []
    for rows, labels in zip((real, generated), classes, strict=True):
        labels = np.zeros(len(rows)) if labels is None else to_numpy(labels)
        if labels.shape != (len(rows),):
            raise ValueError(f"classes of shape {labels.shape} for {len(rows)} rows: one a row")
        order = np.lexsort((rng.random(len(rows)), labels))  # by class, at random within it
        part.append(np.empty(len(rows), int))
        part[-1][order] = np.arange(len(rows)) % folds
    whole = frechet_distance(real, generated)
    without = np.array(
        [frechet_distance(real[part[0] != i], generated[part[1] != i]) for i in range(folds)]
    )
    estimate = folds * whole - (folds - 1) * without.mean()
    error = np.sqrt((folds - 1) / folds * ((without - without.mean()) ** 2).sum())
    return float(estimate), float(error)


def precision_recall(real, generated, neighbours: int = 3) -> tuple[float, float]:
    """The share of generated rows that lie among the real ones, and of real among the generated.

    A row lies among others when it is nearer to at least one of them than that one's neighbour
    number `neighbours` of its own set is. Precision falls with implausible samples, recall with
    missing variety. Kynkäänniemi et al., "Improved precision and recall metric for assessing
    generative models", 2019. Both depend on the number of rows: compare at equal numbers only.
    Raises ValueError as `frechet_distance` does, and for too few rows.
    """
    real, generated = _two_sets(real, generated)
    if not 1 <= neighbours < min(len(real), len(generated)):
        raise ValueError(f"neighbours={neighbours} needs from 1 to fewer than the rows of a set")
    between = _distances(generated, real)

    def radii(rows):
        return np.partition(_distances(rows, rows), neighbours, axis=1)[:, neighbours]

    precision = (between <= radii(real)).any(axis=1).mean()
    recall = (between <= radii(generated)[:, None]).any(axis=0).mean()
    return float(precision), float(recall)


def nearest(rows, references) -> tuple[np.ndarray, np.ndarray]:
    """For each of `rows` the number of the nearest of `references`, and the distance to it.

    (N, …) and (M, …) are features or images, any shape after the first axis. Returns (N,) int64
    and (N,) float64, Euclidean distances.
    """
    rows, references = _two_sets(rows, references, least=1)
    squared = np.concatenate(
        [_distances(rows[i : i + 1000], references) for i in range(0, len(rows), 1000)]
    )
    index = squared.argmin(axis=1)
    return index, np.sqrt(squared[np.arange(len(rows)), index])


def memorisation(generated, training, held_out) -> tuple[float, float]:
    """How much nearer generated rows are to the training data than chance allows, with its error.

    For each generated row the nearest of all real rows is sought. A generator that knows no more
    of the training rows than of as good rows it never saw finds it among the training rows with
    probability M / (M + H), where M and H are the numbers of training and held-out rows. What is
    above that share, divided by what could be: 0 is chance, 1 copies only, and sampling noise can
    give a negative score. The standard error treats the generated rows as independent.
    Arguments are features or images, (N, …), (M, …), (H, …), the real ones from one distribution.
    """
    _, to_training = nearest(generated, training)
    _, to_held_out = nearest(generated, held_out)
    chance = len(training) / (len(training) + len(held_out))
    share = np.mean((to_training < to_held_out) + 0.5 * (to_training == to_held_out))
    error = np.sqrt(max(share * (1 - share), chance * (1 - chance)) / len(to_training))
    return float((share - chance) / (1 - chance)), float(error / (1 - chance))


def _two_sets(first, second, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    sets = []
    for what, rows in (("first", first), ("second", second)):
        rows = to_numpy(rows)
        if rows.ndim < 2 or len(rows) < least:
            raise ValueError(
                f"the {what} set has shape {rows.shape}: needed are at least {least} rows, one an "
                "image"
            )
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        if not np.isfinite(rows).all():
            raise ValueError(f"the {what} set has values that are not finite")
        sets.append(rows)
    if sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"rows of {sets[0].shape[1]} and of {sets[1].shape[1]} values")
    return sets[0], sets[1]


def _distances(first, second) -> np.ndarray:
    """Squared Euclidean distances, (N, M), of rows (N, D) and (M, D)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    return (squares - 2 * first @ second.T).clip(0)


# The classifier: convolution, maximum over 2×2, the same again, two convolutions, mean over the
# places, a dense layer (the features), ReLU, a dense layer (the logits).


@cache
def _weights() -> dict[str, np.ndarray]:
    with np.load(files("panorama.data") / "files" / "clothes_classifier.npz") as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}


def _batches(images):
    images = to_numpy(images)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise ValueError(
            f"images of shape {images.shape}: needed is (N, 28, 28). Leave out the channel axis, "
            "and resize smaller images, the real ones to compare with in the same way"
        )
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"images of {images.dtype}: needed is uint8, or floats from 0 to 1")
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"values from {images.min():.3g} to {images.max():.3g}: needed is 0 to 1. Scale "
                "and clip the images first"
            )
    scale = 255 if images.dtype == np.uint8 else 1
    for start in range(0, len(images), 500):
        yield images[start : start + 500, :, :, None].astype(np.float32) / scale


def _forward(x: np.ndarray, w: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 64) and logits (N, 10) of images (N, 28, 28, 1)."""
    x = _pool(_convolution(x, w["kernel_1"], w["bias_1"]))  # (N, 14, 14, 16)
    x = _pool(_convolution(x, w["kernel_2"], w["bias_2"]))  # (N, 7, 7, 32)
    x = _convolution(x, w["kernel_3"], w["bias_3"])  # (N, 7, 7, 64)
    x = _convolution(x, w["kernel_4"], w["bias_4"]).mean(axis=(1, 2))  # (N, 64)
    rows = x @ w["kernel_5"] + w["bias_5"]
    return rows, rows.clip(0) @ w["kernel_6"] + w["bias_6"]


def _convolution(x, kernel, bias) -> np.ndarray:
    """3×3 with padding 1, then ReLU. x (N, H, W, C), kernel (3, 3, C, D) → (N, H, W, D)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    total = sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    return (total + bias).clip(0)


def _pool(x) -> np.ndarray:
    """Maximum over 2×2. (N, H, W, C) → (N, H/2, W/2, C)."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
