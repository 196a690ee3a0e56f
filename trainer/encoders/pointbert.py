"""PointBERT as OpenShape made it ("PPAT", point patch transformer), which MRD uses too: points with colours to one embedding.

Liu et al. 2023, "OpenShape: Scaling Up 3D Shape Representation Towards Open-World Understanding" (arXiv 2305.10764), and its
published code; sizes of MRD: arXiv 2407.14007. Modules are named as in the official checkpoints, so that these load strictly once
`official` has taken their prefixes off.

Kept, for checkpoints depend on it: balls are filled in the order of the points' indices, not by distance; no norm follows the last
block. Not kept: the published code draws the first of the farthest points, in evaluation too, so that no two embeddings of a cloud
are equal.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.neighbours import ball, farthest_points, gathered

FEATURES = 6  # of a point, beside its place: x, y, z, once more and absolute, then red, green, blue
GROUP_WIDTHS = (64, 64)  # of the first layers of the network that reads a group


@dataclass(frozen=True, kw_only=True)
class PointBertConfig:
    """Sizes of a PointBERT.

    `groups` balls of `radius` (in the unit of the points) with `group_size` points each, read by a network that ends in `sa_dim`
    values; then `depth` blocks of width `dim` with `heads` heads, each `head_width` wide, and `hidden` units. `out`: dimension of
    the embedding; `projection` False: the class token is the embedding, and `out` is `dim`. `patch_dropout`: so many groups fewer
    in training. `checkpointing`: activations of the blocks are computed anew in the backward pass instead of kept.
    """

    dim: int
    depth: int
    heads: int
    hidden: int
    sa_dim: int
    groups: int
    radius: float
    group_size: int
    head_width: int = 64
    out: int = 1280
    projection: bool = True
    patch_dropout: int = 0
    checkpointing: bool = False

    def __post_init__(self):
        if not self.projection and self.out != self.dim:
            raise ValueError(f"a PointBERT without projection gives {self.dim} values, its width, not out={self.out}")
        if not 0 <= self.patch_dropout < self.groups:
            raise ValueError(f"patch_dropout={self.patch_dropout} leaves none of {self.groups} groups")


_COARSE = dict(groups=64, radius=0.4, group_size=256)
_FINE = dict(groups=384, radius=0.2, group_size=64)
_FINEST = dict(groups=512, radius=0.2, group_size=64)
_OPENSHAPE_4 = PointBertConfig(dim=512, depth=12, heads=8, hidden=1536, sa_dim=256, **_FINE)
_OLD = PointBertConfig(dim=512, depth=12, heads=8, hidden=1024, sa_dim=128, out=768, **_COARSE)

# openshape-1 to -6: the published code's "scaling"; 4 is that of the released ViT-bigG-14 checkpoints. The two older checkpoints
# are named for their teachers. MRD's paper gives depth, width and heads (384 where it prints 394: 6 heads of 64); that T and M have
# as many parameters as openshape-1 and -4 says that they are these; hidden units and groups of S, B and L are our choice.
SIZES = {
    "openshape-1": PointBertConfig(dim=256, depth=6, heads=4, hidden=1024, sa_dim=96, **_COARSE),
    "openshape-2": PointBertConfig(dim=512, depth=6, heads=8, hidden=1024, sa_dim=128, **_COARSE),
    "openshape-3": PointBertConfig(dim=512, depth=12, heads=8, hidden=1024, sa_dim=128, groups=128, radius=0.35, group_size=128),
    "openshape-4": _OPENSHAPE_4,
    "openshape-5": PointBertConfig(dim=768, depth=12, heads=12, hidden=2304, sa_dim=256, **_FINEST),
    "openshape-6": PointBertConfig(dim=768, depth=24, heads=12, hidden=3072, sa_dim=256, **_FINEST),
    "openshape-vitl14": _OLD,
    "openshape-vitb32": replace(_OLD, out=512, projection=False),
    "mrd-t": PointBertConfig(dim=256, depth=6, heads=4, hidden=1024, sa_dim=96, **_COARSE),
    "mrd-s": PointBertConfig(dim=384, depth=12, heads=6, hidden=1536, sa_dim=256, **_FINE),
    "mrd-m": _OPENSHAPE_4,
    "mrd-b": PointBertConfig(dim=768, depth=12, heads=12, hidden=3072, sa_dim=256, **_FINEST),
    "mrd-l": PointBertConfig(dim=1024, depth=24, heads=16, hidden=4096, sa_dim=256, **_FINEST),
}


class PointBert(nn.Module):
    """The point patch transformer and the projection into the teacher's space."""

    def __init__(self, config: PointBertConfig):
        super().__init__()
        self.config = config
        self.ppat = PointPatchTransformer(config)
        self.proj = nn.Linear(config.dim, config.out) if config.projection else nn.Identity()

    def forward(
        self, xyz: Float[Tensor, "b n 3"], rgb: Float[Tensor, "b n 3"], start: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b out"]:
        """Embeddings, not normalised. `rgb` 0..1; `start`: index of the point that is the first centre, None: 0."""
        return self.proj(self.ppat(xyz, torch.cat([xyz, rgb], dim=-1), start))

    def tokens(self, xyz: Float[Tensor, "b n 3"], rgb: Float[Tensor, "b n 3"]) -> Float[Tensor, "b t dim"]:
        """The class token, which `forward` projects, and after it one token per group."""
        return self.ppat.tokens(xyz, torch.cat([xyz, rgb], dim=-1))


class PointPatchTransformer(nn.Module):
    """Groups become tokens, their centres the only word of where they are; the class token comes out."""

    def __init__(self, config: PointBertConfig):
        super().__init__()
        self.sa = SetAbstraction(config)
        self.lift = nn.Sequential(nn.Conv1d(3 + config.sa_dim, config.dim, 1), _ChannelsLast(), nn.LayerNorm(config.dim))
        self.cls_token = nn.Parameter(torch.randn(config.dim))
        self.transformer = Transformer(config)

    def forward(
        self, xyz: Float[Tensor, "b n 3"], features: Float[Tensor, "b n 6"], start: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b dim"]:
        return self.tokens(xyz, features, start)[:, 0]

    def tokens(
        self, xyz: Float[Tensor, "b n 3"], features: Float[Tensor, "b n 6"], start: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t dim"]:
        """What comes out of the blocks: the class token, then the groups'."""
        centers, groups = self.sa(xyz, features, start)
        tokens = self.lift(torch.cat([centers.mT, groups], dim=1))
        return self.transformer(torch.cat([self.cls_token.expand(len(xyz), 1, -1), tokens], dim=1))


class SetAbstraction(nn.Module):
    """PointNet++'s set abstraction: balls around the farthest points, each read by one small network, the largest values kept."""

    def __init__(self, config: PointBertConfig):
        super().__init__()
        self.config = config
        widths = (3 + FEATURES, *GROUP_WIDTHS, config.sa_dim)
        self.mlp_convs = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])

    def forward(
        self, xyz: Float[Tensor, "b n 3"], features: Float[Tensor, "b n 6"], start: Int[Tensor, " b"] | None = None
    ) -> tuple[Float[Tensor, "b g 3"], Float[Tensor, "b sa_dim g"]]:
        count = self.config.groups - (self.config.patch_dropout if self.training else 0)
        centers = gathered(xyz, farthest_points(xyz, count, start=start))
        near = gathered(torch.cat([xyz, features], dim=-1), ball(xyz, centers, self.config.radius, self.config.group_size))
        near = near - functional.pad(centers, (0, FEATURES))[:, :, None]  # the first three channels: relative to the centre
        x = near.permute(0, 3, 1, 2).contiguous()  # channels first in memory: on a CPU half the time of channels last
        for i, (conv, norm) in enumerate(zip(self.mlp_convs, self.mlp_bns, strict=True)):
            x = norm(conv(functional.relu(x, inplace=True) if i else x))
        return centers, functional.relu(x.max(dim=-1).values)  # the largest of the rectified is the rectified largest


class Transformer(nn.Module):
    """Blocks of attention and feed-forward, each on the norm of what it is added to."""

    def __init__(self, config: PointBertConfig):
        super().__init__()
        self.checkpointing = config.checkpointing
        self.layers = nn.ModuleList(
            nn.Sequential(
                Residual(config.dim, Attention(config.dim, config.heads, config.head_width)),
                Residual(config.dim, FeedForward(config.dim, config.hidden)),
            )
            for _ in range(config.depth)
        )

    def forward(self, tokens: Float[Tensor, "b t dim"]) -> Float[Tensor, "b t dim"]:
        for block in self.layers:
            tokens = checkpoint(block, tokens, use_reentrant=False) if self.checkpointing else block(tokens)
        return tokens


class Residual(nn.Module):
    """x + fn(norm(x))."""

    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Float[Tensor, "b t dim"]) -> Float[Tensor, "b t dim"]:
        return x + self.fn(self.norm(x))


