"""OpenShape's PointBERT against the published code's own run with random weights: every array of openshape_ppat.npz."""

import json

import numpy as np
import pytest
import torch

from trainer.encoders.pointbert import PointBert, PointBertConfig, official
from trainer.neighbours import ball, farthest_points, gathered

FORWARD, BACKWARD = 1e-5, 1e-4  # allowed: so much, and so much of the value


@pytest.fixture(scope="module")
def oracle(oracles):
    arrays = np.load(oracles / "openshape_ppat.npz", allow_pickle=False)
    return json.loads(str(arrays["config"])), {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "config"}


@pytest.fixture
def model(oracle):
    config, arrays = oracle
    made = PointBert(
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
    )
    made.load_state_dict(official(part(arrays, "state/")), strict=True)
    return made.eval()


def part(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def runs(arrays):
    """Endings of the names of the runs, which differ in where the farthest points start: "" is the first."""
    return list(part(arrays, "in/fps_start"))


def compare(what, ours, theirs, allowed):
    difference = (ours - theirs).abs()
    print(f"openshape_ppat {what}: {difference.max():.1e}")
    assert (difference <= allowed + allowed * theirs.abs()).all()


def test_groups(oracle):
    config, arrays = oracle
    xyz = arrays["in/xyz"]
    for run in runs(arrays):
        ours = farthest_points(xyz, config["patches"], start=arrays[f"in/fps_start{run}"].long())
        wrong = int((ours != arrays[f"mid/fps_idx{run}"].long()).sum())
        print(f"openshape_ppat fps_idx{run}: {wrong} of {ours.numel()} indices differ")
        assert wrong == 0
    centers = gathered(xyz, arrays["mid/fps_idx"].long())
    compare("centroids", centers.mT, arrays["mid/centroids"], 1e-7)
    index = ball(xyz, centers, config["radius"], config["nsample"])
    wrong = int((index != arrays["mid/group_idx"].long()).sum())
    print(f"openshape_ppat group_idx: {wrong} of {index.numel()} indices differ")
    assert wrong == 0


def test_embeddings_and_all_on_the_way(oracle, model):
    config, arrays = oracle
    found = {}

    def keep(name):
        return lambda module, inputs, output: found.__setitem__(name, output)

    model.ppat.sa.register_forward_hook(lambda module, inputs, output: found.update(centroids=output[0].mT, sa_feature=output[1]))
    model.ppat.lift.register_forward_hook(keep("tokens"))
    for i, block in enumerate(model.ppat.transformer.layers):
        block[0].register_forward_hook(keep(f"block{i}_after_attn"))
        block.register_forward_hook(keep(f"block{i}"))

    with torch.no_grad():
        for run in reversed(runs(arrays)):  # the run of which the file has what is on the way comes last
            embedding = model(arrays["in/xyz"], arrays["in/features"][..., 3:], arrays[f"in/fps_start{run}"].long())
            compare(f"embedding{run}", embedding, arrays[f"out/embedding{run}"], FORWARD)
    assert {f"mid/{name}" for name in found} == {name for name in part_names(arrays, "mid/") if "idx" not in name}
    for name, ours in found.items():
        compare(name, ours, arrays[f"mid/{name}"], FORWARD)


def part_names(arrays, prefix):
    return {name for name in arrays if name.startswith(prefix)}


def test_gradients(oracle, model):
    _, arrays = oracle
    features = arrays["in/features"].clone().requires_grad_()
    embedding = model.proj(model.ppat(arrays["in/xyz"], features, arrays["in/fps_start"].long()))
    (embedding * arrays["in/cotangent"]).sum().backward()
    theirs = part(arrays, "grad/")
    compare("grad of the features", features.grad, theirs.pop("in.features"), BACKWARD)
    for name, gradient in theirs.items():
        compare(f"grad of {name}", model.get_parameter(name).grad, gradient, BACKWARD)


def test_the_features_are_place_and_colour(oracle):
    """What `forward` makes of places and colours is what the published code is given."""
    _, arrays = oracle
    assert torch.equal(arrays["in/features"][..., :3], arrays["in/xyz"])


def test_every_array_is_looked_at(oracle):
    _, arrays = oracle
    looked_at = ("state/", "grad/", "mid/", "in/fps_start", "out/embedding", "in/xyz", "in/features", "in/cotangent")
    assert [name for name in arrays if not name.startswith(looked_at)] == []
    assert part_names(arrays, "out/") == {f"out/embedding{run}" for run in runs(arrays)}
    indices = {f"mid/fps_idx{run}" for run in runs(arrays)} | {"mid/group_idx"}
    assert {name for name in part_names(arrays, "mid/") if "idx" in name} == indices
