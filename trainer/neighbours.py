"""Farthest points, balls and nearest neighbours of point clouds, in plain PyTorch, on any device.

Distances are squared differences, coordinate by coordinate, in float32: never |a|^2 + |b|^2 - 2ab, which loses the small ones.
No gradient flows through indices; `gathered` carries one to the values.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

# pointnet2_ops leaves out candidates whose squared norm, a float32, is <= this double: that is, < its rounding to float32.
NEAR_ORIGIN = 1e-3

# So many distances at once: enough to fill a GPU, few enough to stay in a CPU's cache.
DISTANCES_ON_GPU = 1 << 25
DISTANCES_ON_CPU = 1 << 17


@torch.no_grad()
def farthest_points(
    xyz: Float[Tensor, "b n 3"], count: int, *, start: Int[Tensor, " b"] | None = None, skip_origin: bool = False
) -> Int[Tensor, "b {count}"]:
    """Indices of `count` points of each cloud: the start, then always the point farthest from all before it (the first of equals).

    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance". `start`: None is index 0 of each cloud.
    `skip_origin`, the rule of pointnet2_ops, which the weights of Uni3D and Point-M2AE were trained with: a point of squared norm
    <= 1e-3 is never taken, but as the start; where there are no other points, index 0 is repeated.
    """
    clouds, n, _ = xyz.shape
    if count > n:
        raise ValueError(f"{count} farthest points of clouds of {n} points: give more points, or an encoder of fewer groups")
    axes = xyz.float().movedim(-1, 0).contiguous()
    to_taken = axes.new_full((clouds, n), torch.inf)  # squared distance to the nearest point taken
    if skip_origin:
        to_taken.masked_fill_(_sum(axes.square()) < NEAR_ORIGIN, -1)
    order = torch.empty(clouds, count, dtype=torch.int64, device=xyz.device)
    last = order.new_zeros(clouds) if start is None else start.long()
    for i in range(count):
        order[:, i] = last
        at = axes.gather(2, last[None, :, None].expand(3, -1, -1))
        to_taken = torch.minimum(to_taken, _sum((axes - at).square()))
        last = to_taken.argmax(dim=1)
    return order


@torch.no_grad()
def ball(xyz: Float[Tensor, "b n 3"], centers: Float[Tensor, "b g 3"], radius: float, count: int) -> Int[Tensor, "b g {count}"]:
    """Indices of the points within `radius` of each centre: by increasing index, the first `count`, not the nearest.

    Fewer are filled up with the first of them; a centre that has none gets index 0 (which a centre that is a point never is).
    """
    clouds, n, _ = xyz.shape
    wanted = torch.arange(1, count + 1, dtype=torch.int32, device=xyz.device)

    def of_block(distance):
        seen = (distance <= radius**2).cumsum(dim=-1, dtype=torch.int32)
        found = torch.searchsorted(seen, wanted.expand(*seen.shape[:-1], count))  # where the 1st, 2nd, ... within is met
        first = found[..., :1] % n
        return torch.where(found < n, found, first)

    return _in_blocks(xyz, centers, count, of_block)


@torch.no_grad()
def nearest(xyz: Float[Tensor, "b n 3"], centers: Float[Tensor, "b g 3"], count: int) -> Int[Tensor, "b g {count}"]:
    """Indices of the `count` points nearest to each centre, the nearest first. Among equals the device chooses."""
    if count > xyz.shape[1]:
        raise ValueError(
            f"{count} neighbours in clouds of {xyz.shape[1]} points: give more points, or an encoder of smaller groups"
        )
    return _in_blocks(xyz, centers, count, lambda distance: distance.topk(count, dim=-1, largest=False).indices)


def gathered(values: Shaped[Tensor, "b n c"], index: Int[Tensor, "b *g"]) -> Shaped[Tensor, "b *g c"]:
    """The rows of `values` at `index`, cloud by cloud."""
    rows = index.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, rows).reshape(*index.shape, values.shape[-1])


def _sum(axes: Float[Tensor, "3 *shape"]) -> Float[Tensor, "*shape"]:
    """x + y + z, always in this order, so that it rounds alike everywhere."""
    return axes[0] + axes[1] + axes[2]


def _in_blocks(xyz, centers, count, of_block) -> Int[Tensor, "b g {count}"]:
    """`of_block` of the squared distances [clouds, centres, n] of as many clouds and centres at once as the device takes."""
    n, groups = xyz.shape[1], centers.shape[1]
    rows = max(1, (DISTANCES_ON_GPU if xyz.is_cuda else DISTANCES_ON_CPU) // n)
    points, middles = xyz.float().movedim(-1, 0).contiguous(), centers.float().movedim(-1, 0).contiguous()
    index = torch.empty(*centers.shape[:2], count, dtype=torch.int64, device=xyz.device)
    clouds_at_once, groups_at_once = max(1, rows // groups), min(groups, rows)
    for cloud in range(0, xyz.shape[0], clouds_at_once):
        clouds = slice(cloud, cloud + clouds_at_once)
        for group in range(0, groups, groups_at_once):
            some = slice(group, group + groups_at_once)
            difference = points[:, clouds, None, :] - middles[:, clouds, some, None]
            index[clouds, some] = of_block(_sum(difference.square_()))
    return index
