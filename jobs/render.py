"""Render the views of each object of the corpus that lacks them (points are left to `points`; `build` makes both in one go)."""

import time
from dataclasses import dataclass

from jobs.build import blender_step
from jobs.carry_out import Running, carry_out, finish


@dataclass(frozen=True, kw_only=True)
class Job(Running):
    pass


def main(job: Job) -> int:
    """Run the stage."""
    began = time.monotonic()
    job.corpus.need("objects")
    return finish(job, carry_out(job, [blender_step(job, points=False)]), began)
