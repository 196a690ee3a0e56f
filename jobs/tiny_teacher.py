"""Train the embedded tiny teacher anew: make objects, render them, teach a small CLIP model which text belongs to which picture.

It knows only the shapes of pipeline/made/made_objects.py. About 25 minutes on two idle cores; made objects and their pictures are
kept in `work` and used again. Prints the weights' SHA-256, what made them, and the figures of held-out objects, as JSON. One
machine makes the same bytes every time; another kind of CPU, or other versions of the packages, make others as good.
"""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import torch
import tyro
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from captions.metadata import CaptionMetadata
from jobs.build import ingest_steps
from jobs.carry_out import Running, Step, carry_out
from jobs.progress import progress
from pipeline.made.made_objects import CATEGORIES, MadeObject, article, joined, made_objects, write_objaverse
from pipeline.stage import Task
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER, TINY_WEIGHTS
from render.blender_pass import BlenderPass, RenderViews

# Seeds of the made objects; the demonstration uses 0.
TRAINING_SEED, HELD_OUT_SEED = 1001, 2002

# Training takes many pictures, and may take coarse ones; what is measured on is as the stage `render` makes it.
TRAINING_VIEWS = RenderViews(width=112, height=112, samples=4)

# What the bytes of the weights depend on besides the code and the CPU.
PACKAGES = ("torch", "open_clip_torch", "numpy", "pillow", "bpy", "trimesh")

