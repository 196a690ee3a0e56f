"""The same training on a Ray cluster, by Ray Train: it places the workers, joins them to one process group, and starts them anew
when one dies; what they go on from are the run's own checkpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from trainer.train import Run, Trained, TrainingStopped, train

FAILURES = 3  # of workers or machines, after which the run fails; the same command goes on all the same


def train_on_ray(run: Run, workers: int, *, gpus: bool) -> Trained:
    """As trainer.train.train, by so many workers of the cluster that `ray.init` has connected to, with a GPU each or none.
    Everybody must see `run.out`: a folder that all machines share, or a URI. Raises TrainingStopped as `train` does."""
    if "://" not in run.out:
        run = replace(run, out=str(Path(run.out).absolute()))
    if run.initial and Path(run.initial).exists():
        run = replace(run, initial=str(Path(run.initial).absolute()))
    trainer = TorchTrainer(
        _one_worker,
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=f"{run.out.rstrip('/')}/ray", failure_config=FailureConfig(max_failures=FAILURES)),
    )
    said = trainer.fit().return_value
    if isinstance(said, TrainingStopped):
        raise said
    return said


def _one_worker(config: dict[str, Any]) -> Trained | TrainingStopped:
    """The process group is there already. What trying again does not change is handed over, not raised."""
    run = config["run"]
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        return train(replace(run, device=device.type))
    except TrainingStopped as stopped:
        return stopped
