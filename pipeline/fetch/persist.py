"""Trying again when a connection fails."""

import errno
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipeline.stage import ObjectError

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries that brought nothing

_DISK_IN_THE_WAY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

Made = TypeVar("Made")


class Later(ConnectionError):
    """The place asks to come again after `pause` seconds."""

    def __init__(self, message: str, pause: float):
        super().__init__(message)
        self.pause = min(pause, 300.0)


@contextmanager
def foreign_errors() -> Iterator[None]:
    """What a network library raises becomes a ConnectionError.

    FileNotFoundError, PermissionError, ObjectError and what this machine's own disk has against it stay as they are.
    """
    try:
        yield
    except (ObjectError, ConnectionError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # every file system raises the errors of its own network library
        if isinstance(error, OSError) and error.errno in _DISK_IN_THE_WAY:
            raise
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def persist(uri: str, act: Callable[[], Made], *, came: Callable[[], int] = lambda: 0, stop: threading.Event | None = None) -> Made:
    """What `act` gives, tried again after a pause when it raises ConnectionError, at most len(PAUSES) times.

    `came` says how many bytes came so far: as long as they become more, it is tried on and on. `stop` cuts a pause short.
    Raises ObjectError("unreachable").
    """
    stop = stop or threading.Event()
    failed, before = 0, came()
    while True:
        try:
            return act()
        except ConnectionError as error:
            failed, before = 1 if came() > before else failed + 1, came()
            if failed > len(PAUSES):
                message = f"{uri} cannot be fetched ({error}): see that its place answers, then try again"
                raise ObjectError("unreachable", message, attempts=failed) from error
            pause = PAUSES[failed - 1] * random.uniform(0.5, 1.5)  # else all that wait would come again at once
            stop.wait(max(pause, getattr(error, "pause", 0.0)))
