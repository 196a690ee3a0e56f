"""How long do farthest points, balls and nearest neighbours of one cloud take, and do others find the same?

    python -m benchmarks.neighbours [--points 10000] [--clouds 8]

Clouds are drawn on the surface of made solids, rounded to float16 and put in the order that a corpus has them in. `shuffled`: in
random order, as OpenShape's training draws them; `turned`: stored order, turned and scaled. Rivals: the definition, written out in
PyTorch; Open3D's farthest points; SciPy's k-d tree. `order checked`: ours, looking first whether the points come in that order.
Times are the best of several rounds, in turns, in ms per cloud: on a CPU of processor time, all threads together. `equal`: share
of the indices that are the same as ours (of places, for Open3D; of distances, for the nearest).
"""

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import open3d
import torch
import trimesh
from scipy.spatial import cKDTree

from pipeline.points import FARTHEST_FIRST, farthest_first
from trainer import neighbours
from trainer.neighbours import ball, farthest_points, gathered, nearest

ROUNDS = 5

# What the published encoders ask for: PointBERT at scaling 4, Uni3D.
POINTBERT = dict(groups=384, radius=0.2, group_size=64)
UNI3D = dict(groups=512, group_size=64)


def made_clouds(count: int, points: int, rng: np.random.Generator) -> torch.Tensor:
    """[count, points, 3], float16, farthest first."""
    solids = [
        trimesh.creation.box(),
        trimesh.creation.icosphere(3),
        trimesh.creation.torus(0.7, 0.2),
        trimesh.creation.cone(0.5, 1),
    ]
    clouds = []
    for number in range(count):
        xyz = trimesh.sample.sample_surface(solids[number % len(solids)], points, seed=rng)[0]
        xyz = xyz - (xyz.min(axis=0) + xyz.max(axis=0)) / 2
        xyz = (xyz / np.linalg.norm(xyz, axis=1).max()).astype(np.float16)
        first = farthest_first(xyz, min(FARTHEST_FIRST, points))
        clouds.append(xyz[np.concatenate([first, np.setdiff1d(np.arange(points), first)])])
    return torch.from_numpy(np.stack(clouds))


def farthest_by_definition(xyz: torch.Tensor, count: int) -> torch.Tensor:
    """As one writes it down, for all clouds at once."""
    order = [torch.zeros(len(xyz), dtype=torch.int64, device=xyz.device)]
    to_taken = torch.full(xyz.shape[:2], torch.inf, device=xyz.device)
    for _ in range(count - 1):
        at = xyz[torch.arange(len(xyz), device=xyz.device), order[-1]]
        to_taken = torch.minimum(to_taken, ((xyz - at[:, None]) ** 2).sum(dim=-1))
        order.append(to_taken.argmax(dim=1))
    return torch.stack(order, dim=1)


def farthest_checked(xyz: torch.Tensor, count: int, checked: bool) -> torch.Tensor:
    """Ours, with the look at the order or without, whatever the device."""
    with patch.object(neighbours, "ORDER_IS_CHECKED_ON", (xyz.device.type,) if checked else ()):
        return farthest_points(xyz, count)


def farthest_by_open3d(xyz: torch.Tensor, count: int) -> list[np.ndarray]:
    """Places of the points taken, cloud by cloud: Open3D does not tell their order."""
    found = []
    for cloud in xyz.cpu().double().numpy():
        down = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud)).farthest_point_down_sample(count)
        found.append(np.asarray(down.points))
    return found


def nearest_by_tree(xyz: torch.Tensor, centers: torch.Tensor, count: int) -> torch.Tensor:
    """SciPy's tree, built anew for each cloud."""
    pairs = zip(xyz.cpu().numpy(), centers.cpu().numpy(), strict=True)
    return torch.from_numpy(np.stack([cKDTree(cloud).query(middles, count)[1] for cloud, middles in pairs]))


def ball_by_tree(xyz: torch.Tensor, centers: torch.Tensor, radius: float, count: int) -> torch.Tensor:
    """The same tree; its balls sorted by index, cut and filled up."""
    found = []
    for cloud, middles in zip(xyz.cpu().numpy(), centers.cpu().numpy(), strict=True):
        balls = cKDTree(cloud).query_ball_point(middles, radius, return_sorted=True)
        found.append([(within + within[:1] * count)[:count] if len(within) < count else within[:count] for within in balls])
    return torch.tensor(found)


