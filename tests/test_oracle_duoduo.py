"""Duoduo CLIP's picture tower against the published code: every array of its parity data, for each number of views in it."""

import json

import numpy as np
import torch

from trainer.encoders.duoduo import Duoduo, DuoduoConfig, official


def test_duoduo_equals_the_oracle(oracles):
    with np.load(oracles / "duoduo_mva.npz") as file:
        arrays = {key: file[key] for key in file.files}
    told = json.loads(str(arrays["config"]))
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
    state = {key.removeprefix("state/"): torch.from_numpy(value) for key, value in arrays.items() if key.startswith("state/")}
    encoder.load_state_dict(official({"state_dict": state}))

    visual, seen = encoder.visual, {}
    hooked = {"ln_pre": visual.ln_pre, "of_class": visual.ln_post}
    hooked |= {f"block{number}": block for number, block in enumerate(visual.transformer.resblocks)}
    for name, module in hooked.items():
        module.register_forward_hook(lambda module, given, made, name=name: seen.update({name: made}))

    checked = {key for key in arrays if key.startswith(("state/", "in/"))} | {"config"}
    for views in told["views"]:
        encoder.zero_grad()
        embedding = encoder(torch.from_numpy(arrays[f"in/images_F{views}"]))
        (embedding * torch.from_numpy(arrays[f"in/cotangent_F{views}"])).sum().backward()

        found = {f"mid/{name}": made.reshape(told["B"], views, -1, config.width) for name, made in seen.items()}
        of_class = found.pop("mid/of_class")  # the encoder needs that norm of the class tokens alone
        found["mid/ln_post"] = visual.ln_post(found[f"mid/block{config.layers - 1}"])
        torch.testing.assert_close(of_class, found["mid/ln_post"][:, :, :1])
        found["mid/pooled_before_proj"] = of_class.mean(dim=(1, 2))
        found["out/embedding"] = embedding
        found |= {f"grad/duoduoclip.{name}": one.grad for name, one in encoder.named_parameters() if one.requires_grad}

        for name in sorted({key.removesuffix(f"_F{views}") for key in arrays if key.endswith(f"_F{views}")} & found.keys()):
            key, mine = f"{name}_F{views}", found[name].detach().numpy()
            assert mine.shape == arrays[key].shape, key
            print(f"duoduo_mva {key:75} {np.abs(mine - arrays[key]).max():.1e}")
            tolerance = 1e-4 if name.startswith("grad/") else 1e-5
            np.testing.assert_allclose(mine, arrays[key], rtol=tolerance, atol=tolerance, err_msg=key)
            checked.add(key)
    assert checked == arrays.keys()