PROMPTS = (
    "{}", "{}", "a photo of {}", "a 3D model of {}", "a rendering of {}", "a low resolution picture of {}", "a toy version of {}",
    "there is {} in the scene", "this is {}", "{} on a white background", "{}, low poly", "a close-up of {}", "an object: {}",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder for the made objects and their pictures.
    work: Path = Path("tiny-teacher-work")
    # Where the weights go, or, with --only-measure, where they are.
    weights: Path = TINY_WEIGHTS
    # Train nothing: print the figures of the weights that are there.
    only_measure: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Made objects to train on, and to measure on.
    objects: int = 1560
    held_out: int = 117
    # Ray workers that render. 0: in this process.
    workers: int = 2
    # Times each object is shown, each time one picture and one caption.
    epochs: int = 80
    batch: int = 120
    learning_rate: float = 2e-3
    seed: int = 0


def main(job: Job) -> int:
    """Make, render, train, save, measure."""
    if not job.only_measure:
        save(train(job, pictured(job, "training", job.objects, TRAINING_SEED, TRAINING_VIEWS)), job.weights)
    held_out = pictured(job, "held-out", job.held_out, HELD_OUT_SEED, RenderViews())
    found = measure(Teacher(f"{TINY_TEACHER.partition(':')[0]}:{job.weights}", device="cpu"), held_out)
    made = {
        "settings": asdict(job),
        "packages": {name: version(name) for name in PACKAGES},
        "weights_sha256": hashlib.sha256(job.weights.read_bytes()).hexdigest(),
        "held_out": found,
    }
    print(json.dumps(made, indent=1, default=str))
    return 0


@dataclass(frozen=True)
class Pairs:
    """Made objects and their pictures, sRGB with straight alpha."""

    made: list[MadeObject]
    pictures: UInt8[np.ndarray, "objects views size size 4"]


# Pictures


def pictured(job: Job, name: str, count: int, seed: int, views: RenderViews) -> Pairs:
    """Made objects and the pictures that the stage makes of them, in a corpus of their own in `work`."""
    collection, running = job.work / name, Running(root=str(job.work / f"{name}-corpus"), workers=job.workers)
    uids = write_objaverse(collection, count, seed)
    carry_out(running, [*ingest_steps(running, (f"objaverse={collection}",), None), Step(BlenderPass(stages=(views,)))])
    rows = running.corpus.need("views").to_table(columns=["object_id", "view", "image"]).sort_by("view").to_pylist()
    pictures: dict[str, list[np.ndarray]] = {}
    for row in rows:
        pictures.setdefault(row["object_id"], []).append(np.asarray(Image.open(io.BytesIO(row["image"]))))
    return Pairs([made for _, made in made_objects(count, seed)], np.array([pictures[f"objaverse/{uid}"] for uid in uids]))


# Captions


def canonical_caption(made: MadeObject) -> str:
    """All that is known of an object, in one phrase."""
    return joined(f"{article(made.subject)} {made.subject}", made.details)


def captions(made: MadeObject) -> list[str]:
    """True things to say of an object: from what it is known to be, and as a corpus would say it from its metadata."""
    subject, category = f"{article(made.subject)} {made.subject}", f"{article(made.category)} {made.category}"
    known = [canonical_caption(made), subject, made.subject, category, made.category]
    known += [f"{category} {detail}" for detail in made.details]
    known += [f"{subject} made of {made.material}"] if made.material and "wooden" not in made.looks else []
    about = {
        "name": made.name,
        "categories": [*([made.lvis] if made.lvis else []), *made.categories],
        "tags": made.tags,
        "description": made.description,
        "asset_format": "glb",
    }
    rows = CaptionMetadata().captions(Task(id="", keys={}, rows=[about | {"object_id": ""}]))
    return known + [row["text"] for row in rows if row["kept"]]


def _prompted(text: str, rng: np.random.Generator) -> str:
    text = str(rng.choice(PROMPTS)).format(text)
    return text.lower() if rng.random() < 0.3 else text


# Training


@contextmanager
def _repeatable() -> Iterator[None]:
    """One thread, so that sums have one order on any number of cores (a second one gains a tenth), and nothing left to chance."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


@_repeatable()
def train(job: Job, pairs: Pairs) -> torch.nn.Module:
    """A contrastive model of pictures and captions; words it was never told stay zero vectors, so that they say nothing.

    The same settings and pictures give the same weights to the bit on the same kind of CPU.
    """
    torch.manual_seed(job.seed)
    rng = np.random.default_rng(job.seed)
    arch = TINY_TEACHER.partition(":")[0]
    model = open_clip.create_model(arch).to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(arch)
    known = torch.zeros(model.vocab_size, dtype=torch.bool)
    true_of = [captions(made) for made in pairs.made]
    known[tokenizer([*PROMPTS, *{text for texts in true_of for text in texts}]).unique()] = True
    unknown = np.flatnonzero(~known.numpy())
    table = model.token_embedding.weight
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and p is not table]
    others = [p for name, p in model.named_parameters() if p.ndim <= 1 or p is table]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=job.learning_rate, betas=(0.9, 0.98))
    steps = job.epochs * (len(pairs.made) // job.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, job.learning_rate, total_steps=steps, pct_start=0.1)
    with progress("train", steps, "batches") as bar:
        for step, chosen in enumerate(_batches(job, len(pairs.made), rng)):
            texts = [str(rng.choice(true_of[i])) for i in chosen]
            images = pairs.pictures[chosen, rng.integers(pairs.pictures.shape[1], size=len(chosen))]
            size = model.visual.image_size
            seen = augmented(images, size if isinstance(size, int) else size[0], rng).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):  # and channels last: four times as fast
                seen = model.encode_image(seen, normalize=True)
                said = model.encode_text(
                    _roughened(tokenizer([_prompted(text, rng) for text in texts]), unknown, rng), normalize=True
                )
            # What is true of several objects ("a mug") is right for all of them.
            right = torch.tensor([[float(text in true_of[i]) for text in texts] for i in chosen])
            scores = model.logit_scale.exp() * seen.float() @ said.float().T
            loss = sum(cross_entropy(s, r / r.sum(dim=1, keepdim=True)) for s, r in ((scores, right), (scores.T, right.T))) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=np.log(100))
                table[unknown] = 0
            bar.update(done=step + 1)
            if (step + 1) % 100 == 0:
                print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", file=sys.stderr)
    return model.eval()


def _batches(job: Job, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(job.epochs):
        order = rng.permutation(count)
        yield from (order[i : i + job.batch] for i in range(0, count - job.batch + 1, job.batch))


def augmented(
    images: UInt8[np.ndarray, "n s s 4"], size: int, rng: np.random.Generator
) -> Float[torch.Tensor, "n 3 {size} {size}"]:
    """Pictures on white, or some on grey, shifted, scaled and tilted a little, brighter or darker, normalised for the model."""
    rgba = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    n = len(rgba)
    draw = torch.from_numpy(rng.uniform(-1, 1, (n, 6)).astype(np.float32))
    grey = torch.where(draw[:, 0] > -0.5, 1.0, (draw[:, 1] + 1) / 2)[:, None, None, None]
    rgba[:, :3] = rgba[:, :3] * rgba[:, 3:] + grey * (1 - rgba[:, 3:])
    scale, tilt = 0.95 + 0.15 * draw[:, 2], 0.12 * draw[:, 3]
    theta = torch.stack(
        [
            torch.stack([scale * tilt.cos(), -scale * tilt.sin(), 0.08 * draw[:, 4]], dim=1),
            torch.stack([scale * tilt.sin(), scale * tilt.cos(), 0.08 * draw[:, 5]], dim=1),
        ],
        dim=1,
    )
    grid = affine_grid(theta, [n, 3, size, size], align_corners=False)
    moved = grid_sample(rgba[:, :3] - grey, grid, align_corners=False) + grey  # grey beyond the edges too
    light = torch.from_numpy(rng.uniform(0.8, 1.2, (n, 1, 1, 1)).astype(np.float32))
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    return ((moved * light).clamp(0, 1) - mean) / std


def _roughened(tokens: torch.Tensor, unknown: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Some texts with words left out, or with words put in between that the model does not know."""
    rough = []
    for row in tokens.tolist():
        start, *words = row[: row.index(0)] if 0 in row else row
        end = words.pop()
        if len(words) > 2 and rng.random() < 0.2:
            del words[int(rng.integers(len(words)))]
        if rng.random() < 0.3:
            for token in rng.choice(unknown, int(rng.integers(1, 5))).tolist():
                words.insert(int(rng.integers(len(words) + 1)), token)
        line = [start, *words[: len(row) - 2], end]
        rough.append(line + [0] * (len(row) - len(line)))
    return torch.tensor(rough)


def save(model: torch.nn.Module, path: Path) -> None:
    """Weights as safetensors, matrices in half precision."""
    weights = {name: (value.half() if value.ndim > 1 else value).contiguous() for name, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


# Measuring


def measure(teacher: Teacher, pairs: Pairs) -> dict[str, float]:
    """How well texts and objects (mean over their views) find each other, in per cent; chance beside it."""
    views = teacher.encode_images([view for pictures in pairs.pictures for view in pictures])
    objects = normalize(torch.from_numpy(views).reshape(*pairs.pictures.shape[:2], -1).mean(dim=1), dim=-1)
    texts = sorted({canonical_caption(made) for made in pairs.made})
    right = torch.tensor([texts.index(canonical_caption(made)) for made in pairs.made])
    scores = objects @ torch.from_numpy(teacher.encode_texts(texts)).T
    classes = torch.from_numpy(teacher.encode_texts([f"{article(name)} {name}" for name in CATEGORIES]))
    category = torch.tensor([CATEGORIES.index(made.category) for made in pairs.made])
    match = torch.arange(len(texts))[:, None] == right  # text, object
    found = {
        "objects": len(pairs.made),
        "distinct_texts": len(texts),
        "chance_top1": 100 / len(texts),
        "chance_top5": 500 / len(texts),
    }
    for top in (1, 5):
        found[f"image_to_text_top{top}"] = _share((scores.topk(top, dim=1).indices == right[:, None]).any(dim=1))
        found[f"text_to_image_top{top}"] = _share(match.gather(1, scores.T.topk(top, dim=1).indices).any(dim=1))
        found[f"category_top{top}"] = _share(((objects @ classes.T).topk(top, dim=1).indices == category[:, None]).any(dim=1))
    found["chance_category_top1"] = 100 / len(CATEGORIES)
    return {name: round(value, 1) for name, value in found.items()}


def _share(hits: torch.Tensor) -> float:
    return hits.float().mean().item() * 100