def in_turns(doers: dict[str, Callable[[], object]]) -> dict[str, tuple[float, object]]:
    """Seconds of the best round, and what was made, of each; they take turns, so that a busy moment hits all."""
    best = {name: (float("inf"), None) for name in doers}
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    for _ in range(ROUNDS):
        for name, do in doers.items():
            begun = clock()
            made = do()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[name] = min(best[name], (clock() - begun, made), key=lambda one: one[0])
    return best


def show(what: str, times: dict[str, tuple[float, object]], clouds: int, equal: dict[str, float]) -> None:
    """One line each; the first of `times` is ours."""
    ours = next(iter(times.values()))[0]
    for name, (seconds, _) in times.items():
        same = f"{equal[name]:8.2%}" if name in equal else " " * 8
        print(f"{what:24} {name:18} {1000 * seconds / clouds:9.2f} {seconds / ours:8.2f} {same}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--clouds", type=int, default=8, help="at once")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    stored = made_clouds(asked.clouds, asked.points, np.random.default_rng(0)).float().to(device)
    order = torch.rand(stored.shape[:2], generator=torch.Generator().manual_seed(0)).argsort(dim=1).to(device)
    shuffled = gathered(stored, order)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q.to(device)
    turned = 1.1 * stored @ turn.T + 0.05
    print(f"{asked.clouds} clouds of {asked.points} points at once, {device}, {asked.threads} threads")
    print(f"{'what':24} {'by':18} {'ms/cloud':>9} {'times':>8} {'equal':>8}")

    for count in (POINTBERT["groups"], UNI3D["groups"]):
        for kind, xyz in (("stored", stored), ("turned", turned), ("shuffled", shuffled)):
            times = in_turns(
                {
                    "tricorpus": lambda xyz=xyz, count=count: farthest_checked(xyz, count, False),
                    "order checked": lambda xyz=xyz, count=count: farthest_checked(xyz, count, True),
                    "definition": lambda xyz=xyz, count=count: farthest_by_definition(xyz, count),
                    "open3d": lambda xyz=xyz, count=count: farthest_by_open3d(xyz, count),
                }
            )
            ours = times["tricorpus"][1]
            places = gathered(xyz, ours).cpu().double().numpy()
            sets = [
                len({*map(tuple, a)} & {*map(tuple, b)}) / len({*map(tuple, a)})
                for a, b in zip(places, times["open3d"][1], strict=True)
            ]
            equal = {name: float((ours == times[name][1]).float().mean()) for name in ("order checked", "definition")}
            equal["open3d"] = float(np.mean(sets))
            in_order = float((ours == torch.arange(count, device=device)).all(dim=1).float().mean())
            print(f"{count} farthest, {kind}: {in_order:.0%} of the clouds are in order")
            show(f"{count} farthest, {kind}", times, asked.clouds, equal)

    centers = gathered(shuffled, farthest_points(shuffled, UNI3D["groups"]))
    size = UNI3D["group_size"]
    times = in_turns(
        {"tricorpus": lambda: nearest(shuffled, centers, size), "k-d tree": lambda: nearest_by_tree(shuffled, centers, size)}
    )
    found = [gathered(shuffled, index.to(device)) - centers[:, :, None] for _, index in times.values()]
    ours, theirs = (difference.square().sum(dim=-1).sort(dim=-1).values for difference in found)
    show(f"{size} nearest", times, asked.clouds, {"k-d tree": float((ours == theirs).float().mean())})  # distances: equals abound

    centers = gathered(shuffled, farthest_points(shuffled, POINTBERT["groups"]))
    radius, size = POINTBERT["radius"], POINTBERT["group_size"]
    times = in_turns(
        {
            "tricorpus": lambda: ball(shuffled, centers, radius, size),
            "k-d tree": lambda: ball_by_tree(shuffled, centers, radius, size),
        }
    )
    ours, theirs = (index.cpu() for _, index in times.values())
    show(f"ball of {radius}, {size}", times, asked.clouds, {"k-d tree": float((ours == theirs).float().mean())})


if __name__ == "__main__":
    main()
