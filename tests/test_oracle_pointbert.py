"""OpenShape's PointBERT against the published code's own run with random weights: every array of openshape_ppat.npz."""

import torch

from oracle import BACKWARD, FORWARD, Oracle
from trainer.encoders.pointbert import PointBert, PointBertConfig, official
from trainer.neighbours import ball, farthest_points, gathered


def test_pointbert_equals_the_oracle(oracles):
    oracle = Oracle.read(oracles, "openshape_ppat")
    config = oracle.config
    model = PointBert(
        PointBertConfig(
            dim=config["dim"],
            depth=config["depth"],
            heads=config["heads"],
            head_width=config["dim_head"],
            hidden=config["mlp_dim"],
            sa_dim=config["sa_dim"],
            groups=config["patches"],
            radius=config["radius"],
            group_size=config["nsample"],
            out=config["out_channel"],
        )
    ).eval()
    model.load_state_dict(official(oracle.part("state/")), strict=True)
    # the runs differ in where the farthest points start; of the run "" the file has what is on the way too, so it comes last
    starts = {run: start.long() for run, start in reversed(oracle.part("in/fps_start").items())}
    given = oracle.part("in/")
    assert given.keys() == {"xyz", "features", "cotangent"} | {f"fps_start{run}" for run in starts}
    xyz, features = given["xyz"], given["features"]
    assert torch.equal(features[..., :3], xyz)

    for run, start in starts.items():
        oracle.compare(f"mid/fps_idx{run}", farthest_points(xyz, config["patches"], start=start))
    centers = gathered(xyz, oracle.arrays["mid/fps_idx"].long())
    oracle.compare("mid/centroids", centers.mT, 1e-7)
    oracle.compare("mid/group_idx", ball(xyz, centers, config["radius"], config["nsample"]))

    found = {}
    keep = lambda name: lambda module, given, made: found.update({name: made})  # noqa: E731
    model.ppat.sa.register_forward_hook(lambda module, given, made: found.update(centroids=made[0].mT, sa_feature=made[1]))
    model.ppat.lift.register_forward_hook(keep("tokens"))
    for number, block in enumerate(model.ppat.transformer.layers):
        block[0].register_forward_hook(keep(f"block{number}_after_attn"))
        block.register_forward_hook(keep(f"block{number}"))
    for run, start in starts.items():
        oracle.compare(f"out/embedding{run}", model(xyz, features[..., 3:], start), *FORWARD)
    for name, ours in found.items():
        oracle.compare(f"mid/{name}", ours, *FORWARD)

    features = features.clone().requires_grad_()
    (model.proj(model.ppat(xyz, features, starts[""])) * given["cotangent"]).sum().backward()
    gradients = {"in.features": features.grad} | {name: one.grad for name, one in model.named_parameters()}
    for name in oracle.part("grad/"):
        oracle.compare(f"grad/{name}", gradients[name], *BACKWARD)
    assert not oracle.left()
