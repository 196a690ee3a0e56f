"""List the objects of sources, hash their assets and write them to the table `objects`."""

from dataclasses import dataclass

from jobs.arguments import Sources
from jobs.build import ingest_steps
from jobs.carry_out import Running, carry_out_alone
from jobs.refusal import Refusal


@dataclass(frozen=True, kw_only=True)
class Job(Running):
    # A collection and where it is, as NAME=PATH; may be given several times.
    source: Sources = ()
    # Take only the first N objects of each source.
    limit: int | None = None


def main(job: Job) -> int:
    """Run the stage."""
    if not job.source:
        raise Refusal("say where the objects come from: --source NAME=PATH, for instance --source folder=/data/meshes")
    return carry_out_alone(job, (), lambda job: ingest_steps(job, job.source, job.limit))
