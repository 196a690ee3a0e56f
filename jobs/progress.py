"""How far a job is: a live bar on a terminal, one plain line a minute elsewhere (a log file, a cluster's job page)."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

EVERY = 60.0  # seconds between plain lines


class Progress:
    """What a job reports to; made by `progress`."""

    def __init__(self, title: str, total: int | None, unit: str):
        self.title, self.total, self.unit = title, total, unit
        self.done = self.failed = 0
        self._began = time.monotonic()

    def update(self, *, done: int, failed: int = 0, total: int | None = None) -> None:
        """Say how much is done and how much has failed by now (not since the last call); `total` when it was not known before."""
        self.done, self.failed = done, failed
        self.total = self.total if total is None else total
        self._show()

    def line(self) -> str:
        """Where the job is, on one line."""
        return progress_line(self.title, self.done, self.failed, self.total, self.unit, time.monotonic() - self._began)

    def _show(self) -> None:
        pass


class _Bar(Progress):
    def __init__(self, title: str, total: int | None, unit: str, stream: TextIO):
        super().__init__(title, total, unit)
        # smoothing 0: the mean over the whole run, since batches come in bursts
        self._bar = tqdm(desc=title, total=total, unit=f" {unit}", file=stream, smoothing=0, dynamic_ncols=True)

    def _show(self) -> None:
        self._bar.total = self.total
        self._bar.set_postfix(failed=self.failed, refresh=False)
        self._bar.update(self.done + self.failed - self._bar.n)

    def close(self) -> None:
        self._bar.refresh()
        self._bar.close()


@contextmanager
def progress(
    title: str,
    total: int | None,
    unit: str,
    quiet: bool = False,
    *,
    stream: TextIO | None = None,
    every: float = EVERY,
) -> Iterator[Progress]:
    """Show how far a job is, for as long as the context lasts.

    `total` counts `unit` ("objects"); None: not known yet. `quiet` shows nothing (for --json). `stream` is standard error unless
    given, `every` the seconds between plain lines.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        yield Progress(title, total, unit)
    elif stream.isatty():
        bar = _Bar(title, total, unit, stream)
        try:
            yield bar
        finally:
            bar.close()
    else:
        shown = Progress(title, total, unit)
        over = threading.Event()
        clock = threading.Thread(target=_print_lines, args=(shown, stream, every, over), daemon=True)
        clock.start()
        try:
            yield shown
        finally:
            over.set()
            clock.join()


def progress_line(title: str, done: int, failed: int, total: int | None, unit: str, seconds: float) -> str:
    """One line that says how far a job is after `seconds`: count, mean rate, time left, failures."""
    seen = done + failed
    parts = [f"{seen:,} {unit}" if total is None else f"{seen:,}/{total:,} {unit}"]
    if seen:
        parts.append(f"{seen * 60 / seconds:,.1f}/min")
        if total is not None:
            parts.append(f"{duration((total - seen) * seconds / seen)} left")
    parts.append(f"{failed:,} failed")
    return f"{title}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """A time span for people: its two largest units, as in "3 d 4 h", "2 h 5 min", "40 s"."""
    seconds = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // part} {smaller}"
    return f"{seconds} s"


def _print_lines(shown: Progress, stream: TextIO, every: float, over: threading.Event) -> None:
    while not over.wait(every):
        print(shown.line(), file=stream, flush=True)
