"""Uni3D: a picture transformer (EVA) that reads groups of points instead of patches (Zhou et al. 2024, "Uni3D: Exploring Unified
3D Representation at Scale", arXiv 2310.06773).

Farthest points are the centres of groups of nearest neighbours; a small PointNet makes each group a token; the blocks are timm's,
called without the rotary position embedding that EVA-02 has for pictures, as in the published code. Module names are the keys of
the published checkpoints without their prefix `point_encoder.`. timm's patch embedding, position table, class token and head,
which Uni3D carries along unused, are not built.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Int64
from timm.layers import LayerNorm, calculate_drop_path_rates, trunc_normal_
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainer.batch_norm import statistics_kept
from trainer.chance import Stream, permutation
from trainer.neighbours import farthest_points, gathered, nearest

# Outside training, where no statistics of the whole batch are needed, the PointNet takes so many points at once.
POINTS_AT_ONCE = 1 << 15

# What timm's EvaBlock is told for each kind of block.
FLAVOURS = {
    "swiglu": dict(qkv_fused=True, swiglu_mlp=True),
    "swiglu-normed": dict(qkv_fused=False, swiglu_mlp=True, scale_mlp=True),
    "gelu": dict(qkv_fused=True),
}


@dataclass(frozen=True, kw_only=True)
class Uni3dConfig:
    """Sizes of a Uni3D encoder; the last six are the same in all that were published.

    `hidden`: width inside the MLPs. `flavour` of the blocks: "swiglu" (EVA-02 tiny and small: gate and value in one matrix, gate
    first), "swiglu-normed" (EVA-02 base and large: q, k, v apart, a LayerNorm inside the MLP) or "gelu" (EVA giant); keys have no
    bias in any. `groups` of `group_size` points; `pc_encoder_dim`: width of the PointNet's tokens; `out`: of the embedding.
    `skip_origin`: points near the origin are never centres, as in pointnet2_ops, which the published weights were trained with.
    `drop_path`: share of residual branches left out in training, rising linearly from 0 to this over the blocks. `patch_dropout`:
    share of the groups left out in training; the published code left them out in evaluation as well. `checkpointing`: the PointNet
    and the blocks are computed again in the backward pass instead of kept.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    flavour: Literal["swiglu", "swiglu-normed", "gelu"]
    drop_path: float = 0.0
    patch_dropout: float = 0.0
    checkpointing: bool = False
    groups: int = 512
    group_size: int = 64
    pc_encoder_dim: int = 512
    out: int = 1024
    skip_origin: bool = True


SIZES = {
    "uni3d-ti": Uni3dConfig(width=192, depth=12, heads=3, hidden=512, flavour="swiglu"),
    "uni3d-s": Uni3dConfig(width=384, depth=12, heads=6, hidden=1024, flavour="swiglu"),
    "uni3d-b": Uni3dConfig(width=768, depth=12, heads=12, hidden=2048, flavour="swiglu-normed"),
    "uni3d-l": Uni3dConfig(width=1024, depth=24, heads=16, hidden=2730, flavour="swiglu-normed"),
    "uni3d-g": Uni3dConfig(width=1408, depth=40, heads=16, hidden=6144, flavour="gelu"),
}

# The model of timm whose blocks each size has, and from whose weights it may start (`initial_2d`).
TIMM_MODELS = {
    "uni3d-ti": "eva02_tiny_patch14_224",
    "uni3d-s": "eva02_small_patch14_224",
    "uni3d-b": "eva02_base_patch14_448",
    "uni3d-l": "eva02_large_patch14_448",
    "uni3d-g": "eva_giant_patch14_560",
}


