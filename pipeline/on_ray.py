"""The same run on a Ray cluster: one actor per worker, each with its own Blender or model. The only file that imports ray."""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A cluster asks for the token that Ray keeps on every machine; Ray's client (ray://) shows it only when told before the import.
if "RAY_AUTH_TOKEN" in os.environ or Path("~/.ray/auth_token").expanduser().exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray  # noqa: E402
from ray.actor import ActorHandle  # noqa: E402
from ray.exceptions import GetTimeoutError, RayError, RayTaskError  # noqa: E402

from pipeline.cost import Share  # noqa: E402
from pipeline.run import Batch, Done, Worker  # noqa: E402
from pipeline.stage import NoRoom, Pass, overlap  # noqa: E402
from pipeline.store import Corpus  # noqa: E402

# What Ray workers import; on a cluster it travels with the job.
PACKAGES = Path(__file__).resolve().parent.parent
EXCLUDED = [".git", ".venv", "demo", "tests", "benchmarks", "__pycache__"]
WAITING = 1  # batches per worker beside those it works on, so that none waits for the driver
DEATHS = 3  # of its worker, after which an object fails


@contextmanager
def cluster(address: str | None, cpus: int = 0) -> Iterator[None]:
    """Connect to a cluster (`ray://host:10001`, or "auto"), or start one on this machine for as long as the context lasts, with
    so many `cpus` to share out among its workers, be there as many cores or not.

    On a cluster the project's code travels as the working directory of the job; its nodes need the environment of README.md.
    """
    local = address is None
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future behaviour, without its warning
    if local:
        paths = os.pathsep.join([str(PACKAGES), os.environ.get("PYTHONPATH", "")])
        settings = {"address": "local", "runtime_env": {"env_vars": {"PYTHONPATH": paths}}, "include_dashboard": False}
        settings["num_cpus"] = max(os.cpu_count() or 1, cpus)
    else:
        settings = {"address": address, "runtime_env": {"working_dir": str(PACKAGES), "excludes": EXCLUDED}}
    with warnings.catch_warnings():
        # Lance warns of any fork; Ray's is followed by an exec at once, and touches nothing of Lance.
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        ray.init(log_to_driver=False, logging_level="ERROR", **settings)
    try:
        yield
    finally:
        ray.shutdown()


def gpus() -> float:
    """GPUs of the connected cluster."""
    return ray.cluster_resources().get("GPU", 0)


