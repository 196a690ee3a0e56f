"""python -m jobs NAME …: one file per job. This one finds it, reads its arguments, and tells a person what was wrong.

Exit codes: 0 done (failures of objects are recorded), 1 could not run, 2 wrong arguments, 130 stopped by a key press.
"""

import importlib
import json
import keyword
import sys

import tyro

from jobs.refusal import Refusal
from pipeline.stage import NoRoom
from pipeline.store import CorpusError

JOBS = {
    "demo": "make 40 small objects and build a corpus from them",
    "build": "all stages in order, only what is missing: the main job",
    "ingest": "list the sources' objects and hash their assets",
    "render": "12 views of each object",
    "points": "10,000 coloured points on each object",
    "maps": "depth, normals and visible points of each view",
    "caption": "sentences from each object's metadata",
    "embed": "a teacher's embeddings of views, captions and class names",
    "status": "what is done, still to do and failed, per stage",
    "retry": "forget failures, so that the next run tries again",
    "report": "a page for people who audit: what is inside, what failed and why",
    "explore": "look through a corpus in the browser: search, open, spin",
    "search": "objects by a text, a picture, a mesh or their like",
    "download": "fetch a collection, or a part of it",
    "import": "take over OpenShape's files, Cap3D's captions, lists of objects",
    "export": "write OpenShape's files, WebDataset shards or Parquet",
    "maintain": "give back the room of deleted rows and old versions",
    "train": "an encoder from a corpus, by a published recipe or a small one",
    "encode": "embed meshes, points, pictures or a corpus with a checkpoint",
    "distill-parts": "a student of a category's parts from a detector's units",
    "evaluate canary": "whether the embeddings are fit to train on",
    "evaluate zero-shot": "the class whose name is nearest, on the published benchmarks",
    "evaluate retrieval": "captions, pictures and shapes look up shapes, as MRD's tables have it",
    "evaluate probe": "few-shot and linear probes on frozen embeddings",
    "evaluate fine-tune": "an encoder of points and a head learn a benchmark's classes",
    "evaluate parts": "part segmentation, by students or by brought predictions",
    "evaluate leaks": "which objects of a benchmark are trained on",
    "evaluate table": "several evaluations side by side, and beside the published",
    "doctor": "what this machine has, and what is missing",
    "tiny-teacher": "train the embedded tiny teacher anew",
}

USAGE = "usage: python -m jobs NAME [arguments]        (installed: tricorpus NAME …)"


def overview() -> str:
    """What `--help` prints."""
    lines = [USAGE, "", "tricorpus builds tri-modal 3D corpora (points, views, text) as Lance tables.", ""]
    lines += [f"  {name:<21} {what}" for name, what in JOBS.items()]
    lines += ["", "python -m jobs NAME --help explains one job. Start with: python -m jobs demo"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run a job; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else 2
    name, *rest = arguments
    of_two_words = [job for job in JOBS if job.startswith(f"{name} ")]
    if of_two_words:
        name, rest = " ".join([name, *rest[:1]]), rest[1:]
    if name not in JOBS:
        print(f"there is no job {name!r}; the jobs are: {', '.join(of_two_words or JOBS)}", file=sys.stderr)
        return 2
    file = name.replace("-", "_").replace(" ", ".") + "_" * keyword.iskeyword(name)  # jobs/evaluate/canary.py, jobs/import_.py
    module = importlib.import_module(f"jobs.{file}")
    job = tyro.cli(module.Job, prog=f"python -m jobs {name}", description=module.__doc__, args=rest)
    try:
        return module.main(job)
    except Refusal as refusal:
        return _refused(refusal.exit_code, str(refusal), getattr(job, "json", False))
    except (CorpusError, NoRoom) as error:
        return _refused(1, str(error), getattr(job, "json", False))
    except KeyboardInterrupt:
        print("stopped; what was made is kept, and the same command goes on from here", file=sys.stderr)
        return 130


def _refused(exit_code: int, message: str, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message}, ensure_ascii=False))
    print(f"error: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
