"""What this machine has for tricorpus, what is missing, and what to do about it."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import trimesh

from jobs.system_libraries import DEBIAN_PACKAGES, install_command, missing
from pipeline.stage import ObjectError
from render import confine, devices
from render.blender import Blender, BlenderSettings
from render.eevee import gpu_of_eevee

OK, NOTE, MISSING = "ok", "note", "missing"
REINSTALL = "make env"
TINY_TEACHER = "tricorpus-tiny:shapes-v1"  # as in pipeline.weights, whose import takes seconds
LIMIT = 120  # seconds for one child process; a cold file system is slow
AMD_DRIVER = Path("/sys/module/amdgpu/version")  # of the driver that AMD gives out; the kernel's own has none
TIGHT_DISK = 20 << 30
TIGHT_SHARED_MEMORY = 1 << 30

_TORCH = """
import json, torch
cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
print(json.dumps({"threads": torch.get_num_threads(), "built_for": torch.version.cuda,
                  "cards": [{"name": card.name, "bytes": card.total_memory} for card in cards]}))
"""

_TEACHERS = """
import json, open_clip
from pipeline.model import need_text_files
from pipeline.weights import TINY_TEACHER, WeightsMissing, find_weights
here, lacking = [], {}
for teacher in [TINY_TEACHER, *(":".join(pair) for pair in open_clip.list_pretrained())]:
    try:
        find_weights(teacher)
        try:
            need_text_files(teacher)
            here.append(teacher)
        except WeightsMissing as error:
            lacking[teacher] = str(error)
    except WeightsMissing:  # most are not here
        pass
