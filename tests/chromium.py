"""A browser without a window for tests that look at pages: Chromium as it is installed."""

import os
import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Pages of this project are files of ours; a container has no user namespaces for Chromium's sandbox. WebGL by the CPU.
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A started Chromium (a Browser of Playwright), or a skip. Not longer than a module: while it runs, its thread has a running
    event loop, and no other test could have one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e .[dev]")
    program = os.environ.get("TRICORPUS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH, and TRICORPUS_CHROMIUM is not set to one")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()