class Attention(nn.Module):
    """Of all tokens to all; queries, keys and values without bias."""

    def __init__(self, dim: int, heads: int, width: int):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * width, dim))

    def forward(self, x: Float[Tensor, "b t dim"]) -> Float[Tensor, "b t dim"]:
        query, key, value = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers. The published ones have dropout, of 0, at places 2 and 4; hence the number of the second."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x: Float[Tensor, "b t dim"]) -> Float[Tensor, "b t dim"]:
        return self.net(x)


class _ChannelsLast(nn.Module):
    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b t c"]:
        return x.mT


def official(state: dict) -> dict[str, Tensor]:
    """A published file, as loaded, to this module's own keys and tensors.

    Three layouts: a training file, whose `state_dict` has the keys behind `module.` (the ViT-bigG-14 checkpoints; without that
    prefix where one process trained); a flat one behind `pc_encoder.` (ViT-L-14); the same without projection and so without
    `ppat.` (ViT-B-32). ValueError: it has none of these keys.
    """
    state = state.get("state_dict", state)
    for prefix in ("module.", "pc_encoder.", ""):
        keys = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if "ppat.cls_token" in keys:
            return keys
        if "cls_token" in keys:
            return {f"ppat.{key}": value for key, value in keys.items()}
    raise ValueError(f"these are not the weights of an OpenShape PointBERT, but {', '.join(list(state)[:5])} and so on")
