"""How encoders are trained: every published system, and small ones that a CPU trains in minutes. A variant is dataclasses.replace.

    RECIPES["openshape-pointbert"]
    replace(RECIPES["uni3d-b"], batch=256, seed=1)

Each number stands beside its source: a paper, by name and section, or "published code", the system's repository. [choice]: nobody
says, and we chose. Not taken over, because they are defects of the published code: OpenShape's shuffle is the same in each epoch,
and points that it drops keep their colours; Uni3D drops patches in evaluation too, gives texts of random numbers to objects without
any, and lets no gradient through its gather (by name in trainer/losses/contrastive.py); DuoduoCLIP crops at random in evaluation.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from schemas.tables import POINTS_PER_OBJECT
from trainer.card import PointInput, ViewInput
from trainer.checkpoints import B32, BIGG, EVA02_E_PLUS
from trainer.clouds import NONE, OPENSHAPE, UNI3D, Augment
from trainer.data import Draws
from trainer.encoders import duoduo, pointbert, uni3d
from trainer.losses.contrastive import PRESETS, ContrastiveSettings
from trainer.losses.relations import LAMBDA, RelationsSettings


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW. `decayed`: what weight decay acts on: "all" parameters (torch's default), or "matrices": none of a single dimension
    and no bias. `layer_decay`: the learning rate of the transformer's last block is this times the others', of the one before it
    this squared, and so on; 1: none (parameters under `visual.blocks.`, as Uni3D has it)."""

    lr: float
    weight_decay: float = 0.01  # torch's default
    decayed: Literal["all", "matrices"] = "all"
    layer_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What the learning rate is multiplied by.

    "steps": `factor` to the number of whole `every` steps that are done. "cosine": from 1 down to `least` (a share of the learning
    rate) over the run, after a linear rise over `warmup_steps` steps or `warmup_epochs` epochs; `per_epoch`: the value changes
    between epochs alone. "constant": 1, after the rise.
    """

    kind: Literal["steps", "cosine", "constant"]
    every: int = 10_000
    factor: float = 1.0
    warmup_steps: int = 0
    warmup_epochs: int = 0
    per_epoch: bool = False
    least: float = 0.0

    def warmup(self, steps_per_epoch: int) -> int:
        """Steps of the rise."""
        return self.warmup_steps + self.warmup_epochs * steps_per_epoch

    def at(self, done: int, steps_per_epoch: int, epochs: int) -> float:
        """The multiplier for the step after `done` steps."""
        warmup = self.warmup(steps_per_epoch)
        if done < warmup:
            return (done + 1) / warmup
        match self.kind:
            case "constant":
                return 1.0
            case "steps":
                return self.factor ** (done // self.every)
        if self.per_epoch:
            done -= done % steps_per_epoch
        share = (done - warmup) / (epochs * steps_per_epoch - warmup)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what an encoder becomes, besides the data.

    `batch`: objects of a step, over all processes. `draws`, `augment`: what of an object is looked at, and how its points are
    changed. `relations`: MRD's terms, times `relation_weight`. `clip`: largest norm of the gradient. `ema`: decay of the running
    mean of the weights, which is then what is evaluated and saved. `precision`: of the encoder's forward pass; losses are in
    float32. `teacher`: whose embeddings the published system was trained on; `why`: where it comes from.
    """

    name: str
    encoder: pointbert.PointBertConfig | uni3d.Uni3dConfig | duoduo.DuoduoConfig
    input: PointInput | ViewInput
    draws: Draws
    augment: Augment = NONE
    contrastive: ContrastiveSettings
    relations: RelationsSettings | None = None
    relation_weight: float = LAMBDA
    batch: int
    epochs: int
    optimiser: Optimiser
    schedule: Schedule
    clip: float | None = None
    ema: float | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    teacher: str
    why: str

    @property
    def kind(self) -> Literal["pointbert", "uni3d", "duoduo"]:
        """The encoder's name on its card."""
        return {pointbert.PointBertConfig: "pointbert", uni3d.Uni3dConfig: "uni3d", duoduo.DuoduoConfig: "duoduo"}[
            type(self.encoder)
        ]

    @property
    def sees_points(self) -> bool:
        return isinstance(self.input, PointInput)

    @property
    def points(self) -> int:
        """How many points of an object are read, where any are."""
        return self.sees_points and self.input.points or POINTS_PER_OBJECT


