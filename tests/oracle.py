"""Parity data of one published system: its arrays, and which of them have been compared with ours."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

# Allowed of encoders in float32 on a CPU: so much, and so much of the value.
FORWARD, BACKWARD = (1e-5, 1e-5), (1e-4, 1e-4)


@dataclass(frozen=True)
class Oracle:
    name: str
    config: dict
    arrays: dict[str, torch.Tensor]
    compared: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path, name: str) -> "Oracle":
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "config"}
            return cls(name, json.loads(str(file["config"])), arrays)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The arrays whose names start so, by the rest of their names."""
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}

    def compare(self, key: str, ours, absolute: float = 0.0, relative: float = 0.0) -> None:
        """Shape and values, in float64, where whole numbers and booleans lose nothing; equal, unless a difference is allowed."""
        theirs, ours = self.arrays[key].double(), torch.as_tensor(ours, dtype=torch.float64).detach()
        assert ours.shape == theirs.shape, f"{self.name} {key}"
        difference = (ours - theirs).abs()
        print(f"{self.name:20} {key:72} {difference.max():.1e}")
        assert (difference <= absolute + relative * theirs.abs()).all(), f"{self.name} {key}"
        self.compared.add(key)

    def left(self) -> set[str]:
        """Results that have not been compared: whatever is neither a weight nor an input."""
        return {key for key in self.arrays if not key.startswith(("state/", "in/"))} - self.compared
