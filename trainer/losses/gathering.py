"""Rows of all ranks, for losses over the global batch.

The bookkeeping of gradients. Every rank computes the same loss of the same gathered rows. The gradient of a local row is the sum of
what all ranks' losses ask of it, hence ranks times that of a single process on the global batch; DistributedDataParallel divides by
the number of ranks, and what remains is the single process's gradient exactly. Parameters of the loss itself (the log-scale, the
weights of the relations) get the single process's gradient on every rank, which averaging leaves as it is: wrap them together with
the encoder, so that rounding cannot make them drift apart.

Nothing here needs a process group: a single process that has none gets its own rows back.
"""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

# Uni3D's way: each rank has a loss of its own, of its rows against everybody's, and these are constants as soon as there are two
# ranks. So the directions text -> shape and image -> shape train nothing but the temperature: about two thirds of the gradient are
# left. Kept by name, for whoever must repeat a published run.
Gather = Literal["with gradient", "published uni3d"]


def rank_and_ranks() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) outside of a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gathered(rows: Shaped[Tensor, "b ..."], way: Gather = "with gradient") -> Shaped[Tensor, "all ..."]:
    """The rows of all ranks, in rank order; each rank must give equally many. A collective: every rank has to call it."""
    if rank_and_ranks()[1] == 1:
        return rows
    return _Gathered.apply(rows if way == "with gradient" else rows.detach())


def unit(rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """The rows at length 1, at least in float32: half precision is too coarse for cosines times a scale of 100. Zeros stay
    zeros.
    """
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        everyone = rows.new_empty((dist.get_world_size() * len(rows), *rows.shape[1:]))
        dist.all_gather_into_tensor(everyone, rows.contiguous())
        return everyone

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        own = gradient.new_empty((len(gradient) // dist.get_world_size(), *gradient.shape[1:]))
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own
