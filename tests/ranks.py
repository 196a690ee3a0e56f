"""A function on several processes that form one group, as training on several GPUs does; over gloo, which needs no GPU."""

import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def on_ranks(count: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)`, of a module, returns on each of `count` ranks: tensors, numbers, and lists and dicts of them."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        meeting = f"file://{folder.absolute()}/meeting"
        waiting = [pool.submit(_as_rank, rank, count, meeting, function, arguments) for rank in range(count)]
        return [torch.load(io.BytesIO(one.result()), weights_only=True) for one in waiting]


def _as_rank(rank: int, ranks: int, meeting: str, function: Callable[..., Any], arguments: tuple) -> bytes:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", meeting, timedelta(seconds=60), world_size=ranks, rank=rank)
    try:
        result = io.BytesIO()
        torch.save(function(*arguments), result)
        return result.getvalue()
    finally:
        dist.destroy_process_group()
