"""What teaches the student: the units' votes on points, how much each vote counts, and how far to believe a unit.

Shapes: b shapes, n points, d units (padded to the largest count; a padded unit covers nothing), r parts.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Form = Literal["per point", "per unit"]
ClassWeights = Literal["log", "effective number", "none"]

BETA = 0.9999  # of the effective number of samples
MOST = 4.0  # the largest weight of a part in the logarithmic rule


def distillation(
    logits: Float[Tensor, "b n r"],
    part: Int[Tensor, "b d"],
    covered: Bool[Tensor, "b n d"],
    score: Float[Tensor, "b #n d"],
    weights: Float[Tensor, " r"] | None = None,
    form: Form = "per point",
) -> Float[Tensor, ""]:
    """Cross-entropy of each covered point with each unit's part, times the unit's score there and the part's weight.

    "per point", the released code: summed over units, over the number of units that cover the point, then the mean over all points,
    uncovered ones counting as zeros. "per unit", eq. 3 of the paper: summed over points, over the number of points that the unit
    covers, then summed over units, and the mean over shapes. In the second a box around three points speaks as loudly as one around
    the whole shape, and a shape is taught the more the more boxes were found in it; the first has neither, and is what the
    published rate, weights and schedule are known to go with. So it is the default.
    """
    vote = -logits.log_softmax(2).gather(2, part.unsqueeze(1).expand(-1, logits.shape[1], -1)) * score * covered
    if weights is not None:
        vote = vote * weights[part].unsqueeze(1)
    if form == "per point":
        return (vote.sum(2) / covered.sum(2).clamp(min=1)).mean()
    return (vote.sum(1) / covered.sum(1).clamp(min=1)).sum(1).mean()


def rescored(predicted: Int[Tensor, "b n"], part: Int[Tensor, "b d"], covered: Bool[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
    """Backward distillation, eq. 4: of the points that a unit covers, the share that the student gives the unit's part. It takes
    the place of the unit's scores. A unit that covers nothing has 0."""
    agree = covered & (predicted.unsqueeze(2) == part.unsqueeze(1))
    return agree.sum(1) / covered.sum(1).clamp(min=1)


def class_weights(
    part: Int[Tensor, "b d"], covered: Bool[Tensor, "b n d"], parts: int, rule: ClassWeights
) -> Float[Tensor, "{parts}"] | None:
    """What each part weighs, from how many pairs of a point and a unit that covers it vote for it in this batch.

    "log", the released code: log4(mean count / count) + 1, between 1 and 4; a part without votes has 4. "effective number", the
    paper: proportional to (1 - beta) / (1 - beta^count) (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
    CVPR 2019), of mean 1 over the parts that have votes; a part without any, for which the released code makes every weight NaN,
    has 0. "none": None.
    """
    if rule == "none":
        return None
    count = torch.zeros(parts, device=part.device).index_add_(0, part.flatten(), covered.sum(1).flatten().float())
    if rule == "log":
        # at least one vote in all: a batch without any has nothing to weigh, and no NaN
        return ((count.sum().clamp(min=1) / (count * parts)).log() / math.log(4) + 1).clamp(1, MOST)
    present = count > 0
    weight = torch.where(present, (1 - BETA) / (1 - BETA ** count.clamp(min=1)), 0)
    return weight * present.sum() / weight.sum().clamp(min=1e-30)
