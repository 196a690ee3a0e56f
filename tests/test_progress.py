import io
import threading

import pytest

from jobs.progress import duration, progress, progress_line


class Lines(io.StringIO):
    """A log file that tells when a line has come."""

    def __init__(self):
        super().__init__()
        self.came = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if text.endswith("\n"):
            self.came.set()
        return written


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_says_count_rate_time_left_and_failures():
    line = progress_line("render", done=1_190, failed=10, total=10_000, unit="objects", seconds=600)
    assert line == "render: 1,200/10,000 objects, 120.0/min, 1 h 13 min left, 10 failed"


def test_before_the_first_object_no_rate_is_claimed():
    assert progress_line("render", 0, 0, 100, "objects", 59.0) == "render: 0/100 objects, 0 failed"


def test_without_a_total_no_time_left_is_claimed():
    assert progress_line("ingest", 30, 0, None, "records", 60.0) == "ingest: 30 records, 30.0/min, 0 failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3_599.6, "1 h 0 min"), (7_500, "2 h 5 min"), (273_700, "3 d 4 h")],
)
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_off_a_terminal_lines_come_by_the_clock_even_when_nothing_is_reported():
    stream = Lines()
    with progress("render", 8, "objects", stream=stream, every=0.01) as bar:
        assert stream.came.wait(10)
        bar.update(done=3, failed=1)
        stream.came.clear()
        assert stream.came.wait(10) and (stream.came.clear() or stream.came.wait(10))  # the second line began after the update
    lines = stream.getvalue().splitlines()
    assert lines[0] == "render: 0/8 objects, 0 failed"
    assert lines[-1].startswith("render: 4/8 objects, ") and lines[-1].endswith(", 1 failed")


def test_off_a_terminal_a_short_job_prints_no_line():
    stream = io.StringIO()
    with progress("render", 8, "objects", stream=stream) as bar:
        bar.update(done=8)
    assert stream.getvalue() == ""


def test_on_a_terminal_the_bar_ends_at_the_last_count():
    stream = Terminal()
    with progress("render", None, "objects", stream=stream) as bar:
        bar.update(total=4, done=1, failed=1)
        bar.update(done=3, failed=1)
    last = stream.getvalue().rstrip("\n").split("\r")[-1]
    assert "render: 100%" in last and "4/4" in last and "failed=1" in last


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_quiet_shows_nothing(stream):
    with progress("render", 4, "objects", quiet=True, stream=stream, every=0.001) as bar:
        bar.update(done=4)
    assert stream.getvalue() == ""


def test_the_context_ends_when_the_job_raises():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), progress("render", 4, "objects", stream=io.StringIO()):
        1 / 0  # noqa: B018
    assert threading.active_count() == before
