"""How fast views are made and how true they are, against objaverse-rendering's recipe: the same assets, one machine, one run.

    python -m benchmarks.render FOLDER --limit 30 --references REFERENCES
    python -m benchmarks.render objaverse=/data/objaverse abo=/data/abo chair.glb --views 0 --json FILE

A place is a folder, a file, or a collection as `build --source` takes it, NAME=PATH. --limit takes assets evenly over their sizes.

peer       what allenai/objaverse-rendering does (benchmarks/blender_peer.py): a process for each object, one after another, each
           on all cores; 12 views of 512 x 512 with 32 samples, written as PNG; for the comparison then made as small as ours
ours       what `build` does for its stage `render`: warm Blenders with one thread each, as many as there are cores; pictures at
           224 x 224 read, their outlines drawn anew, measured, encoded as WebP, made rows. `with points`: its points as well
reference  the views of --views alone, 2,048 samples a pixel, not denoised, more bounces than either of the two; kept in
           --references by the asset's hash and the code that makes the scene, since each takes half a minute

All three show one scene: our cameras, our light, our placement and view transform, so that PSNR tells how well it is computed, not
where a lamp stands. `--peer-light own` gives the peer the lamp of its own script, and a reference of its own to match. The peer has
the factory settings of the Blender that is installed here, not those of the 3.2 that it was written for.

Columns, the peer's and ours
  s            per object, wall clock; ours: of one worker, divided by the number of workers
  CPU-s/view   CPU time (user and system, of all processes involved) per view, import and all else included
  faster       how many times, by the column before it
  PSNR SSIM    of the picture over white against the reference (benchmarks/likeness.py); `object`: within its bounding rectangle
  IoU          of the masks, alpha above a half

Wall clock means something on an idle machine alone; CPU time suffers less from others.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # run by its path, this file would be taken for the package `render`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.contestants import Comparison, Cost, Ours, TimedViews, chosen, copied, ours, peers, references  # noqa: E402
from benchmarks.likeness import Picture, likeness  # noqa: E402
from pipeline.stage import ObjectError, Row  # noqa: E402
from render.blender_pass import SamplePoints  # noqa: E402

IDLE = 0.1  # load per core, above which wall clock is not to be believed
MEASURES = ("psnr", "psnr_object", "ssim", "iou")


def compared(pictures: list[Picture], truth: list[Picture]) -> dict[str, float]:
    """Mean of each of MEASURES over an object's views; NaN where no view has it."""
    found = [likeness(*pair) for pair in zip(pictures, truth, strict=True)]
    return {name: float(np.mean([one[name] for one in found if one[name] is not None] or [np.nan])) for name in MEASURES}


def line_of(row: Row, peer: Cost, own: Cost, count: int, peer_like: dict[str, float], own_like: dict[str, float]) -> dict[str, Any]:
    """All that is told of an object with `count` views."""
    return {
        "object_id": row["object_id"],
        "bytes": row["asset_bytes"],
        "peer_s": peer.wall,
        "ours_s": own.wall,
        "faster_wall": peer.wall / own.wall,
        "peer_cpu_s": peer.cpu,
        "ours_cpu_s": own.cpu,
        "faster_cpu": peer.cpu / own.cpu,
        "peer_cpu_s_view": peer.cpu / count,
        "ours_cpu_s_view": own.cpu / count,
        **{f"{who}_{name}": like[name] for name in MEASURES for who, like in (("peer", peer_like), ("ours", own_like))},
    }


# Title, width and decimals of a column, and the keys of `line_of` (the peer's and ours).
COLUMNS = (
    ("s", 14, 2, ("peer_s", "ours_s")),
    ("faster", 7, 1, ("faster_wall",)),
    ("CPU-s/view", 12, 2, ("peer_cpu_s_view", "ours_cpu_s_view")),
    ("faster", 7, 1, ("faster_cpu",)),
    ("PSNR", 11, 1, ("peer_psnr", "ours_psnr")),
    ("object", 11, 1, ("peer_psnr_object", "ours_psnr_object")),
    ("SSIM", 13, 3, ("peer_ssim", "ours_ssim")),
    ("IoU", 13, 3, ("peer_iou", "ours_iou")),
)


