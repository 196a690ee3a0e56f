import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from jobs import doctor
from jobs.doctor import Fact, report, table
from render import devices
from render.blender import BlenderSettings


@pytest.fixture(scope="module")
def facts() -> dict[str, Fact]:
    return {fact.name: fact for fact in doctor.look()}


def test_the_environment_of_this_project_can_run_the_pipeline(facts):
    assert [fact for fact in facts.values() if fact.status == doctor.MISSING] == []


def test_blender_itself_decodes_a_compressed_mesh_to_the_last_triangle(facts):
    assert facts["Draco in Blender"] == Fact("Draco in Blender", doctor.OK, "320 of 320 triangles decoded")


def test_a_blender_executable_is_looked_at_through_its_own_arguments(tmp_path):
    """A shell script that greets, takes Blender's arguments, runs the wheel's Python on the program, and says goodbye."""
    program = tmp_path / "blender"
    program.write_text(
        '#!/bin/sh\necho "Blender 4.5.15 LTS"\n[ "$1 $2 $3" = "--background --factory-startup --python" ] || exit 1\n'
        f'shift 3\n{sys.executable} "$@"\necho "Blender quit"\n'
    )
    program.chmod(0o755)
    found = {fact.name: fact for fact in doctor._blender(str(program))}
    assert found["Blender"].status == found["Draco in Blender"].status == doctor.OK
    program.write_text("#!/bin/sh\necho quit\n")
    [fact] = doctor._blender(str(program))
    assert (fact.status, fact.found) == (doctor.MISSING, f"{program} says nothing of itself: quit")
    [fact] = doctor._blender("/no/such/blender")
    assert (fact.status, fact.found) == (
        doctor.MISSING,
        "/no/such/blender does not start: /no/such/blender: No such file or directory",
    )


FOUND = {"gpus": [{"backend": "OPTIX", "name": "H200"}] * 2, "kernels": {"CUDA": ["sm_89"], "HIP": []}}


def test_without_device_files_of_gpus_nothing_is_tried_and_both_engines_are_told_of():
    assert [(fact.name, fact.status) for fact in doctor._rendering(FOUND, "/no/such/blender", [])] == [
        ("Cycles devices", doctor.NOTE),
        ("EEVEE", doctor.NOTE),
    ]


def test_the_device_that_renders_is_told_and_how_many_workers_it_makes(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "NODES", ("null",))
    monkeypatch.setattr(devices, "CACHES_ROOT", tmp_path)
    program = tmp_path / "blender"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint('{{}}', flush=True)\nfor line in sys.stdin:\n"
        "    device = json.loads(line)['device']\n"
        "    print(json.dumps({'device': 'OPTIX: H200'} if device == 'optix' else {'bug': device}), flush=True)\n"
    )
    program.chmod(0o755)
    fact = doctor._cycles(FOUND, BlenderSettings(executable=str(program), confine=False))
    assert (fact.status, fact.todo) == (doctor.OK, None)
    assert fact.found == "OPTIX: H200 renders; seen: H200 (OPTIX), H200 (OPTIX); room for 8 render workers, 4 to a GPU"
    program.write_text(
        program.read_text().replace("{'device': 'OPTIX: H200'}", "{'reason': 'render_failed', 'message': 'no kernel'}")
    )
    monkeypatch.setattr(devices, "BACKENDS", ("optix",))
    program.write_text(program.read_text().replace("{'bug': device}", "{'device': 'CPU'}"))
    with pytest.warns(UserWarning, match="no kernel"):
        fact = doctor._cycles(FOUND, BlenderSettings(executable=str(program), confine=False))
    assert fact.status == doctor.NOTE and fact.todo
    assert fact.found == "CPU only; seen: H200 (OPTIX), H200 (OPTIX); optix: no kernel; this Blender has kernels for CUDA sm_89"


@pytest.mark.skipif(Path("/dev/nvidia-uvm").exists(), reason="this machine has what is missing")
def test_a_missing_nvidia_uvm_is_told_with_the_command_that_makes_it():
    fact = doctor._driver(["/dev/nvidia7"])
    assert fact.status == doctor.NOTE and fact.todo.endswith("nvidia-modprobe -u -c=0")


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        (7, doctor.OK, "version 7 in this kernel: Blender reads only its own copy of an asset, and makes no connection"),
        (3, doctor.NOTE, "version 3 in this kernel: Blender may make connections"),
        (0, doctor.NOTE, "none in this kernel: Blender may read what you may read, and make connections"),
    ],
)
def test_how_far_blender_is_confined_is_told(version, status, says):
    fact = doctor._landlock(version)
    assert (fact.status, fact.found) == (status, says)
    assert (fact.todo is None) == (status == doctor.OK)


def test_a_package_that_cannot_be_imported_is_missing_with_the_reason_and_what_to_do():
    fact = doctor._package("no-such-package", "no_such_module")
    assert fact.status == doctor.MISSING and fact.todo == "make env"
    assert "No module named 'no_such_module'" in fact.found and "(not installed)" in fact.found


def test_a_child_that_crashes_is_told_apart_from_one_that_raises():
    output, error = doctor._child("-c", "import os; os.kill(os.getpid(), 11)")
    assert (output, error) == (None, "killed by signal 11")
    output, error = doctor._child("-c", "raise OSError('libmade_up.so: cannot open shared object file')")
    assert (output, error) == (None, "OSError: libmade_up.so: cannot open shared object file")


def test_the_table_is_aligned_and_says_what_to_do_below_the_line():
    facts = [Fact("Python", "ok", "3.11.7"), Fact("system libraries", "missing", "not found: a.so", "apt-get install -y a")]
    assert table(facts).splitlines() == [
        "Python            ok       3.11.7",
        "system libraries  missing  not found: a.so",
        "                           -> apt-get install -y a",
    ]


@pytest.mark.parametrize(("status", "code"), [("missing", 1), ("note", 0), ("ok", 0)])
def test_the_exit_code_says_whether_the_pipeline_can_run(status, code):
    facts = [Fact("Python", "ok", "3.11.7"), Fact("Blender", status, "bpy 4.5.15")]
    text, as_text = report(facts, as_json=False)
    printed, as_json = report(facts, as_json=True)
    assert as_text == as_json == code
    assert text.startswith(table(facts)) and ("cannot run" in text) == (code == 1)
    assert json.loads(printed) == {"can_run": code == 0, "facts": [asdict(fact) for fact in facts]}
