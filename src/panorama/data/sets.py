"""From checked bytes to arrays and sentences, divided into training and test data."""

import io
import lzma
import struct
from dataclasses import dataclass

import numpy as np

from panorama.data import storage
from panorama.data.registry import DataError, DataSet, find


@dataclass(frozen=True)
class FashionMNIST:
    """Clothes: grey values from 0 (background) to 255, and the class of each.

    x_train: (N, 28, 28) uint8.  y_train: (N,) int64, 0 … 9.  x_test, y_test: likewise.
    class_names: the ten names, by class number.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Emoji:
    """image: (N, 32, 32, 3) uint8 on white.  name, category, codepoint: (N,) strings."""

    image: np.ndarray
    name: np.ndarray
    category: np.ndarray
    codepoint: np.ndarray


@dataclass(frozen=True)
class SentencePairs:
    """source: English sentences.  target: their Spanish translations, in the same order."""

    source: tuple[str, ...]
    target: tuple[str, ...]


@dataclass(frozen=True)
class RatedTexts:
    """text: (N,) strings as a tuple.  rating: (N,) float32, mean of human ratings from −4 (most
    negative) to 4.  source: where each text is from, such as "tweets".
    """

    text: tuple[str, ...]
    rating: np.ndarray
    source: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """`train` and `test`: two of the same kind, with no item in common."""

    train: Emoji | SentencePairs | RatedTexts
    test: Emoji | SentencePairs | RatedTexts


CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load(
    name: str,
    train: int | None = None,
    test: int | float | None = None,
    seed: int = 0,
    max_words: int | None = None,
) -> FashionMNIST | Split:
    """A data set, divided into `train` items to learn from and `test` items to judge by.

    load("fashion-mnist", train=10_000, test=2_000) gives a `FashionMNIST`. Up to 10,000 and 2,000
    images are bundled with the package; more, up to 60,000 and 10,000, come from the full set:
    from the folder PANORAMA_DATA, the distribution's package (Debian: dataset-fashion-mnist), the
    user's cache, or a download into it. Fewer than all are drawn by `seed`, the same number from
    each class (one more from some where ten does not divide the number); of two draws with one
    seed from the same file, the smaller is part of the larger.

    load("twemoji"), load("web-rv1909-en-es", max_words=12) and load("vader-sentiment") give a
    `Split` of `Emoji`, `SentencePairs` and `RatedTexts`, divided at random by `seed`: `test` is a
    number or a fraction (default 0.1), `train` a number (default: all the others). Items that are
    near copies of each other stay on one side. `max_words` keeps the pairs with at most so many
    words on either side.

    Raises ValueError for an unknown name or a size that the set does not have, and DataError when
    a file is damaged or cannot be had.
    """
    dataset = find(name)
    if max_words is not None and name != "web-rv1909-en-es":
        raise ValueError(f"max_words is for web-rv1909-en-es, not for {name}")
    if name == "fashion-mnist":
        return _fashion_mnist(dataset, train, test, seed)
    if name == "twemoji":
        return _twemoji(dataset, train, test, seed)
    if name == "web-rv1909-en-es":
        return _sentence_pairs(dataset, train, test, seed, max_words)
    return _rated_texts(dataset, train, test, seed)


# Fashion-MNIST


def _fashion_mnist(dataset, train, test, seed):
    train = _size("train", 10_000 if train is None else train, 60_000)
    test = _size("test", 2_000 if test is None else test, 10_000)
    bundled = None
    if train <= 10_000 or test <= 2_000:
        bundled = np.load(io.BytesIO(storage.obtain(dataset, dataset.bundled)), allow_pickle=False)
    parts = []
    for number, (split, wanted, limit) in enumerate(
        (("train", train, 10_000), ("test", test, 2_000))
    ):
        if wanted <= limit:
            images, labels = bundled[f"x_{split}"], bundled[f"y_{split}"].astype(np.int64)
        else:
            image_file, label_file = dataset.full[2 * number : 2 * number + 2]
            images = idx(storage.obtain(dataset, image_file))
            labels = idx(storage.obtain(dataset, label_file)).astype(np.int64)
        if wanted < len(labels):
            chosen = balanced(labels, wanted, np.random.default_rng([seed, number]))
            images, labels = images[chosen], labels[chosen]
        parts += [images, labels]
    return FashionMNIST(*parts, CLASS_NAMES)


def idx(content: bytes) -> np.ndarray:
    """An array from the idx format of the MNIST family: unsigned bytes of any shape.

    Two zero bytes, a type (8: unsigned byte), the number of axes, each axis' length as a
    big-endian uint32, then the values. Raises DataError when the header and the length disagree.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError("not an idx file of unsigned bytes")
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError("an idx file that ends within its header")
    shape = struct.unpack(f">{axes}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise DataError(f"an idx file of shape {shape} with {values.size} values")
    return values.reshape(shape).copy()


def balanced(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` row numbers in random order, as many of each class as of the others, or one more.

    Draws from generators in the same state are nested: the smaller is part of the larger.
    """
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    # Rounds of one row a class, the classes in a random order that stays the same.
    order = rng.permutation(len(by_class))
    rounds = -(-count // len(by_class))
    rows = np.stack([by_class[c][:rounds] for c in order], axis=1).ravel()[:count]
    return rng.permutation(rows)


# The sets that have no division of their own


def _twemoji(dataset, train, test, seed):
    data = np.load(io.BytesIO(storage.obtain(dataset, dataset.bundled)), allow_pickle=False)
    # Skin tones, gender and direction, and the joiners that attach them.
    variants = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF", "2640", "2642", "27A1", "200D", "FE0F"}
    bases = [
        "-".join(p for p in codepoint.split("-") if p not in variants) or codepoint
        for codepoint in data["codepoint"].tolist()
    ]
    pictures = [image.tobytes() for image in data["image"]]
    fields = [data[field] for field in ("image", "name", "category", "codepoint")]
    return Split(
        *(
            Emoji(*(field[rows] for field in fields))
            for rows in _divide((bases, pictures), train, test, seed)
        )
    )


def _sentence_pairs(dataset, train, test, seed, max_words):
    pairs = _table(dataset)
    if max_words is not None:
        pairs = [p for p in pairs if all(len(sentence.split()) <= max_words for sentence in p)]
        if len(pairs) < 2:
            raise ValueError(f"no pairs have at most {max_words} words a side: allow more")
    keys = zip(*pairs, strict=True)
    return Split(
        *(
            SentencePairs(
                *(tuple(column) for column in zip(*(pairs[i] for i in rows), strict=True))
            )
            for rows in _divide(tuple(keys), train, test, seed)
        )
    )


def _rated_texts(dataset, train, test, seed):
    table = _table(dataset)
    return Split(
        *(
            RatedTexts(
                tuple(table[i][2] for i in rows),
                np.array([table[i][1] for i in rows], np.float32),
                tuple(table[i][0] for i in rows),
            )
            for rows in _divide(([row[2] for row in table],), train, test, seed)
        )
    )


def _table(dataset: DataSet) -> list[list[str]]:
    text = lzma.decompress(storage.obtain(dataset, dataset.bundled)).decode("utf-8")
    return [line.split("\t") for line in text.removesuffix("\n").split("\n")]


def _divide(keys, train, test, seed) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for testing. Rows with an equal key stay on one side."""
    rows = len(keys[0])
    if isinstance(test, float):
        if not 0 < test < 1:
            raise ValueError(f"test is a number of items or a fraction between 0 and 1, not {test}")
        test = round(test * rows)
    test = _size("test", round(0.1 * rows) if test is None else test, rows - 1)
    rng = np.random.default_rng(seed)
    group = _groups(keys)
    in_test = np.zeros(rows, bool)
    members: dict[int, list[int]] = {}
    for row in rng.permutation(rows).tolist():
        members.setdefault(group[row], []).append(row)
    missing = test
    for group_rows in members.values():
        if len(group_rows) <= missing:
            in_test[group_rows] = True
            missing -= len(group_rows)
    others = np.flatnonzero(~in_test)
    train = _size("train", len(others) if train is None else train, len(others))
    return rng.permutation(others)[:train], rng.permutation(np.flatnonzero(in_test))


def _groups(keys) -> list[int]:
    """A number for each row, equal for rows that share a key directly or through other rows."""
    parent = list(range(len(keys[0])))

    def root(row):
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in keys:
        first: dict = {}
        for row, key in enumerate(column):
            parent[root(row)] = root(first.setdefault(key, row))
    return [root(row) for row in range(len(parent))]


def _size(what: str, wanted, most: int) -> int:
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer):
        raise ValueError(f"{what} is a number of items from 1 to {most:,}, not {wanted!r}")
    if not 1 <= wanted <= most:
        raise ValueError(f"{what}={wanted:,} is not possible: from 1 to {most:,}")
    return int(wanted)
