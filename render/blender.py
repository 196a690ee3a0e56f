"""Blender from outside: a warm process of its own that makes pictures and meshes. A crash, a hang or a leak costs one object.

with Blender(BlenderSettings(threads=2)) as blender:
    answer, folder = blender.do(Request(asset="chair.glb", format="glb", mesh=True))
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
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pipeline.assets.staging import staged
from pipeline.stage import ObjectError
from render import confine
from render.spec import Answer, Request

WORKER = Path(__file__).with_name("blender_worker.py")
MEMORY_DISK = Path("/dev/shm")
FOLDER_PREFIX = "tricorpus-blender-"

START_SECONDS = 120  # within which Blender must be up; it takes 1 to 3 on an idle machine
WATCH_SECONDS = 0.2  # how often its memory is looked at
LOG_TAIL_LINES = 50
TRIES = 3
ROOM_BYTES = 1 << 30  # a mesh with many large textures takes hundreds of megabytes
FILE_BYTES = 4 << 30  # the most that one file of Blender's may hold: 20 million triangles with all their layers
NEW_FOLDER_SECONDS = 60  # so long a folder without an owner may be about to get one


@dataclass(frozen=True, kw_only=True)
class BlenderSettings:
    """How Blender's process is run; nothing here changes what it makes."""

    executable: str | None = None  # a Blender to run instead of the bpy package
    threads: int = 2  # rendering threads of one Blender
    timeout_s: float = 300.0  # wall clock for one object
    memory_mb: int = 8192  # memory and files at which an object is given up; half as much memory, and Blender is started anew
    recycle_after: int = 200  # objects after which Blender is started anew: its memory grows
    confine: bool = True  # whether Blender is kept from the rest of the machine; off only to find out whether that is in the way


LOST = frozenset({"timeout", "out_of_memory", "blender_crashed"})


