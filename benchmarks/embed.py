"""How fast a teacher embeds, against what the machine can do.

    python -m benchmarks.embed --arch ViT-B-32                                     random weights, made pictures
    python -m benchmarks.embed --arch ViT-bigG-14 --objects 4 --views 4 --texts 16 --images-per-forward 4 --texts-per-forward 4
    python -m benchmarks.embed --arch ViT-bigG-14 --objects 1024 --texts 20000 --compile     on a GPU
    python -m benchmarks.embed --teacher tricorpus-tiny:shapes-v1 --corpus demo/corpus --json FILE

matmul   the machine's own rate: the fastest product of two square matrices, in the model's arithmetic (bfloat16 on a GPU)
model    bare forward passes, one after the other: inputs prepared and on the device, the best of several sizes; as many inputs as
         the stage has, in turn with it, part by part: machines that others share change their speed from minute to minute
stage    what `embed` does, from the first look into the tables to the last commit: Lance read, decode, model, Lance write. The
         model is loaded before, and the size of its forward passes found
peer     the loop that most published scripts have: object by object, each picture opened, laid on white and put through
         open_clip's transform; then one forward pass of the object's views; nothing overlaps. The same model and arithmetic.
         For texts: one text for each forward pass

FLOPs are those of torch.utils.flop_counter, two for each multiplication with its addition; norms and activations are not counted.
The stage's time is that of decoding (of texts: making tokens; divided by the threads that do it), of laying batches together and
sending them (transfer) and of the model, over that of the stage. On a CPU one comes after the other, and the rest is Lance, the
checks and Python; on a GPU they overlap.

Random weights take the same time as any others. They are made in memory; what lies on disk is the seed.
Figures mean something on an idle machine alone.
"""

import argparse
import hashlib
import io
import json
import os
import resource
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import UInt8
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from pipeline.embed import EmbedImages, EmbedTexts
from pipeline.model import Loaded, load, need_text_files
from pipeline.run import run
from pipeline.stage import Row, Single, rng_for
from pipeline.store import Corpus
from pipeline.teacher import SIZES_ON_GPU, Teacher
from pipeline.weights import identity
from render.views import encoded
from schemas.check import to_table
from schemas.corpus import any_of
from schemas.tables import CAPTIONS, VIEWS, Table

IDLE = 0.1  # load per core, above which wall clock is not to be believed
MATRICES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}
SIZE = 224  # of made pictures, pixels
PARTS = 4  # in which stage and bare model take turns
WORDS = (
    "red blue wooden rusty small round carved low poly chair mug lamp castle truck vase robot with a handle and four legs".split()
)


# Who is measured


def random_weights(teacher: str) -> Loaded:
    """A teacher whose file holds a seed instead of weights. Raises TeacherError where its tokenizer is not on this machine."""
    known = identity(teacher)
    need_text_files(teacher)
    torch.manual_seed(0)
    how = {name: getattr(known, name) for name in ("mean", "std", "interpolation", "resize_mode")}
    model = open_clip.create_model(known.arch, pretrained_text=False, force_preprocess_cfg=how)
    return Loaded(known, model, open_clip.get_tokenizer(known.arch))


class TimedTeacher(Teacher):
    """A teacher that keeps a record of what its time is spent on, in seconds, by all its threads."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._seconds: dict[str, list[Callable[[], float]]] = {}
        self._noting = threading.Lock()

    def prepare(self, image):
        with self._timed("decode"):
            return super().prepare(image)

    def tokens(self, texts):
        with self._timed("decode"):
            return super().tokens(texts)

    def staged(self, inputs, size):
        with self._timed("transfer"):
            return super().staged(inputs, size)

    def forward(self, encode, batches):
        with self._timed("model", on_device=True):
            return super().forward(encode, batches)

    def spent(self) -> dict[str, float]:
        """Seconds by kind since the last call."""
        seconds, self._seconds = self._seconds, {}
        return {kind: sum(one() for one in seconds.get(kind, [])) for kind in ("decode", "transfer", "model")}

    @contextmanager
    def _timed(self, kind: str, on_device: bool = False) -> Iterator[None]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if on_device and self.device.type == "cuda" else None
        began = time.perf_counter()
        if events:
            events[0].record()
        yield
        if events:
            events[1].record()
        took = time.perf_counter() - began
        with self._noting:
            self._seconds.setdefault(kind, []).append(
                (lambda: events[0].elapsed_time(events[1]) / 1000) if events else (lambda: took)
            )


@dataclass(frozen=True, kw_only=True)
class LoadedImages(EmbedImages):
    """The stage with a teacher that is loaded already."""

    ready: Teacher = field(repr=False)

    def load(self, **sizes):
        return self.ready


@dataclass(frozen=True, kw_only=True)
class LoadedTexts(EmbedTexts):
    """The stage with a teacher that is loaded already."""

    ready: Teacher = field(repr=False)

    def load(self, **sizes):
        return self.ready


# What is embedded


def made_picture(rng: np.random.Generator) -> UInt8[np.ndarray, "s s 4"]:
    """A shaded ball with a pattern, on nothing: as large in a file as a render is."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    radius = rng.uniform(0.4, 0.9)
    height = np.sqrt(np.clip(radius**2 - x**2 - y**2, 0, None)) / radius
    pattern = 0.7 + 0.3 * np.sign(np.sin(x * rng.uniform(5, 40)) * np.sin(y * rng.uniform(5, 40)))
    shade = (0.2 + 0.8 * height) * pattern + rng.normal(0, 0.01, x.shape)
    color = rng.uniform(60, 255, 3) * np.clip(shade, 0, 1)[..., None]
    return np.dstack([color, 255 * np.clip((radius - np.hypot(x, y)) * SIZE / 2, 0, 1)]).astype(np.uint8)


