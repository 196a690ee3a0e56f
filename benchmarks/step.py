"""How fast a step of training is, and where its time goes: prepare (and augment), forward, loss, backward, optimiser.

python -m benchmarks.step                                                  # PointBERT and Uni3D-B, on the device there is
python -m benchmarks.step openshape-pointbert --batch 200 --precision bfloat16
python -m benchmarks.step uni3d-b --batch 96 --accumulate 2 --checkpointing --compile

The recipes' own encoders, inputs, augmentations and losses on made batches, which are in memory: reading is measured by
benchmarks/loader.py. Of a teacher's embeddings only the size matters here. The first steps are not counted.
"""

import json
import platform
import statistics
import time
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import tyro

from schemas.tables import POINTS_PER_OBJECT
from trainer.data import Batch
from trainer.learner import Learner
from trainer.recipes import RECIPES, Recipe

UNCOUNTED = 2  # steps: memory is taken, kernels are chosen, torch compiles


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    # Names of recipes.
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional] = ("openshape-pointbert", "uni3d-b")
    # Objects of a step. Default: 64 on a GPU, 4 elsewhere.
    batch: int | None = None
    # Steps that are counted.
    steps: int = 10
    # Instead of the recipe's.
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    json: bool = False


def made_batch(recipe: Recipe, objects: int, step: int) -> Batch:
    """Random clouds or pictures, and embeddings, of the recipe's sizes."""
    draw = torch.Generator().manual_seed(step)
    count, views, size = POINTS_PER_OBJECT, recipe.draws.views[1], 0 if recipe.sees_points else recipe.input.size
    xyz = torch.nn.functional.normalize(torch.randn(objects, count, 3, generator=draw), dim=-1)
    xyz *= 0.2 + 0.8 * torch.rand(objects, 1, 3, generator=draw)  # ellipsoids
    points = recipe.input.points or count if recipe.sees_points else 0
    return Batch(
        epoch=0,
        step=step,
        ids=[str(number) for number in range(objects)],
        seeds=torch.randint(1 << 60, (objects,), generator=draw),
        xyz=xyz[:, :points].half() if points else None,
        rgb=torch.randint(256, (objects, points, 3), dtype=torch.uint8, generator=draw) if points else None,
        has_color=torch.ones(objects, dtype=torch.bool) if points else None,
        image=torch.randn(objects, recipe.encoder.out, generator=draw),
        text=torch.randn(objects, recipe.encoder.out, generator=draw),
        has_image=torch.ones(objects, dtype=torch.bool),
        has_text=torch.rand(objects, generator=draw) < 0.9,
        pictures=torch.randint(256, (objects, views, 3, size, size), dtype=torch.uint8, generator=draw) if size else None,
    )


def measured(name: str, settings: Settings, device: torch.device) -> dict:
    """Medians over the steps of one recipe: seconds of a step and of its parts, objects per second, memory of a GPU."""
    recipe = RECIPES[name]
    objects = settings.batch or (64 if device.type == "cuda" else 4)
    recipe = replace(recipe, encoder=replace(recipe.encoder, checkpointing=settings.checkpointing), batch=objects)
    recipe = replace(recipe, precision=settings.precision or (recipe.precision if device.type == "cuda" else "float32"))
    learner = Learner(recipe, device, accumulate=settings.accumulate, compiled=settings.compile)
    whole, parts = [], []
    for step in range(UNCOUNTED + settings.steps):
        batch = made_batch(recipe, objects, step)
        if device.type == "cuda":
            batch = batch.pin_memory()
        began = time.perf_counter()
        told, clock = learner.step(batch, 1e-3)
        told["loss"].item()  # waits for the device
        if step >= UNCOUNTED:
            whole.append(time.perf_counter() - began)
            parts.append(clock.seconds())
    seconds = statistics.median(whole)
    split = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {
        "recipe": name,
        "batch": objects,
        "precision": recipe.precision,
        "steps_per_second": 1 / seconds,
        "objects_per_second": objects / seconds,
        "seconds": {"step": seconds} | split,
        "peak_gib": peak,
    }


def main(settings: Settings) -> None:
    """Measure the recipes one after the other and print a table."""
    on_gpu = settings.device == "cuda" or settings.device == "auto" and torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    name = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {torch.get_num_threads()} threads"
    found = [measured(recipe, settings, device) for recipe in settings.recipes]
    if settings.json:
        print(json.dumps({"device": name, "measured": found}))
        return
    print(f"{name}, torch {torch.__version__}; medians of {settings.steps} steps, milliseconds")
    for one in found:
        parts = "  ".join(f"{part} {1000 * spent:,.1f}" for part, spent in one["seconds"].items())
        peak = f", {one['peak_gib']:.1f} GiB" if one["peak_gib"] else ""
        print(
            f"{one['recipe']}, batch {one['batch']}, {one['precision']}: {one['steps_per_second']:.2f} steps/s, "
            f"{one['objects_per_second']:,.0f} objects/s{peak}\n  {parts}"
        )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
