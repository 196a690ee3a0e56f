"""What `make env` relies on; the install itself is too large for a test."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.system_libraries import DEBIAN_PACKAGES, install_command, missing

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINS = dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in LINES)  # a line of another form: None, an error
NAMES = {canonicalize_name(name): pin for name, pin in PINS.items()}


def test_constraints_agree_with_every_pin_of_the_project():
    requirements = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    wrong = [str(one) for one in requirements if not one.specifier.contains(NAMES[canonicalize_name(one.name)])]
    assert wrong == []


def test_constraints_pin_the_whole_closure_of_what_the_project_needs():
    unpinned, seen = set(), set()
    waiting = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    while waiting:
        one = waiting.pop()
        for extra in one.extras or {""}:
            if (one.name, extra) in seen or (one.marker and not one.marker.evaluate({"extra": ""})):
                continue
            seen.add((one.name, extra))
            if canonicalize_name(one.name) not in NAMES:
                unpinned.add(one.name)
                continue
            for text in requires(one.name) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    needed.marker = None
                    waiting.append(needed)
    assert unpinned - {"setuptools"} == set()  # setuptools and pip are the environment's own


def test_this_environment_is_the_pinned_one():
    installed = {canonicalize_name(one.name): one.version for one in distributions()}
    differing = {name: (installed[name], pin) for name, pin in NAMES.items() if installed.get(name, pin).split("+")[0] != pin}
    assert differing == {}, "make env"


def test_a_library_that_cannot_be_loaded_is_missing_and_one_that_can_is_not():
    assert missing({"libc.so.6": "libc6", "libno_such_thing.so.1": "libno-such-thing1"}) == {
        "libno_such_thing.so.1": "libno-such-thing1"
    }


def test_the_install_command_names_the_packages_of_what_is_missing():
    assert install_command({"b.so": "libb", "a.so": "liba"}) == "apt-get install -y liba libb"


def test_the_readme_names_every_system_library():
    assert install_command(DEBIAN_PACKAGES) in (ROOT / "README.md").read_text()


def test_the_libraries_are_asked_for_by_the_standard_library_alone():
    """`make env` asks before anything is installed."""
    command = [sys.executable, "-I", "-S", "jobs/system_libraries.py"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == sorted(missing().values())
