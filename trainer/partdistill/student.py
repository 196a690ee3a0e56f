"""PartDistill's student: a frozen Point-M2AE encoder, whose three levels are spread back to every point, and four linear layers.

Umam et al., "PartDistill: 3D Shape Part Segmentation by Vision-Language Model Distillation" (CVPR 2024); the encoder is that of
Zhang et al., "Point-M2AE: Multi-scale Masked Autoencoders for Hierarchical Point Cloud Pre-training" (NeurIPS 2022).

What the released code also builds and never uses (Point-M2AE's own segmentation head, a CLIP text condition) is not here. Its drop
path and its BatchNorm in training mode, which acted on the "frozen" encoder during the first epoch alone, are a defect and are not
here either: the encoder always is in evaluation mode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from trainer.card import PointInput
from trainer.neighbours import farthest_points, gathered, nearest

INPUT = PointInput(normalisation="box", points=2048, fill=0.0)  # colours are not looked at

FIRST_WIDTHS = (128, 256, 512)  # of the first level's mini-PointNet, after which its tokens have the level's own width
FAR = -1e5  # added to the attention between centres that are too far from each other
NEIGHBOURS = 3  # centres that a point takes its features from
NEAREST = 1e-8  # added to squared distances, so that a point on a centre has a weight

# What else the released student's file holds, of the extractor: built, never used.
UNUSED = ("extractor.propagations.", "extractor.convs", "extractor.bns", "extractor.label_conv")


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Sizes of a student; the released ones, but for `parts`, which is the category's.

    One number per level: `groups`, centres; `group_sizes`, points (then centres of the level before) in a group; `widths` of the
    tokens; `depths`, blocks; `radii`, the distance from which on centres do not attend to each other, in units of the cloud's
    largest norm. `heads`: at every level.
    """

    parts: int
    groups: tuple[int, ...] = (512, 256, 64)
    group_sizes: tuple[int, ...] = (16, 8, 8)
    widths: tuple[int, ...] = (96, 192, 384)
    depths: tuple[int, ...] = (5, 5, 5)
    radii: tuple[float, ...] = (0.32, 0.64, 1.28)
    heads: int = 6
    mlp_ratio: float = 4.0

    @property
    def channels(self) -> int:
        """Width of a point's features: its coordinates and one interpolated token, for each level."""
        return sum(3 + width for width in self.widths)


SIZES = {
    "point-m2ae": StudentConfig(parts=1),
    "small": StudentConfig(
        parts=1, groups=(64, 32, 16), group_sizes=(16, 8, 8), widths=(24, 48, 96), depths=(1, 1, 1), heads=3
    ),  # to try things out: its encoder is of no published weights
}  # `parts` is the category's


