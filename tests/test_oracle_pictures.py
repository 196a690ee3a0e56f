"""DuoduoCLIP's pictures against the parity data: same pixels for each crop that the file names."""

import json

import numpy as np
import torch

from trainer.card import ViewInput
from trainer.pictures import pixels

TOLERANCE = 2e-5


def test_oracle_duoduo_preprocess(oracles):
    data = np.load(oracles / "duoduo_preprocess.npz", allow_pickle=False)
    config = json.loads(str(data["config"]))
    wanted = ViewInput(
        size=config["size"], crop=config["size"] - config["crop"], mean=tuple(config["mean"]), std=tuple(config["std"])
    )
    picture = torch.from_numpy(data["in/image_uint8"])[None, None]
    print()
    for number, offset in enumerate(config["offsets"]):
        made = pixels(picture, wanted, tuple(offset))[0, 0]
        sparse = torch.from_numpy(data[f"out/pixels_stride8_{number}"])
        differences = {
            f"out/pixels_stride8_{number}": (made[:, ::8, ::8] - sparse).abs().max().item(),
            f"out/mean_{number}": (made.mean(dim=(1, 2)) - torch.from_numpy(data[f"out/mean_{number}"])).abs().max().item(),
        }
        for name, difference in differences.items():
            print(f"duoduo_preprocess.npz {name:<24} largest difference {difference:.2e} (of {TOLERANCE:.0e})")
            assert difference <= TOLERANCE, name
