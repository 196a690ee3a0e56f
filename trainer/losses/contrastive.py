"""The contrastive loss of OpenShape, Uni3D and Duoduo CLIP: shapes against images, and shapes against texts.

Each of the two terms is the mean of two cross-entropies over cosines times a learned scale: every shape has to find its image
(text) among those of the batch, and every image (text) its shape.

    loss = Contrastive(PRESETS["openshape"])(shape, image, text, has_image, has_text)["loss"]

With several processes the batch is the global one (gathering.py says what becomes of the gradients).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.losses.gathering import Gather, gathered, rank_and_ranks, unit

# Rows of logits at a time. Up to this batch they are computed at once and kept: 5 bytes x batch^2 for each of the four directions,
# 51 MB for 1,600. Above, in blocks that are computed again going back: a batch of 10,000 takes 0.7 GB, not 2.7 GB.
ROWS_AT_A_TIME = 2048

# "masked": neither anchor nor negative. "negative": no anchor, but its row of zeros (or whatever stands in for it) stays among the
# others' negatives and counts in the accuracy: Uni3D's images.
Missing = Literal["masked", "negative"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """What sets the systems' losses apart.

    `initial_scale`: multiplier of the cosines at the start, 1 / temperature; its logarithm is learned. `largest_log_scale`: after
    each step of the optimiser the log-scale is brought into [0, this] (`Contrastive.after_step`); None: it is free. `weight_image`,
    `weight_text`: of the two terms. `no_image`, `no_text`: what becomes of an object that lacks one.

    `block`: hard negatives: this many samples in a row are near neighbours of one another, drawn together; pairs within such a
    block that `kept_pairs` (by `margin`) takes for the same thing are dropped. `dropped`: "excluded" leaves their logits out;
    "zeroed" multiplies them with 0, as OpenShape does, so that they stay in the softmax as exp(0). None: no such blocks.
    """

    initial_scale: float = 14.28
    largest_log_scale: float | None = None
    weight_image: float = 1.0
    weight_text: float = 1.0
    gather: Gather = "with gradient"
    no_image: Missing = "masked"
    no_text: Missing = "masked"
    block: int | None = None
    margin: float = 0.1
    dropped: Literal["excluded", "zeroed"] = "excluded"


# By the systems' names, each with its repository's values. OpenShape's blocks of k, for a recipe that draws such: replace(preset,
# block=k, dropped="zeroed"). The formula in Duoduo's poster, 1/(4N) over the four directions, is half of what its code computes.
PRESETS = {
    "openshape": ContrastiveSettings(),
    "uni3d": ContrastiveSettings(initial_scale=1 / 0.07, largest_log_scale=4.6052, no_image="negative"),
    "uni3d as published": ContrastiveSettings(
        initial_scale=1 / 0.07, largest_log_scale=4.6052, no_image="negative", gather="published uni3d"
    ),
    "mrd": ContrastiveSettings(),  # the paper says no more than that the temperature is learned
    "duoduo": ContrastiveSettings(),
    "duoduo as in the poster": ContrastiveSettings(weight_image=0.5, weight_text=0.5),
}


class Contrastive(nn.Module):
    """The loss, with the one parameter that both of its terms share: `log_scale`."""

    def __init__(self, settings: ContrastiveSettings) -> None:
        super().__init__()
        self.settings = settings
        self.log_scale = nn.Parameter(torch.tensor(math.log(settings.initial_scale)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What the cosines are multiplied with: 1 / temperature."""
        return self.log_scale.exp()

    @torch.no_grad()
    def after_step(self) -> None:
        """Brings the log-scale back to where it may be; to be called after each step of the optimiser."""
        if self.settings.largest_log_scale is not None:
            self.log_scale.clamp_(0, self.settings.largest_log_scale)

    def forward(
        self,
        shape: Float[Tensor, "b d"],
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        has_image: Bool[Tensor, "b"],
        has_text: Bool[Tensor, "b"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Of this rank's rows, which need not be of unit length; equally many on every rank, whichever of them have a text.

        `loss`, its terms `loss_image` and `loss_text` without their weights, `accuracy_image` and `accuracy_text` (share of the
        shapes whose own image or text is the most similar one, 0..1) and `scale`; all but the losses without gradient. A term to
        which nobody belongs is 0, and so is its accuracy.
        """
        settings = self.settings
        if settings.block and len(shape) % settings.block:
            raise ValueError(
                f"{len(shape)} samples on a rank are not whole blocks of {settings.block}: change the batch or the block"
            )
        with torch.autocast(shape.device.type, enabled=False):
            shape, image, text = unit(shape), unit(image), unit(text)
            shapes, images, texts = (gathered(rows, settings.gather) for rows in (shape, image, text))
            with_image, with_text = gathered(has_image), gathered(has_text)
            kept = None
            if settings.block:
                kept = kept_pairs(images, texts, with_image & with_text, settings.block, settings.margin)
            first = rank_and_ranks()[0] * len(shape)  # in the published way the anchors are this rank's; otherwise they are all
            if settings.gather == "with gradient":
                first, shape, image, text = 0, shapes, images, texts
            place = first + torch.arange(len(shape), device=shape.device)
            result = {}
            for name, own, others, present, missing in (
                ("image", image, images, with_image, settings.no_image),
                ("text", text, texts, with_text, settings.no_text),
            ):
                candidates = present if missing == "masked" else torch.ones_like(present)
                there, hit = self._found(shape, others, place, candidates, kept)
                back, _ = self._found(own, shapes, place, candidates, None if kept is None else kept.T)
                result[f"loss_{name}"] = (mean_of(there, present[place]) + mean_of(back, present[place])) / 2
                result[f"accuracy_{name}"] = mean_of(hit, candidates[place])
        loss = settings.weight_image * result["loss_image"] + settings.weight_text * result["loss_text"]
        return {"loss": loss, **result, "scale": self.scale.detach()}

    def _found(
        self,
        anchors: Float[Tensor, "r d"],
        others: Float[Tensor, "c d"],
        place: Int[Tensor, "r"],
        candidates: Bool[Tensor, "c"],
        kept: Bool[Tensor, "c c"] | None,
    ) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"]]:
        """How well each anchor finds its own other, which stands at `place`: the cross-entropy, and 1.0 where it is the nearest."""
        zeroed = self.settings.dropped == "zeroed"

        def losses(anchors, place, scale, others):
            logits = scale * anchors @ others.T
            # its own stays in any case: who has nobody to be compared with gets 0, and never the logarithm of nothing
            own = place[:, None] == torch.arange(len(others), device=place.device)
            if kept is not None:
                logits = logits * kept[place] if zeroed else logits.masked_fill(~kept[place], -math.inf)
            logits = logits.masked_fill(~(candidates | own), -math.inf)
            return F.cross_entropy(logits, place, reduction="none"), (logits.detach().argmax(1) == place).to(logits.dtype)

        return in_blocks(losses, ROWS_AT_A_TIME, (anchors, place), (self.scale, others))


def kept_pairs(
    image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], judged: Bool[Tensor, "n"], block: int, margin: float
) -> Bool[Tensor, "n n"]:
    """Which pairs (row: the shape, column: the image or text) may count as negatives, where blocks of samples are alike on purpose.

    Within a block, shape i and the text of j must be told apart by the teacher: cos(image i, text i) - cos(image i, text j) >
    margin. Pairs across blocks, a sample with itself and samples that are not `judged` (having no image or no text) are kept.
    Source: OpenShape, training with hard negatives (arXiv 2305.10764, section 3.2, and its code).
    """
    number = torch.arange(len(image), device=image.device)
    cosines = unit(image) @ unit(text).T
    told_apart = cosines.diagonal()[:, None] - cosines > margin
    across = number[:, None] // block != number // block
    return told_apart | across | (number[:, None] == number) | ~(judged[:, None] & judged)


def in_blocks(
    function: Callable[..., tuple[Tensor, ...]], size: int, rows: tuple[Tensor, ...], whole: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """`function(*rows, *whole)` with the rows taken `size` at a time, and its results put together along the rows.

    More than one block is computed again going back, so that memory holds the inner values of one block only.
    """
    count = len(rows[0])
    if count <= size:
        return function(*rows, *whole)
    blocks = zip(*(part.split(size) for part in rows), strict=True)
    made = [checkpoint(function, *block, *whole, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return tuple(torch.cat(parts) for parts in zip(*made, strict=True))


def mean_of(values: Float[Tensor, "..."], of: Bool[Tensor, "..."]) -> Float[Tensor, ""]:
    """The mean of the values that count; 0 when none does. The others must be finite."""
    return (values * of).sum() / of.sum().clamp(min=1)
