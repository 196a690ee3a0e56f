"""Batch normalisation over the batches of all ranks together, so that several processes see what one would; and over batches that
are computed twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def over_all_ranks(encoder: nn.Module, device: torch.device) -> nn.Module:
    """The same encoder, same keys and weights, its batch normalisations taking mean and variance over all ranks. On a GPU these are
    torch's; torch has none for the CPU, where `GlobalBatchNorm` stands in."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = GlobalBatchNorm  # its parameters and buffers are a BatchNorm's
    return encoder


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """The running statistics of `module` are afterwards as before, so that a batch computed again does not count twice."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """As nn.BatchNorm1d or 2d would on the ranks' inputs put together; every rank must have as many. Needs a process group."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch normalisation needs (n, channels, ...), not a shape of {tuple(input.shape)}")

    def forward(self, input: Float[Tensor, "n c *rest"]) -> Float[Tensor, "n c *rest"]:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        ranks, others = dist.get_world_size(), [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        values = input.float()  # statistics in float32 under autocast as well
        mean = _Summed.apply(values.mean(others)) / ranks
        centred = values - mean.view(shape)
        variance = _Summed.apply(centred.square().mean(others)) / ranks
        if self.track_running_stats:
            count = ranks * input.numel() / input.shape[1]
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)


class _Summed(torch.autograd.Function):
    """The sum over the ranks, with gradient: what all of them ask of it, summed."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        everyones = values.clone()
        dist.all_reduce(everyones)
        return everyones

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        everyones = gradient.contiguous().clone()
        dist.all_reduce(everyones)
        return everyones
