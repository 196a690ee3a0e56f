"""A small corpus with a little of everything that `explore` shows, and the job that shows it."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, POINTS_PER_OBJECT, SPLITS, VIEWS, Table, image_embeddings
from shout import object_row

ROOT = Path(__file__).resolve().parent.parent
TEACHER = "tiny:none"
HOSTILE = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
COLORS = {0: (200, 30, 30), 1: (30, 60, 200), 2: (30, 160, 60)}
RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 200, 20), (20, 20, 220), (220, 200, 20)
REFUSED = "test/refused"  # what ingest failed on
LOG = "Blender quit\nFatal: out of memory"


def picture(color: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    """A picture of one colour, WebP."""
    file = io.BytesIO()
    Image.new("RGBA", size, (*color, 255)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def view_row(number: int, view: int, color: tuple[int, int, int]) -> dict:
    return {
        "object_id": f"test/{number}",
        "view": view,
        "stage": "render",
        "stage_key": "k",
        "image": picture(color),
        "width": 32,
        "height": 32,
        "intrinsics": [32, 32, 16, 16],
        "camera_to_world": np.eye(4).ravel().tolist(),
        "kind": "rendered",
        "alpha_coverage": 0.5,
    }


def points_row(number: int, *, colored: bool) -> dict:
    """A ball: its front (+z) is yellow, its right side (+x) green, the upper half of what is left red, the lower one blue."""
    xyz = np.random.default_rng(number).standard_normal((POINTS_PER_OBJECT, 3))
    xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)
    x, y, z = xyz.T[..., None]
    rgb = np.select([z > 0.7, x > 0.7, y > 0], [YELLOW, GREEN, RED], BLUE).astype(np.uint8)
    return {
        "object_id": f"test/{number}",
        "stage": "points",
        "stage_key": "k",
        "xyz": xyz.astype(np.float16).ravel(),
        "rgb": rgb.ravel() if colored else None,
        "canonical_from_asset": np.eye(4).ravel().tolist(),
        "vertices": 1000 + number,
        "faces": 2000,
        "area": 12.5,
        "warnings": ["flat_geometry"] if number == 2 else [],
    }


def caption_row(number: int, caption: int, text: str, *, dropped: str | None = None, origin: str = "metadata") -> dict:
    return {
        "object_id": f"test/{number}",
        "origin": origin,
        "caption": caption,
        "stage": "caption",
        "stage_key": "k",
        "text": text,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "model": "name",
        "kept": dropped is None,
        "dropped_because": dropped,
    }


def failure_row(id: str, stage: str, reason: str, **more) -> dict:
    return {"object_id": id, "stage": stage, "stage_key": "k", "reason": reason, "message": f"{id} would not", "attempts": 1} | more


def put(corpus: Corpus, table: Table, rows: list[dict]) -> None:
    """Make the table of these rows."""
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def made_corpus(root: str) -> Corpus:
    """Eight objects: 0 and 1 have views, 2 has points too, 3 has points alone, without colour; 4 was not let in when it was
    rendered; 5 has a hostile name and captions; 6 and 7 have nothing. Another one could not be ingested, nor a text embedded."""
    corpus = Corpus(root)
    objects = [
        object_row(
            0, name="Red wooden chair", categories=["chair", "furniture"], tags=["seat"], license="CC-BY-4.0", creator="Ada"
        ),
        object_row(1, name="Armchair", categories=["furniture"], source="other"),
        object_row(2, name="Green_Tree (old)", categories=["plant"], license="CC0-1.0"),
        object_row(3, name=None, categories=["lamp"], warnings=["missing_texture"]),
        object_row(4, name="Car"),
        object_row(5, name=HOSTILE, categories=[HOSTILE], tags=[HOSTILE], description=HOSTILE, creator=HOSTILE),
        object_row(6, name="Übergröße"),
        object_row(7, name="Plain"),
    ]
    put(corpus, OBJECTS, objects)
    # stored neither by object nor by view
    put(corpus, VIEWS, [view_row(number, view, COLORS[number]) for view in (3, 1, 0, 2) for number in (2, 0, 1)])
    put(corpus, POINTS, [points_row(number, colored=number != 3) for number in (3, 2)])
    captions = [
        caption_row(0, 0, "a chair with four legs"),
        caption_row(1, 0, "a blue seat to sit on", origin="cap3d"),
        caption_row(0, 1, "nonsense nonsense", dropped="boilerplate"),
        caption_row(5, 0, HOSTILE),
        caption_row(5, 1, HOSTILE + " dropped", dropped="too_long"),
    ]
    put(corpus, CAPTIONS, captions)
    put(
        corpus,
        SPLITS,
        [{"object_id": "test/2", "stage": "import", "stage_key": "k", "split": "lvis", "label": "evergreen"}],
    )
    failures = [
        failure_row("test/4", "render", "gate: black", thumbnail=picture((9, 9, 9), (96, 24)), log_tail=LOG, attempts=3),
        failure_row(REFUSED, "ingest", "asset_missing"),
        failure_row("f" * 64, "embed-texts", "too_long"),
        failure_row("test/5", "render", "gate: black", message=HOSTILE, log_tail=HOSTILE),
    ]
    put(corpus, FAILURES, failures)
    towards = np.eye(8)[:3] + 0.5 * np.eye(8)[[0, 0, 1]]  # 0 is nearer to 1 than to 2
    put(
        corpus,
        image_embeddings(TEACHER, 8),
        [
            {"object_id": f"test/{k}", "stage": "embed-images", "stage_key": "k", "embedding": [vector / np.linalg.norm(vector)]}
            for k, vector in enumerate(towards)
        ],
    )
    return corpus


@dataclass(frozen=True)
class Served:
    """A running job: the object that it printed, and its process."""

    about: dict
    process: subprocess.Popen

    @property
    def address(self) -> str:
        return self.about["address"].rstrip("/")


@contextmanager
def served(root: str, *arguments: str, stderr: int | None = None) -> Iterator[Served]:
    """The job over a corpus, at a free port."""
    command = [sys.executable, "-m", "jobs", "explore", root, "--port", "0", "--json", *arguments]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=alone, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield Served(json.loads(process.stdout.readline()), process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
