"""Duoduo CLIP's picture tower against the published code: every array of its parity data, for each number of views in it."""

import torch

from oracle import BACKWARD, FORWARD, Oracle
from trainer.encoders.duoduo import Duoduo, DuoduoConfig, official


def test_duoduo_equals_the_oracle(oracles):
    oracle = Oracle.read(oracles, "duoduo_mva")
    told = oracle.config
    config = DuoduoConfig(
        image_size=told["image_size"],
        patch=told["patch_size"],
        width=told["width"],
        layers=told["layers"],
        heads=told["heads"],
        mlp_ratio=told["mlp_ratio"],
        out=told["output_dim"],
        layers_threshold=told["layers_threshold"],
    )
    encoder = Duoduo(config).eval()
    encoder.load_state_dict(official({"state_dict": oracle.part("state/")}))

    visual, seen = encoder.visual, {}
    hooked = {"ln_pre": visual.ln_pre, "of_class": visual.ln_post}
    hooked |= {f"block{number}": block for number, block in enumerate(visual.transformer.resblocks)}
    for name, module in hooked.items():
        module.register_forward_hook(lambda module, given, made, name=name: seen.update({name: made}))

    for views in told["views"]:
        given = {name: oracle.arrays[f"in/{name}_F{views}"] for name in ("images", "cotangent")}
        encoder.zero_grad()
        embedding = encoder(given["images"])
        (embedding * given["cotangent"]).sum().backward()

        found = {f"mid/{name}": made.reshape(told["B"], views, -1, config.width) for name, made in seen.items()}
        of_class = found.pop("mid/of_class")  # the encoder needs that norm of the class tokens alone
        found["mid/ln_post"] = visual.ln_post(found[f"mid/block{config.layers - 1}"])
        torch.testing.assert_close(of_class, found["mid/ln_post"][:, :, :1])
        found["mid/pooled_before_proj"] = of_class.mean(dim=(1, 2))
        found["out/embedding"] = embedding
        found |= {f"grad/duoduoclip.{name}": one.grad for name, one in encoder.named_parameters() if one.requires_grad}
        for name, ours in found.items():
            if f"{name}_F{views}" in oracle.arrays:
                oracle.compare(f"{name}_F{views}", ours, *(BACKWARD if name.startswith("grad/") else FORWARD))
    assert not oracle.left()
