"""Neighbourhoods against those of the published systems' kernels: every array of grouping.npz."""

import pytest
import torch

from oracle import Oracle
from trainer.neighbours import ball, farthest_points, gathered, nearest


def test_neighbourhoods_equal_the_oracle(oracles):
    oracle = Oracle.read(oracles, "grouping")
    config, arrays = oracle.config, oracle.arrays
    xyz, start, centers = arrays["in/xyz"], arrays["in/fps_start"].long(), arrays["mid/centers"]
    origin_skipped = farthest_points(xyz, config["m"], skip_origin=True)
    oracle.compare("out/fps_pointnet2", origin_skipped)
    oracle.compare("out/fps_dgl_start0", farthest_points(xyz, config["m"]))
    oracle.compare("out/fps_dgl_given_start", farthest_points(xyz, config["m"], start=start))
    oracle.compare("mid/centers", gathered(xyz, origin_skipped), 1e-7)
    oracle.compare("out/ball_idx", ball(xyz, centers, config["r"], config["ns"]))
    oracle.compare("out/knn_idx_sorted", nearest(xyz, centers, config["k"]).sort(dim=-1).values)

    # Among duplicates DGL takes the first of equals, as we do; of pointnet2's equals another may win: either order is right
    # by definition.
    xyz = arrays["in/dup_xyz"]
    [(count, theirs)] = oracle.part("out/dup_fps_dgl_start0_m").items()
    oracle.compare(f"out/dup_fps_dgl_start0_m{count}", farthest_points(xyz, theirs.shape[1]))
    [(count, theirs)] = oracle.part("out/dup_fps_pointnet2_m").items()
    ours = farthest_points(xyz, theirs.shape[1], skip_origin=True)
    assert torch.equal(ours[:, 0], theirs[:, 0].long())
    for orders in (ours, theirs):
        for cloud, order in zip(xyz.double(), orders.tolist(), strict=True):
            candidates = cloud[cloud.square().sum(dim=1) > 1e-3]
            for i in range(1, len(order)):
                taken = cloud[order[:i]]
                reach = torch.cdist(candidates, taken).min(dim=1).values.max()
                assert (cloud[order[i]] - taken).norm(dim=1).min() == pytest.approx(float(reach), abs=1e-6)

    assert oracle.left() == {f"out/dup_fps_pointnet2_m{count}"}
    assert oracle.part("in/").keys() == {"xyz", "fps_start", "dup_xyz"}
