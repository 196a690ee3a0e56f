"""What a run writes down: log.jsonl, one line per step and per look at the held-out objects, TensorBoard's events, wandb on
request.

Figures are flat: "loss", "loss_image", "seconds/forward", "held_out/zero_shot/top1", ...
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
EVENTS = "tensorboard"


class Logbook:
    """The logs of a run that has done so many steps: what a run that was killed has written of later ones is struck out."""

    def __init__(self, folder: Path, done: int, wandb: str | None, settings: dict[str, Any]):
        self._wandb = _wandb_run(wandb, folder, settings) if wandb else None
        _strike_out(folder / LOG, done)
        self._lines = (folder / LOG).open("a", buffering=1)  # a line at a time: people follow it
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=done + 1)

    def write(self, step: int, figures: dict[str, float], **more: Any) -> None:
        """Add a line: the figures of `step`, and `more` for the line alone."""
        self._lines.write(json.dumps({"step": step} | more | figures) + "\n")
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(figures, step=step)

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._lines.flush()
        self._events.flush()

    def close(self) -> None:
        """Bring everything to the disk, for good."""
        self._lines.close()
        self._events.close()
        if self._wandb:
            self._wandb.finish()


def _strike_out(path: Path, done: int) -> None:
    """Keep the whole lines of the first `done` steps."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= done]
    aside = path.with_suffix(".aside")
    aside.write_text("".join(f"{line}\n" for line in kept))
    os.replace(aside, path)


def _wandb_run(project: str, folder: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError("wandb is not installed here: pip install wandb, or train without --wandb") from error
    place = folder.absolute()
    id = hashlib.sha256(str(place).encode()).hexdigest()[:16]  # the same place goes on with the same run
    return wandb.init(project=project, name=place.name, id=id, dir=str(folder), config=settings, resume="allow")