# OpenShape (Liu et al. 2023, arXiv 2305.10764), published code: one of the stored texts, images of Objaverse half of the time its
# thumbnail; y and z swapped; augmentation of trainer/clouds.py. Its farthest points start anywhere: here the points are shuffled,
# so that the first of them is anyone, too.
_OPENSHAPE = Recipe(
    name="openshape-pointbert",
    encoder=pointbert.SIZES["openshape-4"],  # of the released ViT-bigG-14 checkpoints
    input=PointInput(frame="yz-swapped"),
    draws=Draws(text="openshape", image="openshape", points=True),
    augment=OPENSHAPE,
    contrastive=PRESETS["openshape"],
    batch=200,  # of its one A100
    epochs=1000,  # an upper bound: the released ones were stopped by hand
    optimiser=Optimiser(lr=5e-4),
    schedule=Schedule(kind="steps", every=10_000, factor=0.967),
    precision="float32",
    teacher=BIGG,
    why="OpenShape, published code, PointBERT at scaling 4 without hard negatives",
)
_OPENSHAPES = [_OPENSHAPE] + [
    replace(
        _OPENSHAPE,
        name=f"openshape-pointbert-{scaling}",
        encoder=pointbert.SIZES[f"openshape-{scaling}"],
        why=f"OpenShape, published code, PointBERT at scaling {scaling}",
    )
    for scaling in (1, 2, 3, 5, 6)
]

# MRD (Wang et al. 2024, arXiv 2407.14007), appendix: lr 1e-3, weight decay 0.05, cosine with 15 warm-up epochs, lambda 3, seed 0;
# similarities and Jeffrey divergence, intra- and cross-modal relations with dynamic weights. [choice] AdamW, what it decays, one
# schedule value per step, frame and augmentation of its baseline OpenShape; pictures are of the 12 cameras, never thumbnails.
_MRD = replace(
    _OPENSHAPE,
    draws=replace(_OPENSHAPE.draws, image="one-view"),
    relations=RelationsSettings(),
    optimiser=Optimiser(lr=1e-3, weight_decay=0.05, decayed="matrices"),
    schedule=Schedule(kind="cosine", warmup_epochs=15),
)
_MRDS = [
    replace(
        _MRD,
        name=f"mrd-{size}{end}",
        encoder=pointbert.SIZES[f"mrd-{size}"],
        batch=batch,
        epochs=epochs,
        why=f"MRD-{size.upper()} on {data}, paper, section 4.1 and appendix",
    )
    for size in "tsmbl"
    for end, data, batch, epochs in (("", "four sources", 512, 300), ("-shapenet", "ShapeNet", 192, 70))
]

# Uni3D (Zhou et al. 2024, arXiv 2310.06773), published code's pre-training script, which is the giant's; its paper names no others,
# so that all sizes have its numbers [choice]. Blocks start from timm's weights where these are given (--initial).
_UNI3D = Recipe(
    name="uni3d-g",
    encoder=replace(uni3d.SIZES["uni3d-g"], drop_path=0.2, patch_dropout=0.5),
    input=PointInput(),
    draws=Draws(text="openshape", image="one-view", points=True),
    augment=UNI3D,
    contrastive=PRESETS["uni3d"],
    batch=1152,  # 48 on each of 24 GPUs
    epochs=200,
    optimiser=Optimiser(lr=1e-3, weight_decay=0.1, decayed="matrices", layer_decay=0.95),
    schedule=Schedule(kind="cosine", warmup_steps=10_000),
    clip=5.0,
    precision="float16",
    seed=4096,
    teacher=EVA02_E_PLUS,
    why="Uni3D, published code, pre-training script of the giant model",
)
_UNI3DS = [_UNI3D] + [
    replace(
        _UNI3D,
        name=f"uni3d-{size}",
        encoder=replace(uni3d.SIZES[f"uni3d-{size}"], drop_path=0.2, patch_dropout=0.5),
        why=f"Uni3D-{size}: sizes of the paper, everything else the giant's of the published code",
    )
    for size in ("ti", "s", "b", "l")
]

