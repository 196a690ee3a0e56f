"""Set evaluations side by side, and beside what others have published.

python -m jobs evaluate table runs/a/zero-shot runs/b/zero-shot -o both
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evaluate.result import FILE, load, save, to_json
from evaluate.table import text
from jobs.arguments import Json
from jobs.refusal import Refusal


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folders that other evaluate jobs wrote, or their results.json.
    evaluations: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER …")]
    # New folder for all results in one results.json, with table.md and table.html. Default: the table is only printed.
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Print the tables; write them where asked."""
    if not job.evaluations:
        raise Refusal("say which evaluations: folders that other evaluate jobs wrote")
    if job.out and (job.out / FILE).exists():
        raise Refusal(f"--out {job.out}: there is an evaluation already: give a new folder")
    try:
        found = [one for place in job.evaluations for one in load(place)]
    except ValueError as error:
        raise Refusal(str(error)) from error
    results = [one for number, one in enumerate(found) if one not in found[:number]]  # an evaluation may be given twice
    if job.out:
        save(job.out, results)
    if job.json:
        print(json.dumps({"out": job.out and str(job.out), "results": [to_json(one) for one in results]}, ensure_ascii=False))
    else:
        print(text(results))
        if job.out:
            print(f"\n{job.out}: {len(results)} results in {FILE}, table.md and table.html")
    return 0
