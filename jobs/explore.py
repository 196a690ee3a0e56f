"""Look through a corpus in the browser: search by words, filter, open an object and its failures. Nothing is written.

python -m jobs explore /data/corpus

The pages are served to this machine alone (127.0.0.1) until Ctrl-C. What the corpus was when the job began is shown; for what came
later start it again. A million objects take some 20 s to read, and then are searched in a fraction of a second.
"""

import json
import socket
import time
import webbrowser
from dataclasses import dataclass
from typing import Annotated

import tyro
import uvicorn

from jobs.arguments import Json, Root
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from reports.catalogue import read, rows_to_read
from reports.explore import Alike, app
from schemas.corpus import Reader
from schemas.tables import OBJECTS

HOST = "127.0.0.1"
LAST_PORT = 65535
ALIKE = 12  # objects that are shown beside one
ALIKE_AT_MOST = 20_000  # objects all of whose vectors are looked at; of more, only where there is an index


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # Where the pages are served on this machine; 0: at any port that is free.
    port: int = 8321
    # Open the page in this machine's browser.
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Teacher (ARCH:PRETRAINED) by whose embeddings objects look alike. Default: the first one of the corpus.
    teacher: str | None = None
    # Print one JSON object instead of text, before the pages are served.
    json: Json = False


def main(job: Job) -> int:
    """Read the catalogue, and serve the pages until a key press."""
    began = time.monotonic()
    if not 0 <= job.port <= LAST_PORT:
        raise Refusal(f"--port {job.port}: must be from 0 to {LAST_PORT}")
    corpus = Reader.at(job.root)
    corpus.need(OBJECTS.name)
    teacher = teacher_of(job, corpus)
    listening = listen(job.port)
    with listening:
        with progress("reading", rows_to_read(corpus), "rows", quiet=job.json) as bar:
            catalogue = read(corpus, lambda done: bar.update(done=done))
        pages = app(catalogue, job.root, alike=alike(corpus, teacher) if teacher else None)
        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        about = {"root": corpus.root, "address": address, "objects": len(catalogue.ids), "teacher": teacher}
        seconds = time.monotonic() - began
        if job.json:
            print(json.dumps(about | {"seconds": round(seconds, 2)}), flush=True)
        else:
            print(told(job, about, seconds), flush=True)
        if job.open:
            webbrowser.open(address)
        server = uvicorn.Server(uvicorn.Config(pages, log_level="warning", timeout_graceful_shutdown=1))
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # how one leaves
            pass
    return 0


def told(job: Job, about: dict, seconds: float) -> str:
    """What a person reads before the pages are served."""
    port = about["address"].rstrip("/").rpartition(":")[2]
    likeness = (
        f"looks alike: by {about['teacher']}"
        if about["teacher"]
        else "looks alike: not known (no embeddings, or too many without search --index)"
    )
    return "\n".join(
        [
            f"{about['root']}: {about['objects']:,} objects, read in {duration(seconds)}",
            f"  {likeness}",
            "",
            f"  open {about['address']} in a browser on this machine; Ctrl-C ends it",
            f"  from another machine: ssh -L {port}:{HOST}:{port} THIS_MACHINE, then open the same address there",
        ]
    )


def listen(port: int) -> socket.socket:
    """A socket of the loopback interface. Raises Refusal when the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise Refusal(
            f"--port {port}: {error.strerror.lower()}; take another one, or 0 for any that is free", exit_code=1
        ) from error
    listening.listen()
    return listening


def teacher_of(job: Job, corpus: Reader) -> str | None:
    """The teacher by which objects look alike; None: there is none, or it would take long to look."""
    there = corpus.teachers()
    if job.teacher and job.teacher not in there:
        raise Refusal(f"{corpus.root} has no embeddings of {job.teacher}; it has: {', '.join(there) or 'none'}")
    teacher = job.teacher or next(iter(there), None)
    if teacher is None:
        return None
    kept = corpus.open(f"shape_embeddings/{teacher}")
    indexed = kept is not None and any(index.field_names == ["embedding"] for index in kept.describe_indices())
    return teacher if indexed or corpus.need(f"image_embeddings/{teacher}").count_rows() <= ALIKE_AT_MOST else None


def alike(corpus: Reader, teacher: str) -> Alike:
    """What is like an object by a teacher's embeddings of its views."""

    def likest(object_id: str) -> list[tuple[str, float]]:
        from evaluate.gallery import Gallery, MeanOfViews  # brings torch, which takes seconds

        dim = corpus.need(f"image_embeddings/{teacher}").schema.field("embedding").type.value_type.list_size
        gallery = Gallery(MeanOfViews(root=corpus.root, teacher=teacher, dim=dim))
        vectors = dict(pair for ids, some in gallery.vectors([object_id]) for pair in zip(ids, some, strict=True))
        if object_id not in vectors:
            return []
        return [(hit.object_id, hit.score) for hit in gallery.nearest(vectors[object_id], ALIKE, without=(object_id,))]

    return likest