print(json.dumps([here, lacking]))
"""


@dataclass(frozen=True)
class Job:
    """What this machine has, what is missing, and what to do about it."""

    json: bool = False  # the same facts as JSON
    # A Blender to look at instead of the package bpy: what `executable` in [blender] of the settings names.
    executable: str | None = None


@dataclass(frozen=True)
class Fact:
    """One thing looked at. `status`: ok, note (the pipeline runs without it) or missing (it does not)."""

    name: str
    status: str
    found: str
    todo: str | None = None


def main(job: Job) -> int:
    """Print the facts; 0 when the pipeline can run on this machine, 1 when something it needs is missing."""
    text, code = report(look(job.executable), as_json=job.json)
    print(text)
    return code


def report(facts: list[Fact], *, as_json: bool) -> tuple[str, int]:
    """What is printed, and the exit code."""
    can_run = all(fact.status != MISSING for fact in facts)
    if as_json:
        text = json.dumps({"can_run": can_run, "facts": [asdict(fact) for fact in facts]}, indent=2, ensure_ascii=False)
    else:
        end = "The pipeline can run here." if can_run else "The pipeline cannot run here: see the lines marked missing."
        text = f"{table(facts)}\n\n{end}"
    return text, 0 if can_run else 1


def look(executable: str | None = None) -> list[Fact]:
    """All facts, in reading order. What could crash or take long is tried in child processes, a few at a time."""
    looks: list[Callable[[], list[Fact]]] = [
        _python,
        _system_libraries,
        lambda: _blender(executable),
        _torch,
        *(lambda package=package, module=module: [_package(package, module)] for package, module in _PACKAGES.items()),
        _ray,
        _machine,
        _protocols,
        _weights,
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return [fact for found in pool.map(lambda one: one(), looks) for fact in found]


def table(facts: list[Fact]) -> str:
    """The facts as aligned lines; what to do stands below its fact."""
    name, status = (max(len(getattr(fact, column)) for fact in facts) for column in ("name", "status"))
    lines = []
    for fact in facts:
        lines.append(f"{fact.name:<{name}}  {fact.status:<{status}}  {fact.found}")
        if fact.todo:
            lines.append(f"{'':<{name + status + 4}}-> {fact.todo}")
    return "\n".join(lines)


_PACKAGES = {"open_clip_torch": "open_clip", "open3d": "open3d", "pylance": "lance", "ray": "ray"}


def _python() -> list[Fact]:
    right = sys.version_info[:2] == (3, 11)
    todo = None if right else f"Blender's package bpy needs Python 3.11: {REINSTALL}"
    return [Fact("Python", OK if right else MISSING, f"{platform.python_version()} ({sys.executable})", todo)]


def _system_libraries() -> list[Fact]:
    lacking = missing()
    if not lacking:
        return [Fact("system libraries", OK, f"all {len(DEBIAN_PACKAGES)} that Blender and Open3D load")]
    return [Fact("system libraries", MISSING, f"not found: {' '.join(lacking)}", f"as root: {install_command(lacking)}")]


def _blender(executable: str | None) -> list[Fact]:
    ball = trimesh.creation.icosphere(subdivisions=2)
    name, todo = (
        (executable, f"give another --executable than {executable}") if executable else (f"bpy {_version('bpy')}", REINSTALL)
    )
    with tempfile.TemporaryDirectory() as folder:
        draco_glb = Path(folder) / "draco.glb"
        draco_glb.write_bytes(ball.export(file_type="glb", extension_draco=True))
        output, error = _run(_facts_command(executable, draco_glb))
    if output is None:
        return [Fact("Blender", MISSING, f"{name} does not start: {error}", todo)]
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:  # a Blender executable ends well also when its program does not
        return [Fact("Blender", MISSING, f"{name} says nothing of itself: {' '.join(output.split())[-300:]}", todo)]
    found = json.loads(lines[-1])
    whole = found["draco_triangles"] == len(ball.faces)
    return [
        Fact("Blender", OK, f"{found['version']}, in a process of its own"),
        *_rendering(found, executable, devices.gpu_nodes()),
        Fact(
            "Draco in Blender",
            OK if whole else MISSING,
            f"{found['draco_triangles']} of {len(ball.faces)} triangles decoded",
            None if whole else f"compressed glTF files would fail: {todo}",
        ),
        _landlock(confine.version()),
    ]


def _facts_command(executable: str | None, draco_glb: Path) -> list[str]:
    if executable is None:
        return [sys.executable, "-m", "render.blender_facts", str(draco_glb)]
    program = Path(__file__).parents[1] / "render" / "blender_facts.py"
    return [executable, "--background", "--factory-startup", "--python", str(program), "--", str(draco_glb)]


def _rendering(found: dict, executable: str | None, nodes: list[str]) -> list[Fact]:
    """What renders here, by what Blender says (`found`, of render.blender_facts) and, where GPUs have device files, does."""
    if not nodes:
        looked = f"no GPU: none of {', '.join(f'/dev/{node}' for node in devices.NODES)}"
        return [
            Fact("Cycles devices", NOTE, f"CPU only; {looked}"),
            Fact("EEVEE", NOTE, 'refused: it needs a GPU; engine = "cycles" does not'),
        ]
    settings = BlenderSettings(executable=executable)
    return [_driver(nodes), _cycles(found, settings), _eevee(settings)]


def _driver(nodes: list[str]) -> Fact:
    name, found = "GPU driver", f"unknown; device files: {' '.join(nodes)}"
    if shutil.which("nvidia-smi"):
        output, error = _run(["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"])
        if output is None:
            return Fact(name, NOTE, f"nvidia-smi: {error}", "mend the driver, or start the container with --gpus all")
        found = "; ".join(output.strip().splitlines())
    elif AMD_DRIVER.exists():
        found = f"amdgpu {AMD_DRIVER.read_text().strip()}"
    if any(node.startswith("/dev/nvidia") for node in nodes) and not Path("/dev/nvidia-uvm").exists():
        return Fact(
            name, NOTE, f"{found}; no /dev/nvidia-uvm", "as root, once after each start of the machine: nvidia-modprobe -u -c=0"
        )
    return Fact(name, OK, found)


def _cycles(found: dict, settings: BlenderSettings) -> Fact:
    """Which device renders: the one that Blender settles on, having rendered a triangle on it. This loads its kernels as well."""
    name = "Cycles devices"
    seen = ", ".join(f"{gpu['name']} ({gpu['backend']})" for gpu in found["gpus"]) or "none"
    kernels = "; ".join(f"{backend} {' '.join(archs)}" for backend, archs in found["kernels"].items() if archs)
    try:
        with tempfile.TemporaryDirectory() as folder, Blender(settings) as blender:
            answer, _ = blender.do(devices.triangle(Path(folder)))
    except (RuntimeError, ObjectError, devices.DeviceError) as error:
        return Fact(name, NOTE, f"seen: {seen}; {error}", 'with device = "cpu" in [blender], GPUs are left alone')
    if answer.device == "CPU":
        reasons = "; ".join(f"{device}: {why}" for device, why in blender.passed_over.items())
        todo = (
            "compare the driver with what Blender needs (https://docs.blender.org/manual/en/4.5/render/cycles/gpu_rendering.html)"
        )
        return Fact(
            name, NOTE, f"CPU only; seen: {seen}; {reasons or 'none renders'}; this Blender has kernels for {kernels}", todo
        )
    backend = answer.device.partition(":")[0]
    cards = sum(gpu["backend"] == backend for gpu in found["gpus"])
    workers = cards * settings.workers_per_gpu
    return Fact(
        name, OK, f"{answer.device} renders; seen: {seen}; room for {workers} render workers, {settings.workers_per_gpu} to a GPU"
    )


def _eevee(settings: BlenderSettings) -> Fact:
    try:
        return Fact("EEVEE", OK, gpu_of_eevee(settings))
    except devices.DeviceError as error:
        why, _, todo = str(error).rpartition("\n")
        return Fact("EEVEE", NOTE, f"refused: {why}", todo)


def _landlock(version: int) -> Fact:
    found = f"version {version} in this kernel" if version else "none in this kernel"
    if version >= 4:
        return Fact("Landlock", OK, f"{found}: Blender reads only its own copy of an asset, and makes no connection")
    todo = "for assets that nobody vouches for, use Linux 6.7 or later with Landlock turned on"
    what = "may make connections" if version else "may read what you may read, and make connections"
    return Fact("Landlock", NOTE, f"{found}: Blender {what}", todo)


def _torch() -> list[Fact]:
    output, error = _child("-c", _TORCH)
    if output is None:
        return [Fact("torch", MISSING, f"{_version('torch')} cannot be imported: {error}", REINSTALL)]
    found = json.loads(output)
    cards = ", ".join(f"{card['name']} ({_gib(card['bytes'])})" for card in found["cards"])
    device = cards or f"CPU, {found['threads']} threads"
    facts = [Fact("torch", OK, f"{_version('torch')}, torchvision {_version('torchvision')}"), Fact("torch device", OK, device)]
    if not cards and found["built_for"] and shutil.which("nvidia-smi"):
        todo = f"torch is built for CUDA {found['built_for']}: compare with the driver's CUDA version in nvidia-smi"
        facts[1] = Fact("torch device", NOTE, f"{device}; nvidia-smi is here, but torch sees no card", todo)
    return facts


def _package(package: str, module: str) -> Fact:
    output, error = _child("-c", f"import {module}")
    if output is None:
        return Fact(package, MISSING, f"{_version(package)} cannot be imported: {error}", REINSTALL)
    return Fact(package, OK, _version(package))


def _ray() -> list[Fact]:
    current = Path("/tmp/ray/ray_current_cluster")  # where a cluster started by `ray start` on this machine leaves its address
    if address := os.environ.get("RAY_ADDRESS"):
        found = f"{address} (RAY_ADDRESS)"
    elif current.exists():
        found = f"{current.read_text().strip()} (started on this machine)"
    else:
        found = "none: jobs start workers on this machine unless given --address"
    return [Fact("Ray cluster", NOTE, found)]


def _machine() -> list[Fact]:
    memory = psutil.virtual_memory()
    here, shared = shutil.disk_usage("."), shutil.disk_usage("/dev/shm")
    return [
        Fact("CPU cores", OK, f"{len(os.sched_getaffinity(0))} for this process, {os.cpu_count()} in all"),
        Fact("memory", OK, f"{_gib(memory.available)} free of {_gib(memory.total)}"),
        _space(
            "disk here",
            here.free,
            TIGHT_DISK,
            "put the corpus where there is more room: the views of many objects are large",
        ),
        _space(
            "/dev/shm", shared.free, TIGHT_SHARED_MEMORY, "Ray keeps its objects here: start the container with a larger --shm-size"
        ),
    ]


def _space(name: str, free: int, tight: int, todo: str) -> Fact:
    return Fact(name, NOTE, f"only {_gib(free)} free", todo) if free < tight else Fact(name, OK, f"{_gib(free)} free")


def _protocols() -> list[Fact]:
    """Which remote places can be named in URIs; the packages for others are no part of the environment."""
    usable, lacking = [], []
    for protocol, package in {"http": "aiohttp", "hf": "huggingface_hub", "s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}.items():
        (usable if importlib.util.find_spec(package) else lacking).append((f"{protocol}://", package))
    found = " ".join(protocol for protocol, _ in usable)
    todo = ", ".join(f"{protocol} comes with {package}" for protocol, package in lacking)
    return [Fact("remote places", OK, f"{found}; {todo}" if todo else found)]


def _weights() -> list[Fact]:
    output, error = _child("-c", _TEACHERS)
    if output is None:
        return [Fact("teacher weights", MISSING, f"cannot be looked for: {error}", REINSTALL)]
    here, lacking = json.loads(output)
    incomplete = [Fact("teacher weights", NOTE, f"{teacher}, but not all it needs", why) for teacher, why in lacking.items()]
    if others := [teacher for teacher in here if teacher != TINY_TEACHER]:
        return [Fact("teacher weights", OK, ", ".join(others)), *incomplete]
    found = f"only {TINY_TEACHER}, which knows simple shapes" if here else "none"
    todo = "`python -m jobs embed ROOT --teacher NAME` says which file a teacher needs, and where"
    return [Fact("teacher weights", NOTE, found, todo), *incomplete]


def _child(*arguments: str) -> tuple[str | None, str]:
    """Standard output of a Python process, or None and why it did not end well."""
    return _run([sys.executable, *arguments])


def _run(command: list[str]) -> tuple[str | None, str]:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {LIMIT} s"
    except OSError as error:
        return None, f"{command[0]}: {error.strerror}"
    if ended.returncode < 0:
        return None, f"killed by signal {-ended.returncode}"
    if ended.returncode > 0:
        return None, (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    return ended.stdout, ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