class Student(nn.Module):
    """Parts of points. `features` is frozen; only `head` learns."""

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        self.extractor = Extractor(config).eval().requires_grad_(False)
        for layer in (1, 2, 3):
            self.add_module(f"fc{layer}", nn.Linear(config.channels, config.channels))
        self.fc4 = nn.Linear(config.channels, config.parts)

    def forward(self, xyz: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n r"]:
        """Logits of each point's parts. xyz: prepared as INPUT says."""
        return self.head(self.features(xyz))

    @torch.no_grad()
    def features(self, xyz: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
        """What the head sees of each point: per level the point's coordinates and its interpolated token."""
        return self.extractor(xyz)

    def head(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "b n r"]:
        """Logits, from features."""
        for layer in (self.fc1, self.fc2, self.fc3):
            features = layer(features).relu()
        return self.fc4(features)

    def head_parameters(self) -> list[nn.Parameter]:
        """All that learns."""
        return [*self.fc1.parameters(), *self.fc2.parameters(), *self.fc3.parameters(), *self.fc4.parameters()]

    def train(self, mode: bool = True) -> "Student":
        """Of the head; the encoder stays in evaluation mode, so that the statistics of its BatchNorm never move."""
        super().train(mode)
        self.extractor.eval()
        return self

    def load_official(self, file: Mapping[str, Any]) -> None:
        """Take the weights of a published file as torch.load gives it: all of a student, or the encoder alone. Raises RuntimeError
        for a key too many or too few."""
        state = official(file)
        if any(key.startswith("fc") for key in state):
            self.load_state_dict(state)
        else:
            self.extractor.load_state_dict({key.removeprefix("extractor."): value for key, value in state.items()})


def official(file: Mapping[str, Any]) -> dict[str, Tensor]:
    """The student's own keys and their weights, of Point-M2AE's point_m2ae_pre-train.pth (its decoder is left out; the head is not
    in it) or of a student that the released code saved (what it never used is left out)."""
    if "base_model" in file:
        keys = {key.removeprefix("module."): value for key, value in file["base_model"].items()}
        return {f"extractor.{key}": value for key, value in keys.items() if key.startswith("h_encoder.")}
    state = file.get("model_state_dict", file)
    keys = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in keys.items() if not key.startswith(UNUSED)}


class Extractor(nn.Module):
    """Features of points: the encoder's levels, each spread over all points by the three nearest of its centres."""

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.h_encoder = Encoder(config)

    def forward(self, xyz: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
        """Per level the coordinates, then the interpolated token."""
        levels = self.h_encoder(xyz)
        return torch.cat([part for centers, tokens in levels for part in (xyz, interpolated(xyz, centers, tokens))], dim=-1)


def interpolated(
    xyz: Float[Tensor, "b n 3"], centers: Float[Tensor, "b g 3"], tokens: Float[Tensor, "b g w"]
) -> Float[Tensor, "b n w"]:
    """The mean of the three nearest centres' tokens, weighted by the inverse of the squared distance (PointNet++, eq. 2)."""
    index = nearest(centers, xyz, NEIGHBOURS)
    weight = 1 / ((gathered(centers, index) - xyz.unsqueeze(2)).square().sum(-1, keepdim=True) + NEAREST)
    return (gathered(tokens, index) * weight / weight.sum(2, keepdim=True)).sum(2)


class Encoder(nn.Module):
    """Point-M2AE's hierarchical encoder without masks."""

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        before = (3, *config.widths)
        self.token_embed = nn.ModuleList(TokenEmbed(inner, outer) for inner, outer in zip(before, config.widths, strict=False))
        self.encoder_pos_embeds = nn.ModuleList(
            nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width)) for width in config.widths
        )
        self.encoder_blocks = nn.ModuleList(
            Blocks(width, depth, config) for width, depth in zip(config.widths, config.depths, strict=True)
        )
        self.encoder_norms = nn.ModuleList(nn.LayerNorm(width) for width in config.widths)

    def forward(self, xyz: Float[Tensor, "b n 3"]) -> list[tuple[Float[Tensor, "b _g 3"], Float[Tensor, "b _g _w"]]]:
        """Centres and tokens of each level. A level groups the centres of the one before, and merges their tokens; the first groups
        points, by where they lie in their group."""
        levels, tokens = [], None
        for level, (groups, size, radius) in enumerate(
            zip(self.config.groups, self.config.group_sizes, self.config.radii, strict=True)
        ):
            centers = gathered(xyz, farthest_points(xyz, groups, skip_origin=True))
            index = nearest(xyz, centers, size)
            members = gathered(xyz, index) - centers.unsqueeze(2) if tokens is None else gathered(tokens, index)
            tokens = self.encoder_blocks[level](
                self.token_embed[level](members), self.encoder_pos_embeds[level](centers), far_apart(centers, radius)
            )
            levels.append((centers, self.encoder_norms[level](tokens)))
            xyz = centers
        return levels


def far_apart(centers: Float[Tensor, "b g 3"], radius: float) -> Bool[Tensor, "b g g"]:
    """Which centres are at `radius` or more from each other."""
    return (centers.unsqueeze(1) - centers.unsqueeze(2)).square().sum(-1).sqrt() >= radius


class TokenEmbed(nn.Module):
    """A mini-PointNet: what lies in a group, as one token."""

    def __init__(self, inner: int, outer: int):
        super().__init__()
        first, middle, second = FIRST_WIDTHS if inner == 3 else (inner, inner, outer)
        self.first_conv = nn.Sequential(nn.Conv1d(inner, first, 1), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, middle, 1))
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * middle, second, 1), nn.BatchNorm1d(second), nn.ReLU(), nn.Conv1d(second, outer, 1)
        )

    def forward(self, members: Float[Tensor, "b g k c"]) -> Float[Tensor, "b g w"]:
        """One token per group."""
        local = self.first_conv(members.flatten(0, 1).transpose(1, 2))
        whole = local.amax(2, keepdim=True).expand_as(local)
        return self.second_conv(torch.cat([whole, local], dim=1)).amax(2).unflatten(0, members.shape[:2])


class Blocks(nn.Module):
    """The transformer of one level."""

    def __init__(self, width: int, depth: int, config: StudentConfig):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, config) for _ in range(depth))

    def forward(
        self, tokens: Float[Tensor, "b g w"], positions: Float[Tensor, "b g w"], far: Bool[Tensor, "b g g"]
    ) -> Float[Tensor, "b g w"]:
        """The tokens after all blocks; each block is given the positions anew."""
        bias = (far * FAR).unsqueeze(1).to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens + positions, bias)
        return tokens


class Block(nn.Module):
    """Attention and perceptron, each after its LayerNorm and added to what came in."""

    def __init__(self, width: int, config: StudentConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, config.heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width, int(width * config.mlp_ratio))

    def forward(self, tokens: Float[Tensor, "b g w"], bias: Float[Tensor, "b 1 g g"]) -> Float[Tensor, "b g w"]:
        """The tokens after the block. bias: added to the attention of each pair."""
        tokens = tokens + self.attn(self.norm1(tokens), bias)
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values without bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b g w"], bias: Float[Tensor, "b 1 g g"]) -> Float[Tensor, "b g w"]:
        """The tokens after attention. bias: added to the attention of each pair."""
        queries, keys, values = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(queries, keys, values, attn_mask=bias).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Float[Tensor, "b g w"]) -> Float[Tensor, "b g w"]:
        """The tokens after both layers."""
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))
