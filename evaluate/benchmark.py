"""A benchmark: objects of known classes, as one of the field's evaluation sets has them, and the classes they are told apart from.

Where the official files are read: evaluate/sets. What an encoder makes of the objects: evaluate/features.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

Up = Literal["+y", "+z"]


@dataclass(frozen=True)
class Cloud:
    """Points of one object in the unit of its file. `rgb`: whole numbers 0..255; None: no colours, the encoder's fill. `up`: "+y"
    with the front to +z, or "+z" with the front to -y."""

    xyz: Float32[np.ndarray, "n 3"] | Float64[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None
    up: Up


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Objects to classify, to look up, or to learn a classifier from.

    `name`: modelnet40, scanobjectnn, objaverse-lvis or mvpnet, by which published figures are found. `variant`: which of its forms
    this is, in words. `classes`: names to choose among, in the official order; of MVPNet 238, though its objects are of 180.
    `ids`: the objects; those of a collection that has a source here are called as in a corpus ("objaverse/UID"). `labels` (n,):
    numbers into `classes`. `missing`: ids that the official list has and the files at hand do not.

    The objects are clouds in files, or stored in a corpus: exactly one of the following two is given. `cloud`: reads object i;
    raises ObjectError. `corpus`: root of the corpus that holds them, with points, views and embeddings.
    `file`: where object i lies if it has a file to itself, for the comparison of hashes; None: it lies with others in one.
    """

    name: str
    variant: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    missing: tuple[str, ...] = ()
    cloud: Callable[[int], Cloud] | None = None
    corpus: str | None = None
    file: Callable[[int], str | None] = lambda number: None

    def __post_init__(self) -> None:
        if (self.cloud is None) == (self.corpus is None):
            raise ValueError(f"{self.name}: its objects are either clouds in files or stored in a corpus")
        if len(self.ids) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.ids)} objects and {len(self.labels)} labels")
