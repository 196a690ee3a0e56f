"""Blender from outside: a warm process of its own that makes pictures and meshes. A crash, a hang or a leak costs one object.

with Blender(BlenderSettings(threads=2)) as blender:
    answer, folder = blender.do(Request(asset="chair.glb", format="glb", mesh=True))

What can befall it, and what comes of that:

    it ends or is killed, writes what is no answer,      it is killed with all it started; the object is tried again in a fresh
    stands still, takes too long or too much memory      process, and fails with a reason of LOST when that does not help
    it has done many objects, or keeps much memory       it is started anew between two objects
    the disk of its results is full                      the object is done again on TMPDIR's; full too: NoRoom stops the run
    it does not start, or its own code has a bug         RuntimeError stops the run
"""

import fcntl
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import psutil

from pipeline.assets.staging import staged
from pipeline.stage import NoRoom, ObjectError
from render import confine, devices
from render.spec import DISK_FULL, SPARE_BYTES, Answer, Request

WORKER = Path(__file__).with_name("blender_worker.py")
MEMORY_DISK = Path("/dev/shm")
FOLDER_PREFIX = "tricorpus-blender-"

START_SECONDS = 120  # within which Blender must be up; it takes 1 to 3 on an idle machine
# Within which a GPU must have rendered a triangle. Where the driver has no kernels of Cycles yet it compiles them: more than 5
# minutes were seen for OptiX on an L4 and on a Blackwell card, and 10 for CUDA on a card newer than Blender.
KERNEL_SECONDS = 1200
WATCH_SECONDS = 0.2  # how often its memory is looked at
STILL = 0.01  # of one core: a process that computes less than this, and ends no step, stands still
KILL_SECONDS = 30  # within which a killed process is gone
LINE_BYTES = 1 << 20  # no answer is longer
LOG_LINES, LOG_BYTES = 100, 16 << 10  # of what it writes to its standard error, the last is kept
START_TRIES = 3
ROOM_BYTES = 1 << 30  # a mesh with many large textures takes hundreds of megabytes
FILE_BYTES = 4 << 30  # the most that one file of Blender's may hold: 20 million triangles with all their layers
NEW_FOLDER_SECONDS = 60  # so long a folder without an owner may be about to get one


@dataclass(frozen=True, kw_only=True)
class BlenderSettings:
    """How Blender's process is run; nothing here changes what it makes."""

    executable: str | None = None  # a Blender to run instead of the bpy package
    # auto: a GPU where there is one that renders, else the CPU; cpu; or a backend of Cycles (optix, cuda, hip, oneapi), and then
    # nothing else. A GPU's pictures differ from the CPU's by a little noise: VIEWS.device says what made each.
    device: str = "auto"
    # Ray workers that share one GPU. Much of an object's time goes into its import, on the CPU; each takes 1 to 2 GB on the GPU.
    workers_per_gpu: int = 4
    threads: int | None = None  # of one Blender; left out: as many as there are cores, but one where Ray shares them out
    timeout_s: float = 300.0  # wall clock for one object; raise it for rigs of many views, large pictures, many samples
    # So long without the end of a step or a view, and without computing, Blender hangs. One that computes is given until timeout_s:
    # the import or a view of a heavy asset, and a GPU's kernels, may take minutes and say nothing.
    stall_s: float = 60.0
    memory_mb: int = 8192  # memory and files at which an object is given up
    recycle_mb: int = 2048  # memory that Blender still holds after an object, at which it is started anew
    recycle_after: int = 200  # objects after which Blender is started anew: its memory grows
    confine: bool = True  # whether Blender is kept from the rest of the machine; off only to find out whether that is in the way

    def __post_init__(self):
        if self.device not in devices.DEVICES:
            raise ValueError(f"device = {self.device!r}: must be one of {', '.join(devices.DEVICES)}")
        if self.workers_per_gpu < 1:
            raise ValueError(f"workers_per_gpu = {self.workers_per_gpu}: must be 1 or more")

    @property
    def cpus(self) -> int:
        """What one worker takes of a cluster's CPUs."""
        return self.threads or 1

    @property
    def gpus(self) -> float:
        """The part of a GPU that one worker takes of a cluster."""
        return 0 if self.device == "cpu" else 1 / self.workers_per_gpu

    def on_cluster(self, gpus: float) -> "BlenderSettings":
        """The same for the workers of a cluster with so many GPUs, of whose CPUs each takes `threads`. Raises DeviceError."""
        if not gpus and self.device not in ("auto", "cpu"):
            raise devices.DeviceError(
                f'[blender] device = "{self.device}", but Ray knows of no GPU in this cluster: start its nodes with '
                '`ray start --num-gpus N`, or set device = "cpu"'
            )
        return replace(self, device=self.device if gpus else "cpu", threads=self.cpus)


