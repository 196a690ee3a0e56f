"""Zero-shot classification: the class whose name is nearest to an object's embedding. All figures are shares, 0..1."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from evaluate.retrieval import TOP, ranked, shares_found

Rule = Literal["unit templates", "raw templates"]


@dataclass(frozen=True)
class ZeroShot:
    """`top`: shares of objects whose class is among the nearest 1, 3, 5. `class_mean`: the first of them within each class, and the
    mean over the classes that have objects. `per_class`: of each class that first share, None where it has no objects, and how many
    it has."""

    objects: int
    classes: int
    top: tuple[float, ...]
    class_mean: float
    per_class: tuple[tuple[float | None, int], ...]


def class_embeddings(templates: Float[Tensor, "c t d"], rule: Rule) -> Float[Tensor, "c d"]:
    """Classes, as unit vectors, from the embeddings of their names in each prompt template.

    "unit templates", Uni3D's: the mean of the vectors brought to length 1. "raw templates", DuoduoCLIP's: that of the vectors as
    the teacher gave them. They rank differently. A corpus holds both, as columns `embedding` and `raw_mean` of class_embeddings.
    """
    return normalize((normalize(templates, dim=2) if rule == "unit templates" else templates).mean(dim=1), dim=1)


def zero_shot(objects: Float[Tensor, "n d"], classes: Float[Tensor, "c d"], labels: Int[Tensor, " n"]) -> ZeroShot:
    """Classify objects, of classes `labels`. By cosine, blockwise; of classes that are as near, the one with the lower number
    counts as nearer (`evaluate.retrieval.ranked`), so that embeddings which are all the same score what one class has."""
    labels = labels.cpu()
    right = ranked(objects, classes, max(TOP)) == labels[:, None]
    hits = torch.bincount(labels, right[:, 0].double(), len(classes))
    count = torch.bincount(labels, minlength=len(classes))
    shares = hits / count
    return ZeroShot(
        objects=len(objects),
        classes=len(classes),
        top=shares_found(right),
        class_mean=float(shares[count > 0].mean()),
        per_class=tuple((share if of else None, of) for share, of in zip(shares.tolist(), count.tolist(), strict=True)),
    )
