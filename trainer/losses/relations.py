"""MRD's relation losses (arXiv 2407.14007): how the shapes of a batch lie among one another, and among the images and texts, is to
be as the teacher's images and texts lie among one another.

P, I, T are the embeddings of shapes, images and texts, of unit length. Six discrepancies, each of a relation of the student against
one of the teacher, are weighted in three pairs that each add up to 1:

    intra = a1 D(PP, II) + a2 D(PP, TT)
    cross = b1 D(PI, IT) + b2 D(PI, TI) + c1 D(PT, IT) + c2 D(PT, TI)

The paper's equations are not to be had in full and there is no published code: which pairs the weights mix, the diagonal, the
factor of the divergence and where the temperature's gradient goes are readings of its text, and each is a setting where it can be
doubted. The trainer adds LAMBDA times the loss to the contrastive one."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainer.losses.contrastive import mean_of
from trainer.losses.gathering import gathered, unit

LAMBDA = 3.0  # the best of the paper's six

Form = Literal["euclidean", "similarity", "partial-order"]
# What the student's relations are to be like, in the pairs that the weights mix; rows first, columns second.
PAIRS = (("PP", ("II", "TT")), ("PI", ("IT", "TI")), ("PT", ("IT", "TI")))
TERMS = tuple((student, teacher) for student, teachers in PAIRS for teacher in teachers)
# Logarithm of a share that is none: its exponential is exactly 0, and unlike an infinity it has a difference and a gradient.
NONE = -1e4


@dataclass(frozen=True, kw_only=True)
class RelationsSettings:
    """`form`: what a relation is, each with its discrepancy: "similarity" (softmax of the cosines over the temperature, Jeffrey's
    divergence; the paper's choice), "euclidean" (distances over their mean, squared differences) or "partial-order" (ranks of the
    distances, a hinge). `margin`: of that hinge, a distance between unit vectors; the published one is not known.

    `diagonal`: whether a sample is among its own relations in PP, II and TT; of the form "similarity" alone. `dynamic`: the weights
    are learned, from halves; otherwise they stay halves. Nothing holds them: they drift to the smaller terms. `mixed_teacher`: each
    pair of weights mixes the teacher's two relations, and there is one divergence against the mixture; of the form "similarity"
    alone. `learn_scale`: the temperature gets a gradient from here too. Raising it makes all relations alike, hence the loss small.
    """

    form: Form = "similarity"
    diagonal: bool = True
    margin: float = 0.05
    dynamic: bool = True
    mixed_teacher: bool = False
    learn_scale: bool = False

    def __post_init__(self) -> None:
        if self.form != "similarity" and (self.mixed_teacher or not self.diagonal):
            raise ValueError(
                f"mixed_teacher and diagonal=False are choices of the form 'similarity', not of {self.form!r}: leave them out"
            )


class Relations(nn.Module):
    """The two relation losses, with the logits of the weights: rows alpha (PP), beta (PI), gamma (PT)."""

    def __init__(self, settings: RelationsSettings) -> None:
        super().__init__()
        self.settings = settings
        self.logits = nn.Parameter(torch.zeros(3, 2), requires_grad=settings.dynamic)

    def forward(
        self,
        shape: Float[Tensor, "b d"],
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        has_text: Bool[Tensor, "b"],
        scale: Float[Tensor, ""],
    ) -> dict[str, Tensor]:
        """Of this rank's rows, of any length; equally many on every rank. Relations are those of the global batch. `scale`: what
        cosines are multiplied with, 1 / temperature (`Contrastive.scale`). Images and texts are constants here.

        D(PP, II) is over all samples; whatever has texts in it is over the samples with a text, and 0 when there is none.

        `loss`: intra + cross, without LAMBDA; `intra`, `cross`; `weights` [3, 2], and `terms` [6], the discrepancies in the order
        above (with `mixed_teacher` three), both without gradient."""
        settings = self.settings
        with torch.autocast(shape.device.type, enabled=False):
            features = {"P": gathered(unit(shape)), "I": gathered(unit(image.detach())), "T": gathered(unit(text.detach()))}
            texted = gathered(has_text)
            everyone = torch.ones_like(texted)
            if not settings.learn_scale:
                scale = scale.detach()
            weights = self.logits.softmax(dim=1)
            if settings.mixed_teacher:
                terms = pairs = torch.stack([self._mixed(features, *PAIRS[k], weights[k], texted, scale) for k in range(3)])
            else:
                present = [texted if "T" in student + teacher else everyone for student, teacher in TERMS]
                terms = torch.stack(
                    [self._discrepancy(features, *term, who, scale) for term, who in zip(TERMS, present, strict=True)]
                )
                pairs = (weights * terms.view(3, 2)).sum(dim=1)
        intra, cross = pairs[0], pairs[1] + pairs[2]
        return {"loss": intra + cross, "intra": intra, "cross": cross, "weights": weights.detach(), "terms": terms.detach()}

    def _discrepancy(self, features, student: str, teacher: str, present, scale) -> Float[Tensor, ""]:
        """Of one relation of the student against one of the teacher, among the samples `present`."""
        kept = self._kept(student, present)
        ours, theirs = [features[name] for name in student], [features[name] for name in teacher]
        if self.settings.form == "similarity":
            return jeffrey(similarity(*ours, scale, kept), similarity(*theirs, scale, kept), kept)
        if self.settings.form == "euclidean":
            return mean_of((euclidean(*ours, kept) - euclidean(*theirs, kept)).square(), kept)
        return ranking(distances(*ours), ranks(*theirs, present), kept, self.settings.margin)

    def _mixed(self, features, student: str, teachers: tuple[str, str], weights, present, scale) -> Float[Tensor, ""]:
        """Of one relation of the student against the teacher's two together, among the samples `present`."""
        kept = self._kept(student, present)
        first, second = (similarity(features[a], features[b], scale, kept) for a, b in teachers)
        mixture = torch.logaddexp(first + weights[0].log(), second + weights[1].log())
        return jeffrey(similarity(*(features[name] for name in student), scale, kept), mixture, kept)

    def _kept(self, relation: str, present: Bool[Tensor, "n"]) -> Bool[Tensor, "n n"]:
        """The pairs of samples that a relation is about."""
        kept = present[:, None] & present
        if relation == "PP" and (self.settings.form == "partial-order" or not self.settings.diagonal):
            kept = kept & ~torch.eye(len(present), dtype=torch.bool, device=present.device)
        return kept