# Duoduo CLIP (Lee et al. 2024, arXiv 2406.11579), published code: 1 to 6 of 12 views, the same number and the same ones for the
# whole batch; starts from the teacher's own weights, of which the attention of the upper six blocks learns.
_DUODUO = Recipe(
    name="duoduo",
    encoder=duoduo.SIZES["duoduo-lt6"],
    input=ViewInput(crop=16),
    draws=Draws(text="duoduo", image="mean-of-views", points=False, pictures=True, views=(1, 6), shared_views=True),
    contrastive=PRESETS["duoduo"],
    batch=1600,  # 400 on each of 4 GPUs
    epochs=80,
    optimiser=Optimiser(lr=5e-5),
    schedule=Schedule(kind="cosine", per_epoch=True, least=1e-7 / 5e-5),
    precision="float16",
    seed=123,
    teacher=B32,
    why="Duoduo CLIP, published code, Four_1to6F_bs1600_LT6",
)

# Small ones, for the demo, for tests and for a first look at a corpus: minutes on two cores, and no claim to anybody's figures. The
# first 1,024 stored points are in farthest-point order, so that they are an even sample. Small batches: such corpora are small.
TINY_TEACHER = "tricorpus-tiny:shapes-v1"
_POINTBERT_SMALL = Recipe(
    name="pointbert-small",
    encoder=pointbert.PointBertConfig(
        dim=128, depth=3, heads=2, hidden=256, sa_dim=64, groups=48, radius=0.35, group_size=32, out=64
    ),
    input=PointInput(points=1024),
    draws=Draws(text="any", image="one-view", points=True),
    augment=replace(UNI3D, color_drop=0.2),  # upright, turned about y
    contrastive=PRESETS["openshape"],
    batch=32,
    epochs=60,
    optimiser=Optimiser(lr=1e-3, weight_decay=0.05, decayed="matrices"),
    schedule=Schedule(kind="cosine", warmup_epochs=2),
    clip=5.0,
    teacher=TINY_TEACHER,
    why="OpenShape's PointBERT, a fortieth of its parameters: groups few and wide, since 1,024 points make no fine ones",
)
_SMALL = [
    _POINTBERT_SMALL,
    replace(
        _POINTBERT_SMALL,
        name="pointbert-small-mrd",
        relations=RelationsSettings(),
        why="pointbert-small and MRD's relations, nothing else: the difference is theirs",
    ),
    replace(
        _POINTBERT_SMALL,
        name="uni3d-small",
        encoder=replace(uni3d.SIZES["uni3d-ti"], groups=32, group_size=32, pc_encoder_dim=256, out=64, drop_path=0.1),
        contrastive=PRESETS["uni3d"],
        optimiser=replace(_POINTBERT_SMALL.optimiser, lr=5e-4),
        why="Uni3D-Ti's blocks from scratch on 32 groups instead of 512: twelve blocks of 33 tokens are what a CPU can take",
    ),
    Recipe(
        name="multiview-small",
        encoder=duoduo.DuoduoConfig(width=128, layers=4, heads=2, out=64, layers_threshold=2, trainable="all"),
        input=ViewInput(),
        draws=Draws(text="any", image="mean-of-views", points=False, pictures=True, views=(1, 4)),
        contrastive=PRESETS["duoduo"],
        batch=32,
        epochs=60,
        optimiser=Optimiser(lr=5e-4, weight_decay=0.05, decayed="matrices"),
        schedule=Schedule(kind="cosine", warmup_epochs=2),
        clip=5.0,
        teacher=TINY_TEACHER,
        why="Duoduo CLIP's way on a ViT of 4 blocks from scratch: there are no weights of one so small, hence all of it learns",
    ),
]

RECIPES = {recipe.name: recipe for recipe in (*_OPENSHAPES, *_MRDS, *_UNI3DS, _DUODUO, *_SMALL)}
