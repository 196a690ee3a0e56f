"""Write captions from the metadata of each object of the corpus."""

import time
from dataclasses import dataclass

from jobs.build import caption_step
from jobs.carry_out import Running, carry_out, finish


@dataclass(frozen=True, kw_only=True)
class Job(Running):
    pass


def main(job: Job) -> int:
    """Run the stage."""
    began = time.monotonic()
    job.corpus.need("objects")
    return finish(job, carry_out(job, [caption_step(job)]), began)
