"""Uni3D against the published code: every array of its parity data, in all three flavours of blocks."""

import pytest

from oracle import BACKWARD, FORWARD, Oracle
from trainer.encoders.uni3d import Uni3d, Uni3dConfig, official
from trainer.neighbours import farthest_points, nearest

FLAVOURS = {(True, False): "swiglu", (True, True): "swiglu-normed", (False, False): "gelu"}


@pytest.mark.parametrize("name", ["uni3d_ti", "uni3d_b", "uni3d_g"])
def test_uni3d_equals_the_oracle(oracles, name):
    oracle = Oracle.read(oracles, name)
    told = oracle.config
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
    encoder.load_state_dict(official({"module": oracle.part("state/")}))

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

    xyz, rgb = oracle.arrays["in/pc"].split(3, dim=-1)
    seen["out/embedding"] = encoder(xyz, rgb)
    (seen["out/embedding"] * oracle.arrays["in/cotangent"]).sum().backward()
    seen |= {f"grad/point_encoder.{key}": parameter.grad for key, parameter in encoder.named_parameters()}
    oracle.compare("mid/fps_idx", farthest_points(xyz, config.groups, skip_origin=True))
    oracle.compare("mid/knn_idx_sorted", nearest(xyz, seen["mid/centers"], config.group_size).sort(dim=-1).values)
    for key in sorted(oracle.left()):
        oracle.compare(key, seen[key], *(BACKWARD if key.startswith("grad/") else FORWARD))