def table(lines: list[dict[str, Any]]) -> list[str]:
    """The objects' lines and their median and mean, as text: a pair is the peer's and ours."""

    def text(name: str, line: dict[str, Any]) -> str:
        cells = (" ".join(f"{line[key]:.{decimals}f}" for key in keys).rjust(width) for _, width, decimals, keys in COLUMNS)
        return f"{name:24}" + "".join(cells)

    told = [f"{'peer ours':24}" + "".join(title.rjust(width) for title, width, _, _ in COLUMNS)]
    told += [text(line["object_id"][-24:], line) for line in lines]
    for name, middle in (("median", np.nanmedian), ("mean", np.nanmean)):
        told.append(text(name, _over(lines, middle)))
    return told


def _over(lines: list[dict[str, Any]], middle) -> dict[str, float]:
    return {key: float(middle([line[key] for line in lines])) for key in lines[0] if key not in ("object_id", "bytes")}


STEPS = {
    "import": "import",
    "mesh": "mesh out of Blender, placement",
    "first view": "first view, with the BVH",
    "views": "all other views",
    "rows": "read, outlines, measures, WebP",
}


def where_time_goes(made: list[Ours], staging: list[float]) -> dict[str, float]:
    """Mean seconds of wall clock of each step of an object, one worker at work on it; `staging`: of copying the assets."""
    found = {says: float(np.mean([one.seconds.get(step, 0.0) for one in made])) for step, says in STEPS.items()}
    found = {"copying the asset": float(np.mean(staging))} | found
    whole = float(np.mean([one.seconds["whole"] for one in made]))
    return found | {"rest: start anew, hand over, settle": whole - sum(found.values()), "whole": whole}


def within_a_view(rows: list[Row], stage: TimedViews, workers: int) -> dict[str, float]:
    """Mean CPU-seconds of a view's parts, by leaving them out: each variant renders all of these objects."""
    count = len(stage.cameras(rows[0]["object_id"]))

    def cost(variant: TimedViews) -> float:
        _, made = ours(rows, (variant,), (), workers)
        return float(np.mean([one.cost.cpu for one in made.values()])) / count

    whole = cost(stage)
    quick = cost(replace(stage, outline_rays=0))
    noisy = cost(replace(stage, outline_rays=0, denoise=False))
    fewest = cost(replace(stage, outline_rays=0, denoise=False, samples=1))
    sampling = (noisy - fewest) * stage.samples / (stage.samples - 1)
    parts = {f"sampling, {stage.samples} samples": sampling, "denoising": quick - noisy, "outlines by rays": whole - quick}
    return parts | {"rest: import, BVH, synchronising, files, WebP": noisy - sampling, "whole": whole}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------- command