def made_rows(objects: int, views: int, texts: int) -> tuple[list[Row], list[Row]]:
    """Rows of VIEWS and of CAPTIONS; every text is another."""
    seen = [
        {
            "object_id": f"made/{number}",
            "view": view,
            "stage": "made",
            "stage_key": "made",
            "image": encoded(made_picture(rng_for(f"{number} {view}"))),
            "width": SIZE,
            "height": SIZE,
            "intrinsics": [SIZE * 1.37, SIZE * 1.37, SIZE / 2, SIZE / 2],
            "camera_to_world": np.eye(4).ravel().tolist(),
            "kind": "rendered",
        }
        for number in range(objects)
        for view in range(views)
    ]
    said = [f"{' '.join(rng_for(str(number)).choice(WORDS, 10))} {number}" for number in range(texts)]
    captions = [
        {
            "object_id": f"made/{number}",
            "origin": "made",
            "caption": 0,
            "stage": "made",
            "stage_key": "made",
            "text": text,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "model": "made",
            "kept": True,
        }
        for number, text in enumerate(said)
    ]
    return seen, captions


def taken_rows(root: str, objects: int, texts: int) -> tuple[list[Row], list[Row]]:
    """Rows of VIEWS of some objects of a corpus, and of CAPTIONS with some distinct texts."""
    corpus = Corpus.at(root)
    ids = corpus.need(VIEWS.name).to_table(columns=["object_id"])["object_id"].unique().to_pylist()[:objects]
    views = corpus.need(VIEWS.name).to_table(filter=any_of("object_id", ids)).to_pylist()
    captions = {row["text"]: row for row in corpus.need(CAPTIONS.name).to_table(filter="kept").to_pylist()}
    return views, list(captions.values())[:texts]


def put(corpus: Corpus, table: Table, rows: list[Row]) -> None:
    """Make a table of these rows."""
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


# Measuring


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> tuple[float, int]:
    """FLOP/s of the fastest product of two square matrices, and their size."""
    best = (0.0, 0)
    for size in MATRICES[device.type]:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        a @ b
        took, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until or len(took) < 3:
            _wait(device)
            began = time.perf_counter()
            a @ b
            _wait(device)
            took.append(time.perf_counter() - began)
        best = max(best, (2 * size**3 / min(took), size))
    return best


