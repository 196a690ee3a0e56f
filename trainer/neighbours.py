"""Farthest points, balls and nearest neighbours of point clouds, in plain PyTorch, on any device.

Distances are squared differences, coordinate by coordinate, in float32: never |a|^2 + |b|^2 - 2ab, which loses the small ones.
No gradient flows through indices; `gathered` carries one to the values. torch.compile leaves the searches as they are: unrolled,
their loops would take it minutes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

# pointnet2_ops leaves out candidates whose squared norm, a float32, is <= this double: that is, < its rounding to float32.
NEAR_ORIGIN = 1e-3

# So many distances at once: enough to fill a GPU (a search then takes up to 0.7 GB), few enough to stay in a CPU's cache.
DISTANCES_ON_GPU = 1 << 25
DISTANCES_ON_CPU = 1 << 17

# Where it pays to find out whether points already come farthest first: on a GPU the check has a tenth of the launches of the loop
# that it spares; on a CPU it takes longer than the loop.
ORDER_IS_CHECKED_ON = ("cuda",)


@torch.compiler.disable
@torch.no_grad()
def farthest_points(
    xyz: Float[Tensor, "b n 3"], count: int, *, start: Int[Tensor, " b"] | None = None, skip_origin: bool = False
) -> Int[Tensor, "b {count}"]:
    """Indices of `count` points of each cloud: the start, then always the point farthest from all before it (the first of equals).

    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance". `start`: None is index 0 of each cloud.
    `skip_origin`, the rule of pointnet2_ops, which the weights of Uni3D and Point-M2AE were trained with: a point of squared norm
    <= 1e-3 is never taken, but as the start; where there are no other points, index 0 is repeated. (Among equals its kernel takes
    now one, now another; here it is the first.)
    """
    clouds, n, _ = xyz.shape
    if count > n:
        raise ValueError(f"{count} farthest points of clouds of {n} points: give more points, or an encoder of fewer groups")
    axes = xyz.float().movedim(-1, 0).contiguous()
    to_taken = axes.new_full((clouds, n), torch.inf)  # squared distance to the nearest point taken
    if skip_origin:
        to_taken.masked_fill_(_sum(axes.square()) < NEAR_ORIGIN, -1)
    first = torch.zeros(clouds, dtype=torch.int64, device=xyz.device) if start is None else start.long()
    if start is None and xyz.device.type in ORDER_IS_CHECKED_ON:
        order = torch.arange(count, device=xyz.device).repeat(clouds, 1)
        [other] = torch.where(~_in_order(axes, to_taken, count))
        if len(other):
            order[other] = _farthest(axes[:, other], to_taken[other], first[other], count)
        return order
    at_once = max(1, _distances_at_once(xyz) // n)
    parts = zip(axes.split(at_once, dim=1), to_taken.split(at_once), first.split(at_once), strict=True)
    return torch.cat([_farthest(*part, count) for part in parts])


@torch.compiler.disable
@torch.no_grad()
def ball(xyz: Float[Tensor, "b n 3"], centers: Float[Tensor, "b g 3"], radius: float, count: int) -> Int[Tensor, "b g {count}"]:
    """Indices of the points within `radius` of each centre: by increasing index, the first `count`, not the nearest.

    Fewer are filled up with the first of them; a centre that has none gets index 0 (which a centre that is a point never is).
    """
    n = xyz.shape[1]
    places = torch.arange(1, count + 1, dtype=torch.int32, device=xyz.device)

    def of_block(distances):
        within = (distances <= radius**2).cumsum(dim=-1, dtype=torch.int32)
        found = torch.searchsorted(within, places.repeat(*within.shape[:-1], 1))  # where the 1st, 2nd, ... within is met
        return torch.where(found < n, found, found[..., :1] % n)

    return _in_blocks(xyz, centers, of_block)


@torch.compiler.disable
@torch.no_grad()
def nearest(xyz: Float[Tensor, "b n 3"], centers: Float[Tensor, "b g 3"], count: int) -> Int[Tensor, "b g {count}"]:
    """Indices of the `count` points nearest to each centre, the nearest first. Among equals the device chooses."""
    if count > xyz.shape[1]:
        raise ValueError(
            f"{count} neighbours in clouds of {xyz.shape[1]} points: give more points, or an encoder of smaller groups"
        )
    return _in_blocks(xyz, centers, lambda distances: distances.topk(count, dim=-1, largest=False).indices)


def gathered(values: Shaped[Tensor, "b n c"], index: Int[Tensor, "b *g"]) -> Shaped[Tensor, "b *g c"]:
    """The rows of `values` at `index`, cloud by cloud."""
    rows = index.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, rows).reshape(*index.shape, values.shape[-1])


def _farthest(
    axes: Float[Tensor, "3 b n"], to_taken: Float[Tensor, "b n"], last: Int[Tensor, " b"], count: int
) -> Int[Tensor, "b {count}"]:
    order = torch.empty(len(last), count, dtype=torch.int64, device=axes.device)
    squares = torch.empty_like(axes)
    for i in range(count):
        order[:, i] = last
        torch.sub(axes, axes.gather(2, last[None, :, None].expand(3, -1, -1)), out=squares)
        torch.minimum(to_taken, _sum(squares.square_()), out=to_taken)
        last = _first_largest(to_taken)
    return order


def _in_order(axes: Float[Tensor, "3 b n"], to_taken: Float[Tensor, "b n"], count: int) -> Bool[Tensor, " b"]:
    """Clouds whose first `count` points already are their farthest points, in order, from index 0.

    The same distances, rounded alike, as the loop would see, but many points at a time: had the points before been taken, would the
    next one be the farthest? Ends at once where no cloud is in order.
    """
    _, clouds, n = axes.shape
    in_order = torch.ones(clouds, dtype=torch.bool, device=axes.device)
    at_once = max(1, _distances_at_once(axes) // (clouds * n))
    for begin in range(0, count - 1, at_once):
        end = min(begin + at_once, count - 1)
        distances = _distances(axes, axes[:, :, begin:end])
        distances[:, 0] = torch.minimum(distances[:, 0], to_taken)
        distances = distances.cummin(dim=1).values
        in_order &= (distances.argmax(dim=-1) == torch.arange(begin + 1, end + 1, device=axes.device)).all(dim=1)
        if not in_order.any():
            break
        to_taken = distances[:, -1]
    return in_order


def _in_blocks(
    xyz: Float[Tensor, "b n 3"], centers: Float[Tensor, "b g 3"], of_block: Callable[[Tensor], Tensor]
) -> Int[Tensor, "b g k"]:
    """`of_block` of the squared distances [clouds, centres, n] of as many clouds and centres at once as the device takes."""
    rows = max(1, _distances_at_once(xyz) // xyz.shape[1])
    clouds_at_once = max(1, rows // centers.shape[1])
    points, middles = (some.float().movedim(-1, 0).contiguous().split(clouds_at_once, dim=1) for some in (xyz, centers))
    found = []
    for some_points, some_middles in zip(points, middles, strict=True):
        blocks = [of_block(_distances(some_points, block)) for block in some_middles.split(rows, dim=2)]
        found.append(torch.cat(blocks, dim=1))
    return torch.cat(found)


def _distances(points: Float[Tensor, "3 b n"], middles: Float[Tensor, "3 b g"]) -> Float[Tensor, "b g n"]:
    """Squared, each coordinate in turn, so that two arrays of that size are in use at most."""
    total = None
    for point, middle in zip(points, middles, strict=True):
        square = (point[:, None] - middle[..., None]).square_()
        total = square if total is None else total.add_(square)
    return total


def _sum(axes: Float[Tensor, "3 *shape"]) -> Float[Tensor, "*shape"]:
    """x + y + z, in this order everywhere, into the place of x."""
    return axes[0].add_(axes[1]).add_(axes[2])


def _first_largest(values: Float[Tensor, "b n"]) -> Int[Tensor, " b"]:
    """Index of the largest of each row, the first of equals. On a CPU, NumPy's takes a tenth of the time of torch's."""
    return torch.from_numpy(values.numpy().argmax(axis=1)) if values.device.type == "cpu" else values.argmax(dim=1)


def _distances_at_once(tensor: Tensor) -> int:
    return DISTANCES_ON_CPU if tensor.device.type == "cpu" else DISTANCES_ON_GPU
