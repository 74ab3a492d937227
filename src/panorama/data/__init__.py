"""Data sets: `load` gives one as arrays; `REGISTRY` says what they are and where they come from."""

from panorama.data.registry import REGISTRY, DataError
from panorama.data.sets import (
    Emoji,
    FashionMNIST,
    RatedTexts,
    SentencePairs,
    Split,
    load,
)

__all__ = [
    "REGISTRY",
    "DataError",
    "Emoji",
    "FashionMNIST",
    "RatedTexts",
    "SentencePairs",
    "Split",
    "load",
]
