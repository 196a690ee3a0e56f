"""Uni3D against the published code: every array of its parity data, in all three flavours of blocks."""

import json

import numpy as np
import pytest
import torch

from trainer.encoders.uni3d import Uni3d, Uni3dConfig, official
from trainer.neighbours import farthest_points, nearest

FLAVOURS = {(True, False): "swiglu", (True, True): "swiglu-normed", (False, False): "gelu"}


@pytest.mark.parametrize("name", ["uni3d_ti", "uni3d_b", "uni3d_g"])
def test_uni3d_equals_the_oracle(oracles, name):
    with np.load(oracles / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    told = json.loads(str(arrays["config"]))
    config = Uni3dConfig(
        width=told["width"],
        depth=told["depth"],
        heads=told["heads"],
        hidden=told["hidden"],
        flavour=FLAVOURS[told["block"].get("swiglu_mlp", False), told["block"].get("scale_mlp", False)],
        groups=told["num_group"],
        group_size=told["group_size"],
        pc_encoder_dim=told["pc_encoder_dim"],
        out=told["embed_dim"],
    )
    encoder = Uni3d(config).eval()
    state = {key.removeprefix("state/"): torch.from_numpy(value) for key, value in arrays.items() if key.startswith("state/")}
    encoder.load_state_dict(official({"module": state}))

    seen = {}
    keep = lambda name: lambda module, given, made: seen.update({name: made})  # noqa: E731
    encoder.encoder.register_forward_hook(keep("mid/encoder_tokens"))
    encoder.encoder2trans.register_forward_hook(keep("mid/encoder2trans"))
    encoder.pos_embed.register_forward_hook(keep("mid/pos_embed"))
    encoder.pos_embed.register_forward_pre_hook(lambda module, given: seen.update({"mid/centers": given[0]}))
    encoder.visual["fc_norm"].register_forward_hook(keep("mid/cls_after_norm"))
    for number, block in enumerate(encoder.visual["blocks"]):
        block.register_forward_hook(keep(f"mid/block{number}"))
    encoder.visual["blocks"][0].register_forward_pre_hook(lambda module, given: seen.update({"mid/block_input": given[0]}))

    xyz, rgb = torch.from_numpy(arrays["in/pc"]).split(3, dim=-1)
    seen["out/embedding"] = encoder(xyz, rgb)
    seen["mid/fps_idx"] = farthest_points(xyz, config.groups, skip_origin=True)
    seen["mid/knn_idx_sorted"] = nearest(xyz, seen["mid/centers"], config.group_size).sort(dim=-1).values
    (seen["out/embedding"] * torch.from_numpy(arrays["in/cotangent"])).sum().backward()
    seen |= {f"grad/point_encoder.{key}": parameter.grad for key, parameter in encoder.named_parameters()}

    wanted = {key: value for key, value in arrays.items() if key.startswith(("mid/", "out/", "grad/"))}
    assert wanted.keys() <= seen.keys()
    for key, value in wanted.items():
        mine = seen[key].detach().numpy()
        assert mine.shape == value.shape, key
        print(f"{name} {key:58} {np.abs(mine - value).max():.1e}")
        tolerance = 1e-4 if key.startswith("grad/") else 0 if "_idx" in key else 1e-5
        np.testing.assert_allclose(mine, value, rtol=tolerance, atol=tolerance, err_msg=key)