class Uni3d(nn.Module):
    """The encoder of a `Uni3dConfig`."""

    def __init__(self, config: Uni3dConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = GroupEncoder(config.pc_encoder_dim, config.checkpointing)
        self.encoder2trans = nn.Linear(config.pc_encoder_dim, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.visual = nn.ModuleDict({"blocks": _blocks(config), "fc_norm": LayerNorm(width, eps=1e-6)})
        self.trans2embed = nn.Linear(width, config.out)

    def forward(
        self,
        xyz: Float[Tensor, "b n 3"],
        rgb: Float[Tensor, "b n 3"],
        start: Int[Tensor, " b"] | None = None,
        seeds: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b out"]:
        """Embeddings, not normalised, of clouds with colours 0..1.

        `start`: index of each cloud's first centre; None: 0. `seeds`: one per cloud, where patch dropout's chance comes from in
        training; unused without it. Raises ValueError for clouds of fewer points than there are groups, or points in a group.
        """
        centers, groups = self.grouped(xyz, rgb, start)
        clouds = len(xyz)
        tokens = torch.cat([self.cls_token.expand(clouds, -1, -1), self.encoder2trans(self.encoder(groups))], dim=1)
        tokens = tokens + torch.cat([self.cls_pos.expand(clouds, -1, -1), self.pos_embed(centers)], dim=1)
        if self.training and self.config.patch_dropout:
            tokens = _some_groups(tokens, seeds, self.config.patch_dropout)
        for block in self.visual["blocks"]:
            if self.training and self.config.checkpointing:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return self.trans2embed(self.visual["fc_norm"](tokens[:, 0]))

    def grouped(
        self, xyz: Float[Tensor, "b n 3"], rgb: Float[Tensor, "b n 3"], start: Int[Tensor, " b"] | None = None
    ) -> tuple[Float[Tensor, "b g 3"], Float[Tensor, "b g k 6"]]:
        """Centres, and the points nearest to each: their place relative to the centre, then their colour."""
        config = self.config
        centers = gathered(xyz, farthest_points(xyz, config.groups, start=start, skip_origin=config.skip_origin))
        index = nearest(xyz, centers, config.group_size)
        return centers, torch.cat([gathered(xyz, index) - centers[:, :, None], gathered(rgb, index)], dim=-1)


class GroupEncoder(nn.Module):
    """A PointNet that makes a token of each group of points: two layers, the group's maximum beside each point, two layers more.

    The kernel-1 convolutions, whose shapes the checkpoints have, are computed as matrix products on points in rows.
    """

    def __init__(self, out: int, checkpointing: bool):
        super().__init__()
        self.checkpointing = checkpointing
        self.first_conv = _two_layers(6, 128, 256)
        self.second_conv = _two_layers(512, 512, out)

    def forward(self, groups: Float[Tensor, "b g k 6"]) -> Float[Tensor, "b g out"]:
        rows = groups.flatten(0, 1)
        if not self.training:
            parts = rows.split(max(1, POINTS_AT_ONCE // rows.shape[1]))
            tokens = torch.cat([self._tokens(part) for part in parts])
        else:
            tokens = self._tokens_again(rows) if self.checkpointing else self._tokens(rows)
        return tokens.unflatten(0, groups.shape[:2])

    @torch.compiler.disable  # torch.compile cannot trace a second pass that differs from the first
    def _tokens_again(self, groups: Float[Tensor, "m k 6"]) -> Float[Tensor, "m out"]:
        passes = lambda: (nullcontext(), statistics_kept(self))  # noqa: E731 around the first, around the second
        return checkpoint(self._tokens, groups, use_reentrant=False, context_fn=passes)

    def _tokens(self, groups: Float[Tensor, "m k 6"]) -> Float[Tensor, "m out"]:
        widen, norm, active, deepen = self.first_conv
        local = _linear(active(_normalised(_linear(groups, widen.weight, widen.bias), norm)), deepen.weight, deepen.bias)
        widen, norm, active, deepen = self.second_conv
        of_group, of_point = widen.weight.chunk(2, dim=1)  # the input is the group's maximum, then the point
        both = _linear(local, of_point) + _linear(local.max(dim=1).values, of_group, widen.bias)[:, None]
        return _linear(active(_normalised(both, norm)), deepen.weight, deepen.bias).max(dim=1).values


def _two_layers(wide: int, middle: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(wide, middle, 1), nn.BatchNorm1d(middle), nn.ReLU(inplace=True), nn.Conv1d(middle, out, 1))


def _linear(rows: Float[Tensor, "*m c"], weight: Float[Tensor, "d c 1"], bias: Float[Tensor, " d"] | None = None):
    return F.linear(rows, weight.squeeze(-1), bias)


def _normalised(rows: Float[Tensor, "m k c"], norm: nn.Module) -> Float[Tensor, "m k c"]:
    return norm(rows.flatten(0, 1)).view_as(rows)


def _blocks(config: Uni3dConfig) -> nn.ModuleList:
    """timm's blocks, with the initial weights that timm's Eva gives them."""
    drop_paths = calculate_drop_path_rates(config.drop_path, config.depth)
    blocks = nn.ModuleList(
        EvaBlock(
            config.width,
            config.heads,
            mlp_ratio=(config.hidden + 0.5) / config.width,  # timm rounds width * ratio down
            drop_path=drop_path,
            norm_layer=partial(LayerNorm, eps=1e-6),
            **FLAVOURS[config.flavour],
        )
        for drop_path in drop_paths
    )
    for number, block in enumerate(blocks, start=1):
        for module in block.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for last in (block.attn.proj, block.mlp.fc2):  # deep branches start smaller
                last.weight /= (2 * number) ** 0.5
    return blocks


def _some_groups(tokens: Float[Tensor, "b t w"], seeds: Int64[Tensor, " b"] | None, dropped: float) -> Float[Tensor, "b s w"]:
    """The class token and a random share of the others (Li et al. 2023, "Scaling Language-Image Pre-training via Masking")."""
    if seeds is None:
        raise ValueError("patch dropout in training needs `seeds`, one per cloud: pass the batch's, or set patch_dropout to 0")
    groups = tokens.shape[1] - 1
    kept = permutation(seeds, Stream.PATCH_DROPOUT, groups)[:, : max(1, int(groups * (1 - dropped)))]
    return torch.cat([tokens[:, :1], gathered(tokens[:, 1:], kept)], dim=1)


def official(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of `Uni3d` in a published checkpoint, or in one that the published code wrote.

    `state`: the file's content: the weights under "module", or the weights themselves, with the prefix `module.` or without. Left
    out: the loss's logit_scale, and the parts of timm's model that Uni3D never uses. Raises ValueError for keys of something else.
    """
    weights = state.get("module", state)
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    strange = sorted(key for key in weights if not key.startswith("point_encoder.") and key != "logit_scale")
    if strange or not weights:
        raise ValueError(
            f"not a checkpoint of Uni3D: its keys begin with point_encoder., here are {', '.join(strange[:3]) or 'none'}"
        )
    weights = {key.removeprefix("point_encoder."): value for key, value in weights.items() if key != "logit_scale"}
    unused = ("visual.cls_token", "visual.pos_embed", "visual.patch_embed.", "visual.head.")
    return {key: value for key, value in weights.items() if not key.startswith(unused)}


def initial_2d(state: Mapping[str, Tensor], config: Uni3dConfig) -> dict[str, Tensor]:
    """What an encoder of `config` can start from in the weights of a picture model: its blocks and the norm after them.

    `state`: as timm's model has it (see TIMM_MODELS). The keys that come back are those of `Uni3d`, and say what was taken: load
    them with strict=False. Raises ValueError where the model has other blocks than `config`.
    """
    taken = {f"visual.{key}": value for key, value in state.items() if key.startswith(("blocks.", "fc_norm."))}
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in Uni3d(config).state_dict().items() if key.startswith("visual.blocks.")}
    given = {key: value.shape for key, value in taken.items() if key.startswith("visual.blocks.")}
    different = sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key))
    if different:
        raise ValueError(
            f"the picture model has other blocks than this encoder, e.g. {different[0].removeprefix('visual.')}: "
            f"{_told(given.get(different[0]))} there, {_told(wanted.get(different[0]))} here"
        )
    return taken


def _told(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(list(shape))