def main() -> None:
    """Renders everything, prints the tables."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="PLACE", help="a folder, a file, or NAME=PATH as for build --source")
    parser.add_argument("--limit", type=int, help="so many assets, evenly over their sizes")
    parser.add_argument("--views", default="0,5,10", help="the views that are compared (default: one of each ring)")
    parser.add_argument("--references", type=Path, help="where references are kept for the next time")
    parser.add_argument("--workers", type=int, default=cores, help="our Blenders side by side (default: one per core)")
    parser.add_argument("--peer-light", choices=("ours", "own"), default="ours", help="whose light the peer has")
    parser.add_argument("--breakdown", type=int, default=0, metavar="N", help="tell the parts of a view, by N of the assets")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    asked = parser.parse_args()

    stage, load = TimedViews(), os.getloadavg()[0]
    print(f"load {load:.1f} on {cores} cores\n{stage}")
    if load > IDLE * cores:
        print("THE MACHINE IS NOT IDLE: figures of wall clock do not count")
    rows = chosen(asked.places, asked.limit)
    with tempfile.TemporaryDirectory() as folder:
        kept, views = asked.references or Path(folder), tuple(map(int, asked.views.split(",")))
        how = Comparison(kept=kept, workers=asked.workers, stage=stage, views=views, peer_light=asked.peer_light)
        found = measured(rows, how, asked.breakdown)
    for title, text in told(found, asked.workers).items():
        print(f"\n{title}", *text, sep="\n")
    if asked.json:
        settings = {field.name: str(getattr(stage, field.name)) for field in fields(stage)}
        about = {"load": load, "cores": cores, "workers": asked.workers, "peer_light": asked.peer_light, "views": views}
        asked.json.write_text(json.dumps({"settings": settings} | about | found, indent=1))


def measured(rows: list[Row], how: Comparison, breakdown: int) -> dict[str, Any]:
    """All figures of a run, as JSON. Objects that one of the three cannot do are named and left out of the tables.
    `breakdown`: how many of them tell the parts of a view."""
    stage, workers = how.stage, how.workers
    peer, staging, lines = {}, {}, []
    for number, row in enumerate(rows):
        id = row["object_id"]
        try:
            truth = references(row, how, "ours")
            peer_truth = truth if how.peer_light == "ours" else references(row, how, how.peer_light)
            cost, pictures = peers(row, how)
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                copied(row, Path(folder, "asset"))
                staging[id] = time.perf_counter() - began
        except ObjectError as error:
            _say(f"{id}: {error.reason}: {error}\n{error.log_tail}")
            continue
        peer[id] = cost, compared(pictures, peer_truth), truth
        _say(f"{number + 1} of {len(rows)}: peer {cost.wall:.1f} s, {cost.cpu:.1f} CPU-s, {peer[id][1]['psnr']:.1f} dB: {id}")
    rows = [row for row in rows if row["object_id"] in peer]
    wall, made = ours(rows, (stage,), how.views, workers)
    for row in rows:
        id, one = row["object_id"], made[row["object_id"]]
        if isinstance(one, ObjectError):
            _say(f"{id}: {one.reason}: {one}")
            continue
        cost, like, truth = peer[id]
        lines.append(line_of(row, cost, one.cost, len(stage.cameras(id)), like, compared(one.pictures, truth)))
    rows = [row for row in rows if isinstance(made[row["object_id"]], Ours)]
    with_points, _ = ours(rows, (stage, SamplePoints()), (), workers)
    some = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, breakdown).round().astype(int))]
    return {
        "objects": lines,
        "objects_per_minute": {
            "peer": 60 * len(lines) / sum(line["peer_s"] for line in lines),
            "ours": 60 * len(lines) / wall,
            "ours, with points": 60 * len(lines) / with_points,
        },
        "seconds_of_an_object": where_time_goes([made[row["object_id"]] for row in rows], list(staging.values())),
        "cpu_seconds_of_a_view": within_a_view(some, stage, workers) if some else {},
    }


def told(found: dict[str, Any], workers: int) -> dict[str, list[str]]:
    """The figures as text, by title."""
    rates = found["objects_per_minute"]
    return {
        "Objects": table(found["objects"]),
        f"Objects per minute, wall clock of the whole run ({workers} workers)": [
            *(f"{who:24}{rate:9.1f}{rate / rates['peer']:8.1f} times" for who, rate in rates.items())
        ],
        "Where our time goes, seconds of an object": [
            f"{says:48}{value:8.3f}" for says, value in found["seconds_of_an_object"].items()
        ],
        "Within a view, CPU-seconds": [f"{says:48}{value:8.3f}" for says, value in found["cpu_seconds_of_a_view"].items()],
    }


if __name__ == "__main__":
    main()
