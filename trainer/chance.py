"""Random numbers by counting: each is a hash of (seed, stream, position), so that it is the same on any device, in any batch and
however a global batch is divided among ranks, and so that nothing has to be remembered to draw it again.

The hash is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"). Torch's int64 arithmetic
wraps around, as that of 64 bits without a sign does.
"""

import math
from enum import IntEnum, unique

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


@unique
class Stream(IntEnum):
    """What a number is drawn for: two draws of one sample are independent where their streams differ."""

    SHUFFLE = 1
    DROPOUT_RATIO = 2
    DROPOUT = 3
    SCALE = 4
    SHIFT = 5
    JITTER = 6
    TURN = 7
    COLOR = 8
    CROP = 10
    PATCH_DROPOUT = 11
    SUBSAMPLE = 12


def _signed(number: int) -> int:
    """Modulo 2^64, as an int64 holds it."""
    number %= 1 << 64
    return number - (1 << 64) if number >> 63 else number


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def uniform(seeds: Int64[Tensor, " b"], stream: int, count: int) -> Float32[Tensor, "b {count}"]:
    """Numbers in [0, 1), multiples of 2^-24; the first ones do not depend on `count`."""
    return _shifted(_bits(seeds, stream, count), 40).float() * 2.0**-24


def normal(seeds: Int64[Tensor, " b"], stream: int, count: int) -> Float32[Tensor, "b {count}"]:
    """Standard normal numbers (Box and Muller 1958), at most 5.8 from 0; they round as the device's log and cos do."""
    radius, angle = uniform(seeds, stream, 2 * count).unflatten(1, (count, 2)).unbind(-1)
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()


def permutation(seeds: Int64[Tensor, " b"], stream: int, count: int) -> Int64[Tensor, "b {count}"]:
    """The numbers 0..count-1 in random order; the hash takes different positions to different values, so none are equal."""
    return _bits(seeds, stream, count).argsort(dim=1)


def _bits(seeds: Int64[Tensor, " b"], stream: int, count: int) -> Int64[Tensor, "b {count}"]:
    key = _mixed(_mixed(seeds + _STEP) + _signed(stream * _STEP))  # the seeds mixed first: neighbouring ones share no numbers
    positions = torch.arange(1, count + 1, device=seeds.device) * _STEP
    return _mixed(key[:, None] + positions)


def _mixed(z: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Int64[Tensor, "*n"], places: int) -> Int64[Tensor, "*n"]:
    """To the right, with zeros coming in: torch's shift brings in the sign."""
    return (z >> places) & ((1 << (64 - places)) - 1)
