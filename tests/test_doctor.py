import json
from dataclasses import asdict

import pytest

from jobs import doctor
from jobs.doctor import Fact, report, table


@pytest.fixture(scope="module")
def facts() -> dict[str, Fact]:
    return {fact.name: fact for fact in doctor.look()}


def test_the_environment_of_this_project_can_run_the_pipeline(facts):
    assert [fact for fact in facts.values() if fact.status == doctor.MISSING] == []


def test_blender_itself_decodes_a_compressed_mesh_to_the_last_triangle(facts):
    assert facts["Draco in Blender"] == Fact("Draco in Blender", doctor.OK, "320 of 320 triangles decoded")


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
