import fcntl
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from jobs.__main__ import main
from pipeline import on_ray
from pipeline.on_ray import OnRay
from pipeline.run import run
from pipeline.stage import ObjectError, Single
from pipeline.store import Corpus
from render import devices
from render.blender import Blender, BlenderSettings
from render.devices import DeviceError, candidates, environment, gpu_nodes, triangle, use_one
from render.views import read_pictures
from shout import Shout, texts

# ------------------------------------------------------------------------------------------------------------------ plain values


@pytest.mark.parametrize(
    ("given", "sees"),
    [
        ({}, ("0", "0", "level_zero:0")),
        ({"CUDA_VISIBLE_DEVICES": "3"}, ("3", "0", "level_zero:0")),  # what Ray gives a worker
        ({"CUDA_VISIBLE_DEVICES": "5,2"}, ("5", "0", "level_zero:0")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,GPU-1"}, ("GPU-8932f937", "0", "level_zero:0")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("", "0", "level_zero:0")),  # none: a person said so
        ({"HIP_VISIBLE_DEVICES": "1,2"}, ("0", "1", "level_zero:0")),
        ({"ONEAPI_DEVICE_SELECTOR": "level_zero:1,2"}, ("0", "0", "level_zero:1")),
    ],
)
def test_a_worker_sees_the_first_gpu_of_those_that_it_was_given_and_no_other(given, sees):
    assert tuple(environment(given | {"PATH": "/bin"}).values()) == sees
    assert list(environment(given)) == ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR"]


def test_what_is_asked_for_is_all_that_is_tried_and_auto_tries_gpus_only_where_there_are_any():
    assert [candidates(device, ["/dev/nvidia0"]) for device in ("cpu", "optix")] == [("cpu",), ("optix",)]
    assert candidates("optix", []) == ("optix",)
    assert candidates("auto", []) == ("cpu",)
    assert candidates("auto", ["/dev/kfd"]) == ("optix", "cuda", "hip", "oneapi", "metal", "cpu")


def test_gpus_are_told_by_their_device_files(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "kfd", "dri/card0", "dri/renderD128", "null", "dxg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(Path(path).relative_to(tmp_path)) for path in gpu_nodes(tmp_path)]
    assert found == ["dri/renderD128", "dxg", "kfd", "nvidia0", "nvidia1"]
    assert gpu_nodes(tmp_path / "dri") == []


def cycles_devices() -> list[SimpleNamespace]:
    """Two cards as Cycles lists them, everything turned on: as it comes (all but the CPU), and the CPU."""
    cards = [("CUDA", "H200", 0), ("CUDA", "H200", 1), ("CPU", "EPYC", 0), ("OPTIX", "H200", 0), ("OPTIX", "H200", 1)]
    return [SimpleNamespace(type=type, name=name, id=f"{type}_{name}_{number}", use=True) for type, name, number in cards]


@pytest.mark.parametrize(("backend", "id"), [("optix", "OPTIX_H200_0"), ("cuda", "CUDA_H200_0")])
def test_of_all_that_cycles_finds_exactly_one_device_is_used(backend, id):
    found = cycles_devices()
    assert use_one(found, backend).id == id
    assert [one.id for one in found if one.use] == [id]


def test_without_a_device_of_the_backend_none_is_used_not_even_the_cpu():
    found = cycles_devices()
    assert use_one(found, "hip") is None
    assert not any(one.use for one in found)


@pytest.mark.parametrize(
    ("renderer", "is_it"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("Google SwiftShader", True),
        ("softpipe", True),
        ("NVIDIA H200/PCIe/SSE2", False),
        ("AMD Radeon PRO W7900 (radeonsi, navi31, LLVM 17.0.6, DRM 3.54)", False),
        ("Mesa Intel(R) Arc(tm) A770 Graphics (DG2)", False),
    ],
)
def test_opengl_without_a_gpu_is_known_by_name(renderer, is_it):
    assert devices.is_software(renderer) == is_it


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "gpu"}, "device = 'gpu': must be one of auto, cpu, optix, cuda, hip, oneapi, metal"),
        ({"workers_per_gpu": 0}, "workers_per_gpu = 0: must be 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        BlenderSettings(**changes)


# ------------------------------------------------------------------------------------------------------------------ kernels


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(devices, "CACHES_ROOT", tmp_path / "var")
    devices.CACHES_ROOT.mkdir()
    return devices.CACHES_ROOT


def test_kernels_are_kept_in_a_folder_that_is_the_users_alone(caches):
    folder = devices.kernel_cache()
    assert folder.parent == caches and folder.stat().st_mode & 0o777 == 0o700
    (folder / "kernel").touch()
    assert devices.kernel_cache() == folder and (folder / "kernel").exists()


def test_a_folder_of_kernels_that_somebody_else_laid_out_is_refused(caches, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (caches / f"tricorpus-kernels-{os.getuid()}").symlink_to(theirs)
    with pytest.raises(DeviceError, match="another user's or a link: remove it"):
        devices.kernel_cache()


def test_one_process_at_a_time_compiles_kernels(caches):
    folder = devices.kernel_cache()
    with devices.one_at_a_time(folder), open(folder / "lock") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with open(folder / "lock") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


# ------------------------------------------------------------------------------------ a program that stands in for Blender on a GPU

# Notes what it is asked and what it sees. Renders on the backends of `gpus`; a file `broken` beside it breaks the GPU. An asset
# that says so cannot be rendered.
STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path

here = Path(__file__).parent
log = (here / "log").open("a")
log.write(json.dumps(["start", *(os.environ.get(name) for name in {names})]) + "\\n")
print("{{}}", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    log.write(json.dumps(["ask", Path(request["asset"]).name, request["device"], request["threads"]]) + "\\n")
    log.flush()
    answer = {{"device": request["device"].upper() + ": stand-in"}}
    if request["device"] not in ("cpu", *{gpus}):
        answer = {{"reason": "no_device", "message": "Cycles finds no GPU for " + request["device"].upper()}}
    elif (here / "broken").exists() or "cannot be rendered" in Path(request["asset"]).read_text():
        answer = {{"reason": "render_failed", "message": "an illegal memory access was encountered"}}
    print(json.dumps(answer), flush=True)
"""
SEEN = ("CUDA_VISIBLE_DEVICES", "OPTIX_CACHE_PATH", "CUDA_CACHE_PATH", "XDG_CACHE_HOME")


@pytest.fixture
def stand_in(tmp_path, caches, monkeypatch):
    """Makes the settings for a Blender of which some backends have a GPU, on a machine that has device files of GPUs."""
    monkeypatch.setattr(devices, "NODES", ("null",))

    def make(*gpus: str, **settings) -> BlenderSettings:
        program = tmp_path / "blender"
        program.write_text(STAND_IN.format(python=sys.executable, names=SEEN, gpus=gpus))
        program.chmod(0o755)
        return BlenderSettings(executable=str(program), confine=False, **settings)

    return make


def log_of(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def thing(folder: Path, text: str = ""):
    """A request for an asset that the stand-in renders, unless its text says that it cannot be."""
    request = triangle(folder)
    asset = Path(request.asset).rename(folder / "thing.obj")
    asset.write_text(f"# {text}\n{devices.TRIANGLE}")
    return replace(request, asset=str(asset))


def test_auto_takes_the_first_backend_that_renders_and_stays_with_it(stand_in, tmp_path):
    with Blender(stand_in("cuda", "hip", recycle_after=2, threads=3)) as blender:
        used = [blender.do(thing(tmp_path))[0].device for _ in range(3)]
    assert used == ["CUDA: stand-in"] * 3
    told = [line[1:] for line in log_of(tmp_path) if line[0] == "ask"]
    first = [["triangle.obj", "optix", 3], ["triangle.obj", "cuda", 3]]
    assert told == [
        *first,
        ["asset.obj", "cuda", 3],
        ["asset.obj", "cuda", 3],
        ["triangle.obj", "cuda", 3],
        ["asset.obj", "cuda", 3],
    ]


def test_auto_takes_the_cpu_when_no_gpu_renders_and_says_why(stand_in, tmp_path):
    (tmp_path / "broken").touch()
    settings = stand_in("hip")
    with Blender(settings) as blender, pytest.warns(UserWarning, match="hip is here and does not render: an illegal memory"):
        blender._start()
        (tmp_path / "broken").unlink()
        assert blender.do(thing(tmp_path))[0].device == "CPU: stand-in"
        assert blender.passed_over["optix"] == "Cycles finds no GPU for OPTIX"


def test_a_gpu_that_was_asked_for_and_is_not_there_stops_the_run_with_a_sentence(stand_in, tmp_path):
    says = r'device = "optix" does not render here \(optix: Cycles finds no GPU for OPTIX\).*doctor.*device = "cpu" needs no GPU'
    with Blender(stand_in("cuda", device="optix")) as blender, pytest.raises(DeviceError, match=says):
        blender.do(thing(tmp_path))


def test_a_blender_on_a_gpu_sees_that_one_alone_and_the_kernels_of_the_machine(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    with Blender(stand_in("cuda")) as blender:
        blender.do(thing(tmp_path))
    kept = str(devices.kernel_cache())
    assert log_of(tmp_path)[0] == ["start", "2", kept, kept, kept]


def test_a_blender_on_the_cpu_is_told_nothing_of_gpus_and_keeps_no_kernels(stand_in, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with Blender(stand_in("cuda", device="cpu")) as blender:
        blender.do(thing(tmp_path))
        own = blender._folder.name
    assert log_of(tmp_path)[0] == ["start", None, own, own, own]
    assert [line[1] for line in log_of(tmp_path)[1:]] == ["asset.obj"]
    assert not list(devices.CACHES_ROOT.iterdir())


def test_an_object_that_a_gpu_cannot_render_is_tried_in_a_fresh_process_and_fails_alone(stand_in, tmp_path):
    with Blender(stand_in("cuda", device="cuda")) as blender:
        with pytest.raises(ObjectError, match="illegal memory access") as error:
            blender.do(thing(tmp_path, "cannot be rendered"))
        assert (error.value.reason, error.value.attempts) == ("gpu_failed", 2)
        blender.do(thing(tmp_path))
    assert sum(line[0] == "start" for line in log_of(tmp_path)) == 3


def test_a_gpu_that_breaks_in_the_middle_of_a_run_stops_it_and_no_object_is_blamed(stand_in, tmp_path):
    with Blender(stand_in("cuda")) as blender:
        blender.do(thing(tmp_path))
        (tmp_path / "broken").touch()
        with pytest.warns(UserWarning), pytest.raises(DeviceError, match="cuda: an illegal memory access"):
            blender.do(thing(tmp_path))


def test_threads_are_all_cores_unless_told(stand_in, tmp_path):
    with Blender(stand_in(device="cpu")) as blender:
        blender.do(thing(tmp_path))
    assert log_of(tmp_path)[-1][3] == len(os.sched_getaffinity(0))


# ------------------------------------------------------------------------------------------------------------------ Blender itself


@pytest.mark.skipif(bool(gpu_nodes()), reason="this machine has a GPU, which auto takes")
def test_auto_without_a_gpu_is_the_cpu_to_the_pixel(tmp_path):
    pictures = []
    for device in ("auto", "cpu"):
        with Blender(BlenderSettings(device=device)) as blender:
            answer, folder = blender.do(triangle(tmp_path))
            pictures.append(read_pictures(folder, 1)[0])
            assert answer.device == "CPU"
    np.testing.assert_array_equal(*pictures)
    assert (pictures[0][16, 16] > 0).all()


def test_blender_itself_says_that_it_finds_no_such_gpu_and_auto_passes_over_it(tmp_path, caches, monkeypatch):
    with Blender(BlenderSettings(device="metal")) as blender, pytest.raises(DeviceError, match="built without METAL; it has CUDA"):
        blender.do(triangle(tmp_path))
    monkeypatch.setattr(devices, "NODES", ("null",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(devices, "BACKENDS", ("optix", "cuda"))
    with Blender() as blender:
        assert blender.do(triangle(tmp_path))[0].device == "CPU"
        assert blender.passed_over == {"optix": "Cycles finds no GPU for OPTIX", "cuda": "Cycles finds no GPU for CUDA"}
    assert {path.name for path in devices.kernel_cache().iterdir()} > {"lock"}  # Blender, confined, could write there


def test_a_blender_executable_settles_on_its_device_as_well(tmp_path, caches):
    program = tmp_path / "blender"
    program.write_text(
        '#!/bin/sh\necho "Blender 4.5.15 LTS"\n[ "$1 $2 $3" = "--background --factory-startup --python" ] || exit 1\n'
        f'shift 3\nexec {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    with (
        Blender(BlenderSettings(executable=str(program), device="metal")) as blender,
        pytest.raises(DeviceError, match="metal: this"),
    ):
        blender.do(triangle(tmp_path))


def test_a_job_says_so_in_a_sentence_and_records_no_failure(tmp_path, caches, capsys):
    root, settings = str(tmp_path / "corpus"), tmp_path / "settings.toml"
    (tmp_path / "meshes").mkdir()
    triangle(tmp_path / "meshes")
    settings.write_text('[blender]\ndevice = "metal"\n')
    assert main(["ingest", root, "--source", f"folder={tmp_path / 'meshes'}"]) == 0
    assert main(["render", root, "--settings", str(settings)]) == 1
    assert 'error: [blender] device = "metal" does not render here' in capsys.readouterr().err
    assert Corpus.at(root).need("failures").count_rows() == 0


# ------------------------------------------------------------------------------------------------------------------ Ray


def test_what_a_render_worker_takes_of_a_cluster():
    blender = BlenderSettings(threads=3, workers_per_gpu=2)
    assert (blender.on_cluster(4).threads, blender.on_cluster(4).gpus) == (3, 0.5)
    assert (blender.on_cluster(0).device, blender.on_cluster(0).gpus) == ("cpu", 0)
    assert BlenderSettings().on_cluster(0) == BlenderSettings(device="cpu", threads=1)
    assert BlenderSettings(device="cpu").on_cluster(4).gpus == 0
    with pytest.raises(DeviceError, match=r'device = "optix", but Ray knows of no GPU in this cluster.*--num-gpus'):
        BlenderSettings(device="optix").on_cluster(0)


class ShoutDevices(Shout):
    """Says which GPU Ray has given to its worker, and which of it Blender would see, in the place of a name."""

    name: ClassVar = "shout"

    def start(self):
        told = f" on {os.environ['CUDA_VISIBLE_DEVICES']} {environment(os.environ)['CUDA_VISIBLE_DEVICES']}"
        return replace(Shout(), mark=told).start()


def test_ray_gives_each_gpu_to_so_many_workers_and_blender_sees_that_one(corpus, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    on_ray.ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        run(corpus, Single(ShoutDevices()), where=OnRay(workers=4, cpus=1, gpus=0.5), workers=4)
    finally:
        on_ray.ray.shutdown()
    told = {text.partition(" on ")[2] for text in texts(corpus).values()}
    assert told and told <= {"0 0", "1 1"}