def similarity(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "n d"], scale: Float[Tensor, ""], kept: Bool[Tensor, "n n"]
) -> Float[Tensor, "n n"]:
    """Logarithm of each row's softmax of its cosines times `scale`, over the pairs `kept`; about NONE for the others (eq. 5, 6)."""
    return (scale * rows @ columns.T).masked_fill(~kept, NONE).log_softmax(dim=1)


def jeffrey(student: Float[Tensor, "n n"], teacher: Float[Tensor, "n n"], kept: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Mean over the rows of KL(S | T) + KL(T | S), without a factor 1/2, of logarithms of distributions (eq. 11)."""
    divergence = ((student.exp() - teacher.exp()) * (student - teacher)).sum(dim=1)
    return mean_of(divergence, kept.any(dim=1))


def distances(rows: Float[Tensor, "n d"], columns: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Euclidean distances by exact differences: a row's distance to itself is 0, and so is the gradient there."""
    return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")


def euclidean(rows: Float[Tensor, "n d"], columns: Float[Tensor, "n d"], kept: Bool[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Distances over the mean of those pairs `kept` that are above 0; the mean has its gradient too (eq. 3, 4; the normaliser of
    RKD, arXiv 1904.05068)."""
    apart = distances(rows, columns)
    mean = mean_of(apart, kept & (apart > 0))
    return apart / (mean + (mean == 0))  # without any, all of them are 0


def ranks(rows: Float[Tensor, "n d"], columns: Float[Tensor, "n d"], present: Bool[Tensor, "n"]) -> Int[Tensor, "n n"]:
    """Each column's place, 0 the nearest, among those `present`, sorted by the distance to the row (eq. 7, 8); the others come
    last."""
    nearest_first = distances(rows, columns).masked_fill(~present, torch.inf).argsort(dim=1, stable=True)
    return nearest_first.argsort(dim=1)


def ranking(
    student: Float[Tensor, "n n"], teacher: Int[Tensor, "n n"], kept: Bool[Tensor, "n n"], margin: float
) -> Float[Tensor, ""]:
    """Mean, over each row and each two of its columns, of how far the student's distances are from the teacher's order by `margin`:
    max(0, margin + nearer - farther), nearer and farther by the teacher's ranks (eq. 12).

    Not by n^3 / 2 triples, but as merge sort counts inversions: each row in the teacher's order is cut into halves, these into
    halves, and so on. Every column of the nearer half finds, among the sorted ones of the farther half, how many of them come too
    early and what these add up to. Time grows with n^2 log^2 n, memory with n^2 log n."""
    levels = (student.shape[1] - 1).bit_length()
    order = teacher.argsort(dim=1)
    missing = (0, 2**levels - student.shape[1])
    distance, there = F.pad(student.gather(1, order), missing), F.pad(kept.gather(1, order), missing)
    total = student.new_zeros(())
    for level in range(levels):
        halves = (len(student), -1, 2, 2**level)
        nearer, counts = distance.view(halves)[:, :, 0] + margin, there.view(halves)[:, :, 0]
        farther = distance.masked_fill(~there, torch.inf).view(halves)[:, :, 1].sort(dim=2).values
        early = torch.searchsorted(farther.detach(), nearer.detach())
        total = total + ((nearer * early - F.pad(farther.cumsum(dim=2), (1, 0)).gather(2, early)) * counts).sum()
    others = kept.sum(dim=1)
    return total / (others * (others - 1) // 2).sum().clamp(min=1)


def cosine_errors(
    shape: Float[Tensor, "n d"], image: Float[Tensor, "n d"], text: Float[Tensor, "n d"]
) -> dict[str, Float[Tensor, ""]]:
    """How far the student's relations are from the teacher's: mean absolute difference of their matrices of cosines (the paper's
    table of mean absolute errors, whose columns name the keys). For evaluation, of objects that have all three; block by block, any
    number of them."""
    p, i, t = unit(shape), unit(image), unit(text)
    pairs = {"PP/II": (p, p, i, i), "PP/TT": (p, p, t, t), "PT/IT": (p, t, i, t), "PI/TI": (p, i, t, i)}
    return {name: _cosine_error(*parts) for name, parts in pairs.items()}


@torch.no_grad()
def _cosine_error(rows, columns, teacher_rows, teacher_columns, block: int = 2048) -> Float[Tensor, ""]:
    blocks = zip(rows.split(block), teacher_rows.split(block), strict=True)
    total = sum((some @ columns.T - theirs @ teacher_columns.T).abs().sum() for some, theirs in blocks)
    return total / (len(rows) * len(columns))