def flops(teacher: Teacher, encode: Callable, example: torch.Tensor) -> int:
    """Floating point operations of the forward pass of one input."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that the counter does not know
    try:
        with FlopCounterMode(display=False) as counter:
            teacher.forward(encode, [teacher.staged([example], 1)])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def best_size(teacher: Teacher, encode: Callable, example: torch.Tensor, sizes: tuple[int, ...]) -> int:
    """The size of forward passes at which most inputs go through in a second."""
    rates: dict[int, float] = {}
    for size in sizes:
        try:
            rates[size] = teacher.rate(encode, example, size)
        except torch.cuda.OutOfMemoryError:
            break
    return max(rates, key=rates.__getitem__)


def bare_seconds(teacher: Teacher, encode: Callable, example: torch.Tensor, size: int, passes: int) -> float:
    """Seconds of so many forward passes, one after the other."""
    batch = teacher.staged([example] * size, size)
    teacher.forward(encode, [batch]).cpu()
    began = time.perf_counter()
    teacher.forward(encode, [batch] * passes).cpu()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Kind:
    """What a teacher is measured with: a stage that holds it, its encoder, the size of its passes, the stage's input rows, how many
    inputs they hold, and one input."""

    stage: LoadedImages | LoadedTexts
    encode: Callable
    size: int
    rows: list[Row]
    count: int
    example: torch.Tensor


def kinds(name: str, teacher: TimedTeacher, views: list[Row], captions: list[Row]) -> dict[str, Kind]:
    """Pictures and texts. `name`: what the teacher was asked for by."""
    held = {"teacher": name, "device": teacher.device.type, "dtype": teacher.dtype, "ready": teacher}
    picture, [text] = teacher.prepare(views[0]["image"]), teacher.tokens([captions[0]["text"]])
    distinct = len({row["text"] for row in captions})
    return {
        "images": Kind(LoadedImages(**held), teacher.see, teacher.images_per_forward, views, len(views), picture),
        "texts": Kind(LoadedTexts(**held), teacher.read, teacher.texts_per_forward, captions, distinct, text),
    }


def stage_seconds(kind: Kind, rows: list[Row]) -> tuple[float, dict[str, float]]:
    """Seconds of a whole stage over a new corpus of these rows, and what they went into."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus.at(folder)
        put(corpus, VIEWS if isinstance(kind.stage, LoadedImages) else CAPTIONS, rows)
        kind.stage.ready.spent()
        began = time.perf_counter()
        [summary] = run(corpus, Single(kind.stage))
        took = time.perf_counter() - began
        if summary.failed:
            raise RuntimeError(f"{summary.failed} failed: {summary.reasons}")
        spent = kind.stage.ready.spent()
    spent["decode"] /= torch.get_num_threads() if isinstance(kind.stage, LoadedImages) else 1
    return took, spent


def parts(rows: list[Row], count: int) -> list[list[Row]]:
    """The rows in so many parts, each with all rows of its objects."""
    ids = list(dict.fromkeys(row["object_id"] for row in rows))
    return [[row for row in rows if row["object_id"] in some] for some in (set(ids[i::count]) for i in range(count)) if some]


def peer_rate(kind: Kind, count: int) -> float:
    """Inputs per second of the peer's loop over some objects, or texts."""
    teacher = kind.stage.ready
    if isinstance(kind.stage, LoadedTexts):
        texts = [row["text"] for row in kind.rows[:count]]
        steps = [lambda text=text: teacher.model.encode_text(teacher.tokenizer([text]).to(teacher.device)) for text in texts]
        inputs = len(steps)
    else:
        transform = image_transform_v2(PreprocessCfg(**teacher.model.visual.preprocess_cfg), is_train=False)
        objects: dict[str, list[bytes]] = {}
        for row in kind.rows:
            objects.setdefault(row["object_id"], []).append(row["image"])
        some = list(objects.values())[:count]
        inputs = sum(map(len, some))

        def seen(pictures: list[bytes]) -> torch.Tensor:
            prepared = []
            for content in pictures:
                picture = Image.open(io.BytesIO(content)).convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                prepared.append(transform(Image.alpha_composite(white, picture).convert("RGB")))
            return teacher.model.encode_image(torch.stack(prepared).to(teacher.device))

        steps = [lambda pictures=pictures: seen(pictures) for pictures in some]
    began = time.perf_counter()
    for step in steps:
        with torch.inference_mode(), torch.autocast(teacher.device.type, torch.bfloat16, enabled=teacher.dtype == "bfloat16"):
            torch.nn.functional.normalize(step().float(), dim=-1).cpu().numpy()
    return inputs / (time.perf_counter() - began)


