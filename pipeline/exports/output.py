"""The folder an export is written to: what it is of, files that are there whole or not at all, and the end."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_PLAN = "export.json"


class Output:
    """A folder that is empty, new, or holds the beginning of the same export, which then goes on.

    `plan` says what the export is of (format, versions of the tables, choice of objects) and is kept in export.json. Raises
    ValueError, with a sentence, for a folder of anything else.
    """

    def __init__(self, folder: str, plan: dict[str, Any]):
        if "://" in folder:
            raise ValueError(f"{folder} is a URI: export to a folder on this machine and copy it from there")
        self.folder, self.plan = Path(folder), json.loads(json.dumps(plan))
        stored = self.folder / _PLAN
        if stored.is_file():
            before = json.loads(stored.read_text()) | {"done": None}
            differing = [name for name in {**before, **self.plan} if name != "done" and before.get(name) != self.plan.get(name)]
            if differing:
                raise ValueError(
                    f"{folder} holds another export (it differs in {', '.join(sorted(differing))}): give a new folder, or remove it"
                )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no export: give a new folder")
        elif self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{folder} is a file: give a folder")
        else:
            self._keep_plan(None)

    def has(self, name: str) -> bool:
        """Whether a file is there, and so whole."""
        return (self.folder / name).is_file()

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file that takes its name when all of it is written."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
        try:
            with open(partial, "wb") as file:
                yield file
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def finish(self, done: dict[str, Any]) -> None:
        """Say in export.json what came of it; without this line the export is not whole."""
        self._keep_plan(done)

    def _keep_plan(self, done: dict[str, Any] | None) -> None:
        with self.writing(_PLAN) as file:
            file.write(json.dumps(self.plan | {"done": done}, indent=1, ensure_ascii=False).encode())


Watch = Callable[[int, int], None]  # objects looked at by now, and of these left out
