"""Train the embedded tiny teacher anew: make objects, render them, teach a small CLIP model which text belongs to which picture.

It knows only the shapes of pipeline/made/made_objects.py. About 40 minutes on two cores; made objects and pictures are kept in
`work` and used again. Prints the figures of the model card as JSON.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from captions.metadata import CaptionMetadata
from jobs.progress import progress
from pipeline.made.made_objects import CATEGORIES, MadeObject, article, joined, made_objects, write_objaverse
from pipeline.stage import Task, rng_for
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER, TINY_WEIGHTS
from render.blender import Blender, BlenderSettings
from render.cameras import Rig
from render.spec import Cycles, Pictures, Request, View

# Seeds of the made objects; the demonstration uses 0.
TRAINING_SEED, HELD_OUT_SEED = 1001, 2002

PROMPTS = (
    "{}", "{}", "a photo of {}", "a 3D model of {}", "a rendering of {}", "a low resolution picture of {}", "a toy version of {}",
    "there is {} in the scene", "this is {}", "{} on a white background", "{}, low poly", "a close-up of {}", "an object: {}",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder for the made objects and their pictures.
    work: Path = Path("tiny-teacher-work")
    # Where the weights go.
    weights: Path = TINY_WEIGHTS
    # Made objects to train on, and to measure on.
    objects: int = 1560
    held_out: int = 156
    # Pictures per object, from random directions, and their size in pixels.
    views: int = 4
    size: int = 128
    # Times each object is shown, each time one picture and one caption.
    epochs: int = 60
    batch: int = 120
    learning_rate: float = 2e-3
    seed: int = 0


def main(job: Job) -> int:
    """Make, render, train, save, measure."""
    training = Pairs(*_load(job, "training", job.objects, TRAINING_SEED))
    held_out = Pairs(*_load(job, "held-out", job.held_out, HELD_OUT_SEED))
    save(train(job, training), job.weights)
    trained = Teacher(f"{TINY_TEACHER.partition(':')[0]}:{job.weights}")
    print(json.dumps({"settings": asdict(job), "held_out": measure(trained, held_out)}, indent=1, default=str))
    return 0


@dataclass(frozen=True)
class Pairs:
    """Made objects and their pictures, sRGB with straight alpha."""

    made: list[MadeObject]
    pictures: UInt8[np.ndarray, "objects views size size 4"]


# Pictures


def _load(job: Job, name: str, count: int, seed: int) -> tuple[list[MadeObject], np.ndarray]:
    """Objects and pictures of one split, rendered where they are not there yet."""
    collection, renders = job.work / name, job.work / f"{name}-pictures"
    uids = write_objaverse(collection, count, seed)
    missing = [uid for uid in uids if not (renders / uid / f"{job.views - 1:03d}.png").is_file()]
    with Blender(BlenderSettings(threads=2)) as blender, progress(f"render {name}", len(missing), "objects") as bar:
        for number, uid in enumerate(missing):
            _render(job, blender, collection / "glbs" / "000-000" / f"{uid}.glb", renders / uid)
            bar.update(done=number + 1)
    pictures = [[np.asarray(Image.open(renders / uid / f"{view:03d}.png")) for view in range(job.views)] for uid in uids]
    return [made for _, made in made_objects(count, seed)], np.array(pictures)


def _render(job: Job, blender: Blender, glb: Path, folder: Path) -> None:
    """Pictures from random directions, more of them from the sides than from above and below; coarse, for there are many."""
    rng = rng_for(glb.stem, seed=job.seed, purpose="tiny teacher's views")
    directions = tuple((float(rng.uniform(50, 125)), float(rng.uniform(0, 360))) for _ in range(job.views))
    views = tuple(
        View(fx=c.fx, fy=c.fy, cx=c.cx, cy=c.cy, camera_to_world=tuple(c.camera_to_world.ravel().tolist()))
        for c in Rig(name="random", directions=directions).cameras(job.size, job.size)
    )
    cycles = Cycles(samples=8, denoise=False)
    request = Request(
        asset=str(glb.resolve()),
        format="glb",
        folder="",
        pictures=Pictures(views=views, width=job.size, height=job.size, cycles=cycles),
    )
    _, made = blender.do(request)
    folder.mkdir(parents=True, exist_ok=True)
    for view in range(job.views):
        (folder / f"{view:03d}.png").write_bytes((made / f"{view:03d}.png").read_bytes())


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


def train(job: Job, pairs: Pairs) -> torch.nn.Module:
    """A contrastive model of pictures and captions; words it was never told stay zero vectors, so that they say nothing."""
    torch.manual_seed(job.seed)
    rng = np.random.default_rng(job.seed)
    arch = TINY_TEACHER.partition(":")[0]
    model = open_clip.create_model(arch).to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(arch)
    known = torch.zeros(model.vocab_size, dtype=torch.bool)
    true_of = [captions(made) for made in pairs.made]
    known[tokenizer([_prompted(text, rng) for texts in true_of for text in texts * 3]).unique()] = True
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
    """Pictures on white or grey, shifted, scaled and tilted a little, brighter or darker, normalised for the model."""
    rgba = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    n = len(rgba)
    draw = torch.from_numpy(rng.uniform(-1, 1, (n, 6)).astype(np.float32))
    grey = torch.where(draw[:, 0] > 0, 1.0, (draw[:, 1] + 1) / 2)[:, None, None, None]
    rgba[:, :3] = rgba[:, :3] * rgba[:, 3:] + grey * (1 - rgba[:, 3:])
    scale, tilt = 0.9 + 0.15 * draw[:, 2], 0.12 * draw[:, 3]
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