def measured(kind: Kind, each: int, matmul: float, peers: int) -> dict[str, Any]:
    """All figures of one kind. `each`: FLOPs of an input; `matmul`: FLOP/s; `peers`: objects, or texts, for the peer's loop."""
    teacher, around = kind.stage.ready, tuple(sorted({max(1, kind.size // 2), kind.size, 2 * kind.size}))
    size = best_size(teacher, kind.encode, kind.example, SIZES_ON_GPU if teacher.device.type == "cuda" else around)
    bare, took, spent = 0.0, 0.0, Counter()
    turns = parts(kind.rows, PARTS)
    passes = -(-kind.count // (len(turns) * size))
    for rows in turns:
        bare += bare_seconds(teacher, kind.encode, kind.example, size, passes)
        seconds, into = stage_seconds(kind, rows)
        took, spent = took + seconds, spent + Counter(into)
    bare, stage = len(turns) * passes * size / bare, kind.count / took
    shares = {name: seconds / took for name, seconds in spent.items()}
    rates = {"model": bare, "stage": stage, "peer": peer_rate(kind, peers)}
    return {
        "inputs": kind.count,
        "flops_each": each,
        "per_forward": kind.size,
        "best_size": size,
        "per_second": rates,
        "of_matmul": {who: rate * each / matmul for who, rate in rates.items()},
        "of_model": {who: rate / bare for who, rate in rates.items()},
        "shares": shares,
    }


def told(kind: str, found: dict[str, Any]) -> Iterator[str]:
    """The figures of one kind as text."""
    notes = {"model": f" alone, {found['best_size']} a pass", "stage": f", {found['per_forward']} a pass", "peer": ""}
    yield f"{kind:28}{'per second':>12}{'of matmul':>12}{'of the model':>14}"
    for who, note in notes.items():
        rate, of_matmul, of_model = (found[name][who] for name in ("per_second", "of_matmul", "of_model"))
        yield f"{who + note:28}{rate:12.2f}{of_matmul:12.1%}{of_model:14.1%}"
    yield f"{found['inputs']:,} of {found['flops_each'] / 1e9:.2f} GFLOP each; the stage's time: " + ", ".join(
        f"{name} {share:.1%}" for name, share in found["shares"].items()
    )


def main() -> None:
    """Measure one teacher and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--arch", help="an architecture of open_clip, with random weights")
    who.add_argument("--teacher", help="a teacher whose weights are here, ARCH:PRETRAINED")
    parser.add_argument("--corpus", help="take pictures and texts from this corpus (default: made ones)")
    parser.add_argument("--objects", type=int, default=64)
    parser.add_argument("--views", type=int, default=12, help="of a made object")
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--peers", type=int, default=16, help="objects, and texts, for the peer's loop")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--images-per-forward", type=int)
    parser.add_argument("--texts-per-forward", type=int)
    parser.add_argument("--compile", action="store_true", help="measure the compiled model as well")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    asked = parser.parse_args()

    cores, idle = os.cpu_count() or 1, os.getloadavg()[0]
    print(f"load {idle:.1f} on {cores} cores")
    if idle > IDLE * cores:
        print("THE MACHINE IS NOT IDLE: figures do not count")
    rows = (
        taken_rows(asked.corpus, asked.objects, asked.texts) if asked.corpus else made_rows(asked.objects, asked.views, asked.texts)
    )
    with tempfile.TemporaryDirectory() as folder:
        name, how = asked.teacher, load
        if asked.arch:
            save_file({"seed": torch.tensor(0)}, Path(folder) / "random.safetensors")
            name, how = f"{asked.arch}:{folder}/random.safetensors", random_weights
        loaded = how(name)
        found: dict[str, Any] = {}
        for compiled in (False, True) if asked.compile else (False,):
            teacher = TimedTeacher(
                name,
                device=asked.device,
                dtype=asked.dtype,
                images_per_forward=asked.images_per_forward,
                texts_per_forward=asked.texts_per_forward,
                compile=compiled,
                load=lambda _: loaded,
            )
            measuring = kinds(name, teacher, *rows)
            if not compiled:
                matmul, size = matmul_rate(teacher.device, getattr(torch, teacher.dtype))
                each = {kind: flops(teacher, one.encode, one.example) for kind, one in measuring.items()}
                device = (
                    torch.cuda.get_device_name() if teacher.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
                )
                parameters = sum(one.numel() for one in teacher.model.parameters())
                print(f"{device}; {teacher.dtype}; torch {torch.__version__}; {teacher.name}, {parameters / 1e6:.0f} M parameters")
                print(f"matmul {matmul / 1e12:.3f} TFLOP/s, {size} x {size}")
            way = "compiled" if compiled else "eager"
            found[way] = {kind: measured(one, each[kind], matmul, asked.peers) for kind, one in measuring.items()}
            for kind, figures in found[way].items():
                print("", *told(f"{kind}, compiled" if compiled else kind, figures), sep="\n", flush=True)
    peak = torch.cuda.max_memory_allocated() if teacher.device.type == "cuda" else 0
    memory = {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, "gpu": peak}
    print(f"\npeak memory: {memory['ram'] / 1e9:.1f} GB" + (f", on the GPU {peak / 1e9:.1f} GB" if peak else ""))
    if asked.json:
        about = {"load": idle, "cores": cores, "device": device, "dtype": teacher.dtype, "matmul": matmul, "memory": memory}
        asked.json.write_text(json.dumps(about | {"teacher": asdict(teacher.identity)} | found, indent=1))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