class _Lost(Exception):
    """Blender's process was lost with an object in hand; `reason`: one of LOST."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


class Blender:
    """One warm Blender. Its process dies with the thread that made the first request, however that ends.

    Results lie in a folder on the memory disk (/dev/shm, where there is one) that goes when this is closed; what a killed owner
    left there is swept up by the next one.
    """

    def __init__(self, settings: BlenderSettings = BlenderSettings()):  # noqa: B008  (frozen)
        self.settings = settings
        _sweep(_results_root())
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=_results_root(), ignore_cleanup_errors=True)
        self._claim = os.open(self._folder.name, os.O_RDONLY)
        fcntl.flock(self._claim, fcntl.LOCK_SH)
        self._process: subprocess.Popen | None = None
        self._served = 0

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
        render.spec.Answer), or, after another try in a fresh process, "timeout" or "out_of_memory", or after two more
        "blender_crashed": a crash may be a kill that meant somebody else.
        Raises RuntimeError when Blender does not start or its side has a bug.
        """
        copy = Path(self._folder.name, "asset")
        copy.mkdir(exist_ok=True)
        try:
            asset = staged(request.asset, request.format, request.companions, copy)
            answer, folder, attempts = self._persist(replace(request, asset=str(asset), companions=()))
        finally:
            shutil.rmtree(copy, ignore_errors=True)  # it may fill the memory disk
        if answer.bug:
            raise RuntimeError(f"{request.asset} brought out a fault on Blender's side, to be mended there:\n{answer.bug}")
        if answer.reason:
            raise ObjectError(answer.reason, answer.message, log_tail=self._log_tail(), attempts=attempts)
        return answer, folder

    def _persist(self, request: Request) -> tuple[Answer, Path, int]:
        """Blender's answer, the folder with the files, and the number of tries that it took."""
        for attempts in range(1, TRIES + 1):
            try:
                return *self._once(request), attempts
            except _Lost as lost:
                log_tail = self._log_tail()
                self._kill()
                if attempts == TRIES or (attempts == 2 and lost.reason != "blender_crashed"):
                    raise ObjectError(lost.reason, lost.message, log_tail=log_tail, attempts=attempts) from None
            except BaseException:
                self._kill()  # its answer, should it still come, would be taken for the next one's
                raise

    def _once(self, request: Request) -> tuple[Answer, Path]:
        if self._process is None:
            self._start()
        os.truncate(self._log, 0)
        folder = Path(self._folder.name, "results")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        request = replace(request, folder=str(folder), threads=self.settings.threads)
        try:
            self._process.stdin.write(request.to_json().encode() + b"\n")
        except BrokenPipeError:
            raise _Lost("blender_crashed", f"Blender had ended ({self._end()}) before it was asked") from None
        line = self._line(self.settings.timeout_s)
        while "step" in json.loads(line):
            line = self._line(self.settings.timeout_s)
        answer = Answer.from_json(line)
        self._served += 1
        if self._served >= self.settings.recycle_after or self._memory_mb() > self.settings.memory_mb / 2:
            self._kill()
        return answer, folder

    def _start(self) -> None:
        """Starts Blender; one that ends before it is up is started again. Raises RuntimeError when it does not come up."""
        for tries in range(1, TRIES + 1):
            try:
                return self._start_once()
            except (OSError, _Lost) as error:
                log_tail = self._log_tail()
                self._kill()
                if tries == TRIES or not isinstance(error, _Lost) or error.reason != "blender_crashed":
                    blender = self.settings.executable or "the bpy package"
                    confined = "confined (confine = true in [blender])" if self.settings.confine else "unconfined"
                    raise RuntimeError(f"Blender ({blender}), {confined}, does not start: {error}\n{log_tail}") from None

    def _start_once(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
                env=os.environ | self._environment(),
            )
        self._served, self._unread = 0, b""
        while not self._line(START_SECONDS).startswith("{"):
            pass  # a Blender executable greets before it runs our program

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
            writable=[self._folder.name],
            file_bytes=FILE_BYTES,
            confine=self.settings.confine,
        )

    def _environment(self) -> dict[str, str]:
        """Blender has its own threads, numpy inside it needs none; no settings or add-ons of the user's; no litter elsewhere."""
        folder = self._folder.name
        places = ("BLENDER_USER_RESOURCES", "TMPDIR", "XDG_CACHE_HOME", "CUDA_CACHE_PATH", "OPTIX_CACHE_PATH")
        return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | dict.fromkeys(places, folder)

    def _line(self, seconds: float) -> str:
        """The next line that Blender writes. Raises _Lost when it ends, says nothing for so long, or takes too much memory."""
        end = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = end - time.monotonic()
            if left <= 0:
                raise _Lost("timeout", f"Blender took longer than {seconds:g} s")
            if select.select([self._process.stdout], [], [], min(left, WATCH_SECONDS))[0]:
                read = os.read(self._process.stdout.fileno(), 1 << 16)
                if not read:
                    raise _Lost("blender_crashed", f"Blender ended ({self._end()}) in the middle of its work")
                self._unread += read
            elif self._memory_mb() + self._files_mb() > self.settings.memory_mb:
                raise _Lost("out_of_memory", f"Blender took more than {self.settings.memory_mb} MB of memory and files")
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _memory_mb(self) -> float:
        return _resident_bytes(self._process.pid) / 2**20

    def _files_mb(self) -> float:
        """What lies in this one's folder, which is memory too where that is on the memory disk."""
        blocks = 0
        for folder, _, names in os.walk(self._folder.name):
            for name in names:
                try:
                    blocks += os.lstat(os.path.join(folder, name)).st_blocks
                except FileNotFoundError:  # gone since it was listed
                    pass
        return blocks * 512 / 2**20

    def _end(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _kill(self) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own: whatever it started goes with it
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    @property
    def _log(self) -> Path:
        return Path(self._folder.name, "log")

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def _resident_bytes(pid: int) -> int:
    """Memory of a process and of what it started. From its own entries in /proc: the whole list takes long on a large machine."""
    try:
        children = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
        return psutil.Process(pid).memory_info().rss + sum(map(_resident_bytes, children))
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return 0


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