# How Blender's process can be lost with an object in hand, and how often an object is tried before it fails with that reason. A
# crash may be a kill that meant somebody else, so that it takes three.
LOST = {"timeout": 2, "stalled": 2, "out_of_memory": 2, "blender_garbage": 2, "gpu_failed": 2, "blender_crashed": 3}


class _Lost(Exception):
    """Blender's process was lost with an object in hand; `reason`: one of LOST."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


class _DiskFull(Exception):
    """The disk with Blender's folder is full, or too small for the asset."""


class Blender:
    """One warm Blender. Its process dies with the thread that made the first request, however that ends.

    Results lie in a folder on the memory disk (/dev/shm, where there is one) that goes when this is closed; what a killed owner
    left there is swept up by the next one. `ends`: how often its process was ended, by reason: one of LOST, a setting of
    BlenderSettings that says when it is started anew, "between_objects" (it died or chattered unasked), or "disk_full".
    `passed_over`: by device, why it was not taken, when there was a choice.
    """

    def __init__(self, settings: BlenderSettings = BlenderSettings()):  # noqa: B008  (frozen)
        self.settings = settings
        self.ends: Counter[str] = Counter()
        self._devices = devices.candidates(settings.device, devices.gpu_nodes())  # one alone, once Blender is up
        self.passed_over: dict[str, str] = {}
        self._process: subprocess.Popen | None = None
        self._log = b""
        self._settle(_results_root())

    def __enter__(self) -> "Blender":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and removes its files. Closing twice is fine."""
        self._kill()
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1
        self._folder.cleanup()

    def do(self, request: Request) -> tuple[Answer, Path]:
        """Has Blender carry out a request; its answer, and the folder with the files, which the next request empties.

        Blender gets a copy of the asset and its companions, and of these alone.
        Raises ObjectError: what `pipeline.assets.staging` says of the asset, what Blender's side says of it (see
        render.spec.Answer), or, after as many tries in fresh processes as LOST says, one of its reasons.
        Raises NoRoom when there is no disk left to do it on, and RuntimeError when Blender does not start or its side has a bug.
        """
        while True:
            try:
                return self._do(request)
            except _DiskFull:
                self._move()

    def _settle(self, root: Path) -> None:
        """Makes and claims a folder on the disk of `root`."""
        _sweep(root)
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=root, ignore_cleanup_errors=True)
        self._claim = os.open(self._folder.name, os.O_RDONLY)
        fcntl.flock(self._claim, fcntl.LOCK_SH)

    def _move(self) -> None:
        """To the usual place for temporary files, for good, since the memory disk is full. Raises NoRoom when it was there."""
        self._kill("disk_full")
        root, elsewhere = Path(self._folder.name).parent, Path(tempfile.gettempdir())
        self.close()
        if root == elsewhere:
            raise NoRoom(
                f"the disk of {root} is full ({_free_bytes(root) >> 20:,} MB left): Blender needs room there for an asset's copy, "
                "pictures and mesh. Make room, or set TMPDIR to a folder on a larger disk, and run the same command again"
            )
        self._settle(elsewhere)

    def _do(self, request: Request) -> tuple[Answer, Path]:
        copy = Path(self._folder.name, "asset")
        copy.mkdir(exist_ok=True)
        try:
            asset = staged(request.asset, request.format, request.companions, copy)
            answer, folder, attempts = self._persist(replace(request, asset=str(asset), companions=()))
        except ObjectError as error:
            if error.reason == "no_room":
                raise _DiskFull from None
            raise
        finally:
            shutil.rmtree(copy, ignore_errors=True)  # it may fill the memory disk
        if answer.bug:
            raise RuntimeError(f"{request.asset} brought out a fault on Blender's side, to be mended there:\n{answer.bug}")
        if answer.reason:
            raise ObjectError(answer.reason, answer.message, log_tail=self._log_tail(), attempts=attempts)
        return answer, folder

    def _persist(self, request: Request) -> tuple[Answer, Path, int]:
        """Blender's answer, the folder with the files, and the number of tries that it took."""
        attempts = 0
        while True:
            attempts += 1
            try:
                return *self._once(request), attempts
            except _Lost as lost:
                if _free_bytes(self._folder.name) < SPARE_BYTES:  # that kills whoever writes into a mapped file
                    raise _DiskFull from None
                self._kill(lost.reason)
                if attempts >= LOST[lost.reason]:
                    raise ObjectError(lost.reason, lost.message, log_tail=self._log_tail(), attempts=attempts) from None
            except _DiskFull:
                raise
            except BaseException:
                self._kill()  # its answer, should it still come, would be taken for the next one's
                raise

    def _once(self, request: Request) -> tuple[Answer, Path]:
        if self._process is not None and (self._unread or _is_readable(self._process.stdout)):
            self._kill("between_objects")  # it has ended, or something in it chatters: that would be taken for the answer
        if self._process is None:
            self._start()
        self._take_log()
        self._log = b""
        [device] = self._devices
        answer, folder = self._ask(request, device, self.settings)
        if answer.reason == "render_failed" and device != "cpu":
            raise _Lost("gpu_failed", answer.message)  # is it the object's fault, or the GPU's? The next process finds out
        self._served += 1
        if self._served >= self.settings.recycle_after:
            self._kill("recycle_after")
        elif _taken(self._process.pid)[0] > self.settings.recycle_mb:
            self._kill("recycle_mb")
        return answer, folder

    def _ask(self, request: Request, device: str, may: BlenderSettings) -> tuple[Answer, Path]:
        """What Blender, which may take as much as `may` says, makes of a request on a device; and the folder with the files."""
        folder = Path(self._folder.name, "results")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        threads = self.settings.threads or len(os.sched_getaffinity(0))
        request = replace(request, folder=str(folder), device=device, threads=threads)
        watch = _Watch(self._process.pid, self._folder.name, may)
        self._send(request.to_json().encode() + b"\n", watch)
        while isinstance(answer := _understood(self._line(watch)), str):
            watch.reached(answer)
        self._take_log()
        if answer.reason == DISK_FULL:
            raise _DiskFull
        return answer, folder

    def _settle_device(self) -> None:
        """Has Blender render a triangle on each GPU that may do, until one does: its kernels are loaded then, in nobody's time.
        Raises DeviceError when none does and there is no CPU to fall back on."""
        self.passed_over = {}
        patient = replace(self.settings, timeout_s=KERNEL_SECONDS, stall_s=KERNEL_SECONDS)
        for device in self._devices:
            if device != "cpu":
                try:
                    with devices.one_at_a_time(devices.kernel_cache()):
                        answer, _ = self._ask(devices.triangle(Path(self._folder.name)), device, patient)
                except _Lost as lost:
                    raise _Lost(lost.reason, f"{lost.message}, on its first picture by {device} ([blender] device)") from None
                if answer.bug:
                    raise RuntimeError(
                        f"choosing {device} brought out a fault on Blender's side, to be mended there:\n{answer.bug}"
                    )
                if answer.reason:
                    self.passed_over[device] = answer.message
                    if answer.reason != "no_device":
                        warnings.warn(f"{device} is here and does not render: {answer.message}", stacklevel=1)
                    continue
            self._devices = (device,)
            return
        raise devices.no_device(self.settings.device, self.passed_over)

    def _start(self) -> None:
        """Starts Blender; one that is lost before it is up is started again. Raises RuntimeError when it does not come up."""
        for tries in range(1, START_TRIES + 1):
            try:
                return self._start_once()
            except (OSError, _Lost) as error:
                self._kill()
                if tries == START_TRIES or not isinstance(error, _Lost):
                    blender = self.settings.executable or "the bpy package"
                    confined = "confined (confine = true in [blender])" if self.settings.confine else "unconfined"
                    raise RuntimeError(f"Blender ({blender}), {confined}, does not start: {error}\n{self._log_tail()}") from None

    def _start_once(self) -> None:
        self._log, self._unread, self._served = b"", b"", 0
        self._temporary.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=os.environ | self._environment(),
        )
        for pipe in (self._process.stdin, self._process.stderr):
            os.set_blocking(pipe.fileno(), False)
        starting = replace(self.settings, timeout_s=START_SECONDS, stall_s=START_SECONDS)
        watch = _Watch(self._process.pid, self._folder.name, starting)
        while not self._line(watch).startswith(b"{"):
            pass  # a Blender executable greets before it runs our program
        self._settle_device()

    def _command(self) -> list[str]:
        """What runs the worker, confined: of all files of the user's it reads only what lies in this one's own folder."""
        if self.settings.executable:
            executable = shutil.which(self.settings.executable)
            if executable is None:
                raise FileNotFoundError("there is no such program")
            program, home = [executable, "--background", "--factory-startup", "--python"], Path(executable).resolve().parent
        else:
            package = importlib.util.find_spec("bpy")
            program, home = [sys.executable], Path(package.origin).parent if package else sys.prefix
        # Python packages may lie outside its prefix: a user's own, or another environment's.
        packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        libraries = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", "")]
        libraries += os.environ.get("LD_LIBRARY_PATH", "").split(":")
        return confine.command(
            [*program, str(WORKER)],
            readable=[sys.prefix, sys.base_prefix, *packages, str(home), str(WORKER.parent), *filter(os.path.isabs, libraries)],
            listable=[str(WORKER.parent.parent)],  # Python looks there for the package `render`
            writable=[self._folder.name, *([str(devices.kernel_cache())] if self._has_gpu else [])],
            file_bytes=FILE_BYTES,
            confine=self.settings.confine,
        )

    def _environment(self) -> dict[str, str]:
        """Blender has its own threads, numpy inside it needs none; no settings or add-ons of the user's; no litter elsewhere."""
        own = dict.fromkeys(("BLENDER_USER_RESOURCES", *devices.CACHES), self._folder.name)
        if self._has_gpu:
            own |= dict.fromkeys(devices.CACHES, str(devices.kernel_cache())) | devices.environment(os.environ)
        return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(self._temporary)} | own

    @property
    def _has_gpu(self) -> bool:
        return self._devices != ("cpu",)

    def _send(self, line: bytes, watch: "_Watch") -> None:
        """Writes to Blender. Raises _Lost, as `_line`: a pipe takes 64 kB, and one that sleeps reads none."""
        while line:
            watch.look()
            if self._wait(writing=True):
                try:
                    line = line[os.write(self._process.stdin.fileno(), line) :]
                except BrokenPipeError:
                    raise _Lost("blender_crashed", f"Blender ended ({self._end()}) while it was asked") from None

    def _line(self, watch: "_Watch") -> bytes:
        """The next line that Blender writes. Raises _Lost: it ended, the watch has seen enough, or no answer is that long."""
        while True:
            watch.look()
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                return line
            if len(line) > LINE_BYTES:
                raise _Lost(
                    "blender_garbage", f"Blender wrote more than {LINE_BYTES >> 20} MB where an answer is due: {line[:100]!r}"
                )
            if self._wait():
                read = os.read(self._process.stdout.fileno(), 1 << 16)
                if not read:
                    raise _Lost("blender_crashed", f"Blender ended ({self._end()}) in the middle of its work")
                self._unread += read

    def _wait(self, *, writing: bool = False) -> bool:
        """Waits a moment until Blender has said something, or (`writing`) listens, and takes its log meanwhile; whether it has."""
        reads = [] if writing else [self._process.stdout]
        logs = [] if self._process.stderr.closed else [self._process.stderr]
        ready, listens, _ = select.select(reads + logs, [self._process.stdin] if writing else [], [], WATCH_SECONDS)
        if self._process.stderr in ready:
            self._take_log()
        return bool(listens) or self._process.stdout in ready

    def _take_log(self) -> None:
        """Keeps the last of what Blender has written to its standard error, and no more of it, however much that is."""
        if self._process.stderr.closed:
            return
        try:
            read = os.read(self._process.stderr.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not read:
            self._process.stderr.close()
        self._log = (self._log + read)[-LOG_BYTES:]

    def _end(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _kill(self, reason: str | None = None) -> None:
        """Ends the process and all that it started; `reason`: what to count it by in `ends`."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own: whatever it started goes with it
        except ProcessLookupError:
            pass
        try:
            self._process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"Blender (process {self._process.pid}) outlives a kill: it waits for a device or a disk that does not answer. See "
                "what the kernel says (dmesg), mend that, and run the same command again"
            ) from None
        self._take_log()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()
        self._process = None
        shutil.rmtree(self._temporary, ignore_errors=True)
        if reason:
            self.ends[reason] += 1

    @property
    def _temporary(self) -> Path:
        """Where the process puts what it needs for a while."""
        return Path(self._folder.name, "temporary")

    def _log_tail(self) -> str:
        return "\n".join(self._log.decode(errors="replace").splitlines()[-LOG_LINES:])


class _Watch:
    """Sees to it that Blender, with one piece of work in hand, gets on with it and takes no more than it may."""

    def __init__(self, process: int, folder: str, settings: BlenderSettings):
        self._process, self._folder, self._settings = process, folder, settings
        self._began = self._moved = self._looked = time.monotonic()
        self._computed, self._step = 0.0, "start"

    def reached(self, step: str) -> None:
        """Blender says that it has come to this step."""
        self._step, self._moved = step, time.monotonic()

    def look(self) -> None:
        """Looks, but not all the time. Raises _Lost."""
        now = time.monotonic()
        if now - self._looked < WATCH_SECONDS:
            return
        self._looked = now
        may = self._settings
        memory_mb, computed = _taken(self._process)
        if abs(computed - self._computed) > STILL * may.stall_s:  # less when something that it started has ended
            self._moved, self._computed = now, computed
        if now - self._began > may.timeout_s:
            raise _Lost("timeout", f"Blender took longer than {may.timeout_s:g} s; it had come to: {self._step}")
        if now - self._moved > may.stall_s:
            raise _Lost("stalled", f"Blender did nothing for {may.stall_s:g} s; it had come to: {self._step}")
        if memory_mb + _files_mb(self._folder) > may.memory_mb:
            at = f"it had come to: {self._step}"
            raise _Lost("out_of_memory", f"Blender took more than {may.memory_mb} MB of memory and files; {at}")


def _understood(line: bytes) -> Answer | str:
    """An answer, or the step that begins. Raises _Lost for what is neither."""
    try:
        said = json.loads(line)
        return said["step"] if "step" in said.keys() else Answer.from_json(line)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _Lost("blender_garbage", f"something in Blender writes where answers are due: {line[:100]!r}") from None


def _is_readable(pipe: IO[bytes]) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def _free_bytes(folder: str | Path) -> int:
    return shutil.disk_usage(folder).free


def _files_mb(top: str) -> float:
    """What lies in a folder, which is memory too where that is on the memory disk."""
    blocks = 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                blocks += os.lstat(os.path.join(folder, name)).st_blocks
            except FileNotFoundError:  # gone since it was listed
                pass
    return blocks * 512 / 2**20


def _taken(pid: int) -> tuple[float, float]:
    """Memory (MB, resident) and CPU time (seconds) that a process and what it started have taken. From its own entries in /proc:
    the whole list takes long on a large machine."""
    try:
        children = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
        process = psutil.Process(pid)
        own = process.memory_info().rss / 2**20, sum(process.cpu_times()[:4])  # its own and its ended children's
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    return tuple(map(sum, zip(own, *map(_taken, children), strict=True)))


def _results_root() -> Path:
    """The memory disk if there is one with room (containers often have 64 MB), else the usual place for temporary files."""
    roomy = os.access(MEMORY_DISK, os.W_OK) and shutil.disk_usage(MEMORY_DISK).free > ROOM_BYTES
    return MEMORY_DISK if roomy else Path(tempfile.gettempdir())


def _sweep(root: Path) -> None:
    """Removes folders whose owner is gone: it held a lock on the folder, which ends with its process."""
    for folder in root.glob(FOLDER_PREFIX + "*"):
        try:
            if time.time() - folder.stat().st_mtime < NEW_FOLDER_SECONDS:
                continue
            handle = os.open(folder, os.O_RDONLY)
        except (FileNotFoundError, PermissionError):
            continue  # swept by another, or another user's
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)
