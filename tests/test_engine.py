import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from render import devices, eevee
from render.blender import Blender, BlenderSettings
from render.blender_pass import BlenderPass, RenderViews, SamplePoints
from render.devices import DeviceError, triangle
from render.views import read_pictures

ROOT = Path(__file__).resolve().parent.parent


def in_blender(program: str) -> dict:
    """What a program says last, run in a Blender of its own that has two cards more than the machine has."""
    lines = f"""
        import json
        import bpy
        from render import blender_engine
        from render.spec import AssetError, Pictures

        cycles = bpy.context.preferences.addons["cycles"].preferences
        for backend, card in (("OPTIX", 0), ("OPTIX", 1), ("CUDA", 0), ("CUDA", 1)):
            one = cycles.devices.add()
            one.type, one.name, one.id, one.use = backend, "H200", f"{{backend}}_H200_{{card}}", True
        {program}
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(lines)], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_cycles_uses_one_gpu_of_those_it_lists_and_denoises_on_it_as_on_the_cpu():
    found = in_blender("""
        scene = bpy.context.scene
        name = blender_engine.set_engine(scene, Pictures(views=(), width=8, height=8), "optix", 1)
        used = [one.id for one in cycles.devices if one.use]
        of = scene.cycles
        print(json.dumps([name, used, cycles.compute_device_type, of.device, of.denoiser, of.denoising_use_gpu]))
        """)
    assert found == ["OPTIX: H200", ["OPTIX_H200_0"], "OPTIX", "GPU", "OPENIMAGEDENOISE", True]


def test_the_cpu_uses_no_gpu_though_there_are_some():
    found = in_blender("""
        scene = bpy.context.scene
        name = blender_engine.set_engine(scene, Pictures(views=(), width=8, height=8), "cpu", 1)
        print(json.dumps([name, scene.cycles.device]))
        """)
    assert found == ["CPU", "CPU"]


# ------------------------------------------------------------------------------------------------------------------ EEVEE

EEVEE = RenderViews(engine="eevee")


def blender_that(tmp_path: Path, does: str) -> BlenderSettings:
    """A program in Blender's place that is up and, when it is asked for a picture, does this."""
    program = tmp_path / "blender"
    program.write_text(f"#!{sys.executable}\nimport os, sys, time\nprint('{{}}', flush=True)\nfor line in sys.stdin:\n    {does}\n")
    program.chmod(0o755)
    return BlenderSettings(executable=str(program), confine=False)


def test_eevee_is_refused_where_there_is_no_gpu_before_anything_starts(monkeypatch):
    monkeypatch.setattr(devices, "NODES", ("no-such-device",))
    monkeypatch.setattr(eevee, "Blender", None)
    for stages in ((EEVEE,), (SamplePoints(), EEVEE)):
        with pytest.raises(DeviceError, match='engine = "eevee" needs a GPU.*: this machine shows no GPU') as error:
            BlenderPass(stages=stages).start()
        assert str(error.value).splitlines()[-1].startswith('Take engine = "cycles", or give the machine a GPU')


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("time.sleep(1000)", "2 s"),
        ("""print('{"reason": "render_failed", "message": "no EGL display"}', flush=True)""", "no EGL display"),
        ("""print('{"device": "EEVEE: llvmpipe (LLVM 15.0.6)"}', flush=True)""", "computed by the CPU here .llvmpipe"),
    ],
)
def test_eevee_is_refused_when_it_crashes_hangs_or_has_no_gpu(tmp_path, monkeypatch, does, says):
    monkeypatch.setattr(devices, "NODES", ("null",))
    monkeypatch.setattr(eevee, "PROBE_SECONDS", 2)
    with pytest.raises(DeviceError, match=says):
        BlenderPass(stages=(EEVEE,), blender=blender_that(tmp_path, does)).start()


def test_eevee_is_let_in_where_opengl_names_a_gpu_and_cycles_is_not_tried_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "NODES", ("null",))
    settings = blender_that(tmp_path, """print('{"device": "EEVEE: NVIDIA H200/PCIe/SSE2"}', flush=True)""")
    work = BlenderPass(stages=(EEVEE,), blender=settings).start()
    assert eevee.gpu_of_eevee(settings) == "NVIDIA H200/PCIe/SSE2"
    assert work.blender.settings.device == "cpu"
    work.close()


def test_an_unknown_engine_is_refused_by_name():
    with pytest.raises(ValueError, match="engine = 'workbench': must be one of cycles, eevee"):
        RenderViews(engine="workbench")


@pytest.mark.slow  # without a GPU, EEVEE's shaders take half a minute
def test_eevee_shows_the_object_where_cycles_does_and_names_what_rendered_it(tmp_path):
    pictures = []
    with Blender(BlenderSettings(device="cpu")) as blender:
        for engine in ("cycles", "eevee"):
            answer, folder = blender.do(triangle(tmp_path, engine=engine))
            pictures.append(read_pictures(folder, 1)[0].astype(float))
    assert answer.device.startswith("EEVEE: ") and len(answer.device) > len("EEVEE: ")
    alphas = np.stack(pictures)[..., 3] / 255
    apart = np.abs(alphas[0] - alphas[1])  # a pixel's shift, to any side, would make 0.017 of it
    assert apart.mean() < 0.01 and apart.max() < 1 and alphas[0].max() == alphas[1].max() == 1
    colors = [picture[picture[..., 3] == 255, :3].mean(axis=0) for picture in pictures]
    np.testing.assert_allclose(*colors, atol=16)  # of 255: EEVEE takes the light of the world as a smooth one
