"""Write captions from the metadata of each object of the corpus."""

from jobs.build import caption_step
from jobs.carry_out import Running as Job
from jobs.carry_out import carry_out_alone


def main(job: Job) -> int:
    """Run the stage."""
    return carry_out_alone(job, ("objects",), lambda job: [caption_step(job)])
