"""Write a corpus in the forms that others read: OpenShape's training files, WebDataset shards, Parquet.

python -m jobs export /data/corpus --webdataset /data/shards --split objaverse-lvis --license CC-BY-4.0,CC0-1.0

Killed at any time, the same command goes on. Objects of all licences are written unless --license names some, also those whose
licence is unknown; how many of each there are is said at the end and kept in export.json, and each object carries its own.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobs.arguments import Json, Root
from jobs.carry_out import counted
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from pipeline.assets.asset import absolute
from pipeline.exports.openshape import export_openshape
from pipeline.exports.output import Output
from pipeline.exports.parquet import export_parquet
from pipeline.exports.rows import choose, choose_teacher
from pipeline.exports.webdataset import FIELDS, export_webdataset
from pipeline.store import Corpus


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # Folder for OpenShape's form: a pickled .npy per object, and meta_data/split/train_all.json.
    openshape: str | None = None
    # Folder for WebDataset shards: tar files.
    webdataset: str | None = None
    # Folder for Parquet files, a subfolder per table.
    parquet: str | None = None
    # Whose embeddings: ARCH:PRETRAINED as the tables are named. Default: the only one, or the default teacher; for Parquet, all.
    teacher: str | None = None
    # Only the objects of this split.
    split: str | None = None
    # Only objects under these licences (SPDX ids, or unknown), with commas between them.
    license: str | None = None
    # Objects per WebDataset shard.
    shard: int = 1024
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Write what is not there yet."""
    began = time.monotonic()
    asked = {name: getattr(job, name) for name in ("openshape", "webdataset", "parquet") if getattr(job, name)}
    if len(asked) != 1:
        raise Refusal("say one form and where to write it: --openshape FOLDER, --webdataset FOLDER or --parquet FOLDER")
    [(form, folder)] = asked.items()
    if job.shard < 1:
        raise Refusal(f"--shard {job.shard}: must be 1 or more")
    corpus = Corpus.at(job.root)
    licenses = [license.strip() for license in (job.license or "").split(",") if license.strip()]
    corpus.need("objects")
    try:
        chosen = choose(corpus, split=job.split, licenses=licenses)
        teacher = None if form == "parquet" and job.teacher is None else choose_teacher(corpus, job.teacher)
        if form == "openshape" and teacher is None:
            raise ValueError("the corpus has no image embeddings, which this form cannot be without: run `embed` first")
        output = Output(absolute(folder), _plan(job, corpus, form, teacher, licenses))
    except ValueError as error:
        raise Refusal(str(error)) from error
    with _progress(job, form, len(chosen.ids)) as watch:
        if form == "openshape":
            result = {"left_out": export_openshape(corpus, chosen, teacher, output, job.split, watch)}
        elif form == "webdataset":
            result = {"left_out": export_webdataset(corpus, chosen, teacher, output, job.shard, watch)}
        else:
            everything = job.split is None and not licenses
            result = {"rows": export_parquet(corpus, chosen, teacher, output, everything=everything, watch=watch)}
    done = {"objects": len(chosen.ids) - sum(result.get("left_out", {}).values()), "licenses": chosen.licenses, **result}
    output.finish(done)
    if job.json:
        print(
            json.dumps({"root": corpus.root, "folder": str(output.folder), **done, "seconds": round(time.monotonic() - began, 2)})
        )
    else:
        left = f"; left out: {counted(result['left_out'])}" if result.get("left_out") else ""
        print(f"{output.folder}: {done['objects']:,} objects as {form}, in {duration(time.monotonic() - began)}{left}")
        print(f"licences of the objects chosen: {counted(chosen.licenses)}")
    return 0


def _plan(job: Job, corpus: Corpus, form: str, teacher: str | None, licenses: list[str]) -> dict[str, Any]:
    fields = {"fields": FIELDS, "shard": job.shard} if form == "webdataset" else {}
    return {
        "form": form,
        "corpus": corpus.root,
        "versions": {name: corpus.need(name).version for name in corpus.tables()},
        "teacher": teacher,
        "split": job.split,
        "licenses": licenses,
        **fields,
    }


@contextmanager
def _progress(job: Job, form: str, total: int) -> Iterator[Any]:
    unit, total = ("tables", None) if form == "parquet" else ("objects", total)
    with progress(f"export {form}", total, unit, quiet=job.json) as bar:
        yield lambda seen, left_out: bar.update(done=seen - left_out, failed=left_out)
