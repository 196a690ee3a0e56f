"""Forget failures of a stage, so that the next run tries those objects again."""

import json
from dataclasses import dataclass

from jobs.arguments import Json, Root
from jobs.refusal import Refusal
from pipeline.store import Corpus, quote
from schemas.tables import FAILURES


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # Stage whose failures are forgotten, as `status` names it.
    stage: str
    # Only failures of this reason. Default: all.
    reason: str | None = None
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Remove the rows from FAILURES."""
    corpus = Corpus.at(job.root)
    corpus.need(FAILURES.name)  # before the lock, which would make the folder
    with corpus.lock():
        rows = corpus.need(FAILURES.name).to_table(columns=["object_id", "stage", "reason"]).to_pylist()
        stages = sorted({row["stage"] for row in rows})
        reasons = sorted({row["reason"] for row in rows if row["stage"] == job.stage})
        if rows and job.stage not in stages:
            raise Refusal(f"stage {job.stage!r} has no failures; the stages that have: {', '.join(stages)}")
        if rows and job.reason not in (None, *reasons):
            raise Refusal(f"stage {job.stage!r} has no failures for {job.reason!r}; its reasons are: {', '.join(reasons)}")
        ids = [row["object_id"] for row in rows if row["stage"] == job.stage and job.reason in (None, row["reason"])]
        corpus.delete(FAILURES, ids, f"stage = {quote(job.stage)}")
    if job.json:
        print(json.dumps({"root": corpus.root, "stage": job.stage, "reason": job.reason, "forgotten": len(ids)}))
    else:
        print(f"{len(ids):,} failures of {job.stage} forgotten; run `build` (or the stage) again to try them")
    return 0