@dataclass(frozen=True)
class OnRay:
    """Do the batches on `workers` actors; fits `pipeline.run.Where`.

    When an actor dies (killed, out of memory, its node lost) another takes its place, and the objects it held are suspects: each
    is done again alone on a worker, so that no other object dies with it. One whose worker dies three times fails: `worker_died`.

    `cpus`, `gpus`: what each worker takes of the cluster; None: what the stages say.
    """

    workers: int
    cpus: float | None = None
    gpus: float | None = None

    def __call__(self, corpus: Corpus, work_pass: Pass, batches: Iterable[Batch]) -> Iterator[Done]:
        share = self._share(work_pass)
        kind = ray.remote(**self._takes(work_pass, share), max_concurrency=overlap(work_pass))(Worker)
        seats = [_Seat(lambda: kind.remote(corpus, work_pass, share), overlap(work_pass) + WAITING) for _ in range(self.workers)]
        left, suspects, deaths = iter(batches), deque(), Counter()
        upcoming = next(left, None)
        try:
            while True:
                for seat in seats:
                    if suspects and seat.is_idle:
                        seat.give(suspects.popleft())
                    while upcoming and not suspects and seat.has_room and not any(deaths[id] for id in seat.ids):
                        seat.give(upcoming)
                        upcoming = next(left, None)
                flying = {ref: seat for seat in seats for ref in seat.flying}
                if not (flying or upcoming or suspects):
                    return  # also when some worker never came up: the cluster has no place for so many
                starting = {seat.starting: seat for seat in seats if seat.starting}
                [ref], _ = ray.wait([*flying, *starting], num_returns=1)
                if ref in starting:
                    starting[ref].started()
                    continue
                seat = flying[ref]
                try:
                    done = ray.get(ref)
                except RayTaskError as error:  # raised by our own code: a bug or a full disk, which stops the run
                    if isinstance(error.cause, NoRoom):
                        raise NoRoom(str(error.cause)) from None  # the sentence alone
                    raise error.as_instanceof_cause() from None
                except RayError as error:
                    held = [one for batch in seat.flying.values() for one in batch.singly()]
                    seat.start()
                    deaths.update(one.ids[0] for one in held)
                    for one in held:
                        if deaths[one.ids[0]] < DEATHS:
                            suspects.append(one)
                        else:
                            yield _died(work_pass, one, error)
                else:
                    del seat.flying[ref]
                    yield done
        finally:
            with suppress(GetTimeoutError, RayError):  # let them put away what they hold (Blender, temporary files)
                ray.get([seat.actor.close.remote() for seat in seats if not seat.starting], timeout=10)
            for seat in seats:
                ray.kill(seat.actor)

    def _share(self, work_pass: Pass) -> Share:
        """What each worker has: where the stages do not say how many cores, an even share."""
        cpus = [self.cpus] if self.cpus is not None else [stage.cpus for stage in work_pass.stages]
        gpus = [self.gpus] if self.gpus is not None else [stage.gpus for stage in work_pass.stages]
        return Share(cpus=self._even_share() if None in cpus else max(cpus), gpus=max(gpus))

    def _takes(self, work_pass: Pass, share: Share) -> dict[str, Any]:
        """What each actor takes of the cluster to have its share, as Ray's options."""
        if self.cpus is not None or None not in [stage.cpus for stage in work_pass.stages]:
            return {"num_cpus": share.cpus, "num_gpus": share.gpus}
        # Taking the even share would wait for ever where a part of it is another job's. Without the variable Ray sets it to 1.
        threads = {"env_vars": {"OMP_NUM_THREADS": str(share.cpus)}}
        return {"num_cpus": 1, "num_gpus": share.gpus, "runtime_env": threads}

    def _even_share(self) -> int:
        """Cores per worker, were they spread over the cluster evenly."""
        cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        return max(1, int(min(max(cores), sum(cores) / self.workers)))


class _Seat:
    """A worker's place: the actor that fills it now, and the batches it holds, at most `room`. Until the actor is up, it is given
    none."""

    def __init__(self, make: Callable[[], ActorHandle], room: int):
        self._make, self._room, self._failed_starts = make, room, 0
        self.start()

    def start(self) -> None:
        self.actor, self.flying = self._make(), {}
        self.starting: ray.ObjectRef | None = self.actor.__ray_ready__.remote()

    def started(self) -> None:
        """The actor is up, or died on the way; then another one starts. Raises what its own set-up raised."""
        try:
            ray.get(self.starting)
        except RayError as error:
            self._failed_starts += 1
            if "creation task" in str(error) or self._failed_starts == DEATHS:  # no object's fault
                raise
            self.start()
        else:
            self.starting, self._failed_starts = None, 0

    def give(self, batch: Batch) -> None:
        self.flying[self.actor.do.remote(batch)] = batch

    @property
    def is_idle(self) -> bool:
        return not self.starting and not self.flying

    @property
    def has_room(self) -> bool:
        return not self.starting and len(self.flying) < self._room

    @property
    def ids(self) -> list[str]:
        return [batch.ids[0] for batch in self.flying.values()]


def _died(work_pass: Pass, batch: Batch, error: RayError) -> Done:
    """The failure of a batch of one object."""
    done, id = Done(), batch.ids[0]
    message = f"the worker died each of the {DEATHS} times it had this object: {str(error).splitlines()[0]}"
    for stage in work_pass.stages:
        key = batch.keys[stage.name][0]
        failure = {"object_id": id, "stage": stage.name, "stage_key": key, "reason": "worker_died", "message": message}
        done.asked[stage.name], done.made[stage.name], done.fragments[stage.name] = [id] if key else [], [], []
        done.failures[stage.name] = [failure | {"log_tail": None, "attempts": DEATHS, "thumbnail": None}] if key else []
    return done
