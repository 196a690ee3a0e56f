"""Embed the views, captions and class names of a corpus with a teacher. Another teacher makes tables of its own and touches nothing
else."""

from dataclasses import dataclass

from jobs.build import embed_steps
from jobs.carry_out import Running, carry_out_alone
from pipeline.weights import DEFAULT_TEACHER
from schemas.tables import CAPTIONS, VIEWS


@dataclass(frozen=True, kw_only=True)
class Job(Running):
    # Frozen CLIP model, ARCH:PRETRAINED as open_clip spells them; tricorpus-tiny:shapes-v1 needs no download.
    teacher: str = DEFAULT_TEACHER


def main(job: Job) -> int:
    """Run the stages whose tables are there: a corpus may have only views or (imported) only captions."""
    there = [table for table in (VIEWS.name, CAPTIONS.name) if job.corpus.open(table) is not None] or [VIEWS.name]
    return carry_out_alone(
        job, tuple(there), lambda job: [step for step in embed_steps(job, job.teacher) if step.work.stages[0].reads in (*there, "")]
    )
