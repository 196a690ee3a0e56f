"""Neighbourhoods against those of the published systems' kernels: every array of grouping.npz."""

import json

import numpy as np
import pytest
import torch

from trainer.neighbours import ball, farthest_points, gathered, nearest


@pytest.fixture(scope="module")
def oracle(oracles):
    arrays = np.load(oracles / "grouping.npz", allow_pickle=False)
    return json.loads(str(arrays["config"])), {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "config"}


def differing(what, ours, theirs):
    """How many indices differ; printed."""
    count = int((ours != theirs.long()).sum())
    print(f"grouping {what}: {count} of {theirs.numel()} indices differ")
    return count


@pytest.mark.parametrize(
    ("name", "starts", "skip_origin"),
    [("fps_pointnet2", False, True), ("fps_dgl_start0", False, False), ("fps_dgl_given_start", True, False)],
)
def test_farthest_points(oracle, name, starts, skip_origin):
    config, arrays = oracle
    start = arrays["in/fps_start"].long() if starts else None
    ours = farthest_points(arrays["in/xyz"], config["m"], start=start, skip_origin=skip_origin)
    assert differing(name, ours, arrays[f"out/{name}"]) == 0


def test_centers(oracle):
    config, arrays = oracle
    ours = gathered(arrays["in/xyz"], farthest_points(arrays["in/xyz"], config["m"], skip_origin=True))
    worst = float((ours - arrays["mid/centers"]).abs().max())
    print(f"grouping centers: {worst:.1e}")
    assert worst <= 1e-7


def test_ball(oracle):
    config, arrays = oracle
    ours = ball(arrays["in/xyz"], arrays["mid/centers"], config["r"], config["ns"])
    assert differing("ball_idx", ours, arrays["out/ball_idx"]) == 0


def test_nearest(oracle):
    config, arrays = oracle
    ours = nearest(arrays["in/xyz"], arrays["mid/centers"], config["k"]).sort(dim=-1).values
    assert differing("knn_idx_sorted", ours, arrays["out/knn_idx_sorted"]) == 0


def test_farthest_points_among_duplicates(oracle):
    """DGL takes the first of equals, as we do; of pointnet2's equals another may win: either order is right by definition."""
    _, arrays = oracle
    xyz = arrays["in/dup_xyz"]
    theirs = only(arrays, "out/dup_fps_dgl_start0_m")
    assert differing("dup_fps_dgl_start0", farthest_points(xyz, theirs.shape[1]), theirs) == 0
    theirs = only(arrays, "out/dup_fps_pointnet2_m").long()
    ours = farthest_points(xyz, theirs.shape[1], skip_origin=True)
    assert torch.equal(ours[:, 0], theirs[:, 0])
    for orders in (ours, theirs):
        for cloud, order in zip(xyz.double(), orders.tolist(), strict=True):
            candidates = cloud[cloud.square().sum(dim=1) > 1e-3]
            for i in range(1, len(order)):
                taken = cloud[order[:i]]
                reach = torch.cdist(candidates, taken).min(dim=1).values.max()
                assert (cloud[order[i]] - taken).norm(dim=1).min() == pytest.approx(float(reach), abs=1e-6)


def only(arrays, prefix):
    [name] = [name for name in arrays if name.startswith(prefix)]
    return arrays[name]


def test_every_array_is_looked_at(oracle):
    _, arrays = oracle
    assert {name for name in arrays if not name.startswith("out/dup_fps_")} == {
        *("in/xyz", "in/fps_start", "in/dup_xyz", "mid/centers", "out/ball_idx", "out/knn_idx_sorted"),
        *("out/fps_pointnet2", "out/fps_dgl_start0", "out/fps_dgl_given_start"),
    }
    assert len([name for name in arrays if name.startswith("out/dup_fps_")]) == 2
