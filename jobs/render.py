"""Render the views of each object of the corpus that lacks them (points are left to `points`; `build` makes both in one go)."""

from jobs.build import blender_step, photo_step
from jobs.carry_out import Running as Job
from jobs.carry_out import carry_out_alone


def main(job: Job) -> int:
    """Run the stage."""
    return carry_out_alone(job, ("objects",), lambda job: [blender_step(job, points=False), photo_step(job, points=False)])
