"""What a run keeps on disk, so that the same command goes on with it:

    run.json              its settings, and the versions of the corpus' tables at its first start
    log.jsonl, tensorboard/, curves.png
    checkpoints/step-00001200/   model.safetensors and config.json (trainer/checkpoints.py), and state.pt, all that going on needs
    best.json             which checkpoint is the best on held-out objects, and its figures

A checkpoint is written aside and renamed, so that one with this name is whole.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer import checkpoints
from trainer.card import Card

RUN, BEST, STATE, WEIGHTS = "run.json", "best.json", "state.pt", "model.safetensors"


class Kept:
    """The folder of a run, `folder`. For a URI that is a temporary one of this machine, and `publish` brings to the URI what is
    new; with several machines every one of them must see the same place.
    """

    def __init__(self, out: str):
        self._uri = out if "://" in out and not out.startswith("file://") else None
        if self._uri is None:
            self.folder = Path(out.removeprefix("file://")).absolute()
            self.folder.mkdir(parents=True, exist_ok=True)
            return
        self.folder = Path(tempfile.mkdtemp(prefix="tricorpus-run-"))
        self._files, self._place = fsspec.url_to_fs(self._uri)
        for name in (RUN, BEST, "log.jsonl"):
            if self._files.exists(f"{self._place}/{name}"):
                self._files.get(f"{self._place}/{name}", str(self.folder / name))
        if newest := max(self._published(), default=None):
            self._files.get(f"{self._place}/checkpoints/{_name(newest)}/", f"{self.path(newest)}/", recursive=True)

    def path(self, done: int) -> Path:
        """The checkpoint after so many steps."""
        return self.folder / "checkpoints" / _name(done)

    def place(self, done: int) -> str:
        """Where others find the checkpoint after so many steps."""
        return f"{self._uri.rstrip('/')}/checkpoints/{_name(done)}" if self._uri else str(self.path(done))

    def done(self) -> list[int]:
        """Steps after which there are checkpoints here, ascending."""
        return sorted(self._steps(str(path)) for path in (self.folder / "checkpoints").glob("step-*"))

    def read(self, name: str) -> dict[str, Any] | None:
        """A file of JSON; None: it is not there."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, name: str, content: dict[str, Any]) -> None:
        """A file of JSON, whole or not at all."""
        aside = self.folder / f"{name}.aside"
        aside.write_text(json.dumps(content, indent=1))
        os.replace(aside, self.folder / name)

    def save(self, done: int, encoder: nn.Module, card: Card, state: dict[str, Any]) -> None:
        """Make the checkpoint after so many steps; there may be one already."""
        path = self.path(done)
        if path.exists():
            return  # of the same steps, hence the same
        aside = path.with_name(f"aside-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        aside.mkdir(parents=True)
        checkpoints.save(aside, encoder, card)
        torch.save(state, aside / STATE)
        os.replace(aside, path)

    def load(self, done: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights and the state of a checkpoint, on the CPU."""
        path = self.path(done)
        return load_file(path / WEIGHTS), torch.load(path / STATE, map_location="cpu", weights_only=True)

    def publish(self) -> None:
        """Bring to the URI what is new here, the checkpoints last; nothing for a folder."""
        if self._uri is None:
            return
        for path in self.folder.rglob("*"):
            if path.is_file() and path.parent.parent.name != "checkpoints":
                self._put(path)
        for done in set(self.done()) - self._published():
            for name in (WEIGHTS, STATE, "config.json"):  # config.json last: a checkpoint that has it is whole
                self._put(self.path(done) / name)

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the last `keep` and the best, at the URI as well."""
        best, published = self.read(BEST), self._published()
        for done in sorted({*self.done(), *published})[:-keep]:
            if not best or best["step"] != done:
                shutil.rmtree(self.path(done), ignore_errors=True)  # made by another machine, perhaps
                if done in published:
                    self._files.rm(f"{self._place}/checkpoints/{_name(done)}", recursive=True)

    def _put(self, path: Path) -> None:
        there = f"{self._place}/{path.relative_to(self.folder)}"
        self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
        self._files.put(str(path), there)

    def _published(self) -> set[int]:
        """Steps after which there are whole checkpoints at the URI."""
        if self._uri is None:
            return set()
        found = self._files.glob(f"{self._place}/checkpoints/step-*/config.json")
        return {self._steps(path.rpartition("/")[0]) for path in found}

    @staticmethod
    def _steps(path: str) -> int:
        return int(path.rpartition("step-")[2])


def _name(done: int) -> str:
    return f"step-{done:08d}"
