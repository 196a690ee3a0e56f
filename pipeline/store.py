"""A corpus on disk or on an object store: Lance tables, and how they grow.

Workers write fragments that no reader can see; one committer makes them visible. A commit puts rows of an object in place of its
older ones by deleting first and appending after: a crash between the two leaves the object missing, so that it is done again, and
never twice.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from pipeline.stage import NoRoom, Row
from schemas.check import repeated_key
from schemas.corpus import CorpusError, Reader, any_of, quote
from schemas.tables import FAILURES, Table

__all__ = ["Corpus", "CorpusError", "quote"]

# Fragments below this size cost every later read; compaction makes them one.
FRAGMENT_BYTES = 256 << 20
SMALL_FRAGMENTS = 64
LIFETIME = timedelta(days=36_500)  # no version is older


@dataclass(frozen=True)
class Corpus(Reader):
    """The folder or URI that holds `<table>.lance`, to be read and written."""

    def create(self, table: Table, made_by: dict[str, Any] | None = None) -> lance.LanceDataset:
        """The table, made empty if it is not there; `made_by`, how one stage makes it, is stored in its schema metadata as JSON.

        Raises CorpusError when the table on disk has other columns than this version of the code writes.
        """
        dataset = self.open(table.name)
        if dataset is None:
            dataset = lance.write_dataset(table.schema.empty_table(), self.uri(table.name))
        declared, stored = ({field.name: field.type for field in schema} for schema in (table.schema, dataset.schema))
        differing = [name for name in declared | stored if declared.get(name) != stored.get(name)]
        if differing:
            raise CorpusError(
                f"{self.uri(table.name)} was made with other columns ({', '.join(differing)}): "
                "build into a new folder, or remove that table"
            )
        before = self.made_by(table.name)
        if made_by is not None and before.get(made_by["stage"]) != made_by:
            after = json.dumps(before | {made_by["stage"]: made_by}, sort_keys=True)
            dataset.update_schema_metadata({"made_by": after, "key": json.dumps(table.key), "shared": json.dumps(table.shared)})
            dataset = self.need(table.name)
        return dataset

    def write(self, table: Table, rows: pa.Table) -> list[str]:
        """Rows as fragments that no reader can see yet: JSON for `append`. May be called by many workers at once."""
        if not len(rows):
            return []
        fragments = write_fragments(rows, self.uri(table.name), schema=table.schema, max_bytes_per_file=FRAGMENT_BYTES)
        return [json.dumps(fragment.to_json()) for fragment in fragments]

    def append(self, table: Table, fragments: Iterable[str]) -> None:
        """Make fragments visible, and check that as many rows came in as were written. For the one committer."""
        made = [FragmentMetadata.from_json(fragment) for fragment in fragments]
        if not made:
            return
        dataset = self.need(table.name)
        before, expected = dataset.count_rows(), sum(fragment.physical_rows for fragment in made)
        after = lance.LanceDataset.commit(dataset.uri, lance.LanceOperation.Append(made), read_version=dataset.version)
        if after.count_rows() != before + expected:
            raise CorpusError(
                f"{dataset.uri}: {expected} rows were committed to {before} and {after.count_rows()} are there: "
                "something else writes to this table; stop it, then run the same command again"
            )

    def delete(self, table: Table, ids: Iterable[str], where: str | None = None) -> None:
        """Remove the rows of some ids. For the one committer."""
        ids = list(ids)
        for start in range(0, len(ids), 1000):
            condition = any_of(table.id_column, ids[start : start + 1000])
            self.need(table.name).delete(f"({condition}) AND ({where})" if where else condition)

    def take(self, table: str, version: int, positions: np.ndarray, columns: Iterable[str]) -> list[Row]:
        """Rows by their position in a version of a table."""
        return lance.dataset(self.uri(table), version=version).take(positions, columns=list(columns)).to_pylist()

    def check_unique(self, table: Table) -> None:
        """Raise CorpusError when a key occurs twice."""
        keys = self.need(table.name).to_table(columns=list(table.key))
        if repeated := repeated_key(table, keys):
            raise CorpusError(
                f"{self.uri(table.name)}: the key {dict(zip(table.key, repeated, strict=True))} occurs twice: "
                "two builds wrote at once; restore the table's last good version with lance, or remove the table"
            )

    def compact(self, table: Table) -> None:
        """Many small fragments to few large ones; the rows and their order stay."""
        fragments = self.need(table.name).get_fragments()
        if len(fragments) >= SMALL_FRAGMENTS and _bytes(fragments) / len(fragments) <= FRAGMENT_BYTES / 4:
            self.rewrite(table.name)

    def rewrite(self, table: str) -> None:
        """Join fragments that are smaller than need be, and leave out deleted rows where they are a tenth of a fragment or more.
        The rows that there are and their order stay; the files as they were stay too, for the earlier versions."""
        dataset = self.need(table)
        rows = dataset.count_rows()
        target = max(1024, int(rows * FRAGMENT_BYTES / max(_bytes(dataset.get_fragments()), 1)))
        dataset.optimize.compact_files(target_rows_per_fragment=target, num_threads=1)
        if self.need(table).count_rows() != rows:
            raise CorpusError(f"{self.uri(table)}: rows changed while fragments were joined; something else writes to this table")

    def superseded(self, table: str, before: datetime) -> list[int]:
        """Versions of a table that ceased to be the newest `before` that time, ascending, and have no tag.

        A version's own age does not count: the one that a training run began with yesterday may have been made a year ago.
        """
        dataset = self.need(table)
        tagged = {tag["version"] for tag in dataset.tags.list().values()}
        versions = sorted(dataset.versions(), key=lambda version: version["version"])
        return [
            version["version"]
            for version, following in pairwise(versions)
            if following["timestamp"].timestamp() < before.timestamp() and version["version"] not in tagged
        ]

    def forget_versions(self, table: str, versions: list[int]) -> int:
        """Remove these versions of a table, what only they need, and what no version has needed for a week (the leftovers of killed
        runs). The bytes that were given back."""
        which = {"versions": versions} if versions else {"older_than": LIFETIME}
        return self.need(table).cleanup_old_versions(**which, error_if_tagged_old_versions=False).bytes_removed

    def fail(self, stage: str, rows: pa.Table, forget: Iterable[str]) -> None:
        """Put the failures of a stage in place of older ones of the same objects, and forget those of `forget`."""
        old = {*rows["object_id"].to_pylist(), *forget}
        if old:
            self.delete(FAILURES, old, where=f"stage = {quote(stage)}")
        self.append(FAILURES, self.write(FAILURES, rows))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who commits. A killed holder frees it. Object stores have no lock: there, start one build at a time.
        Raises NoRoom when a disk is full meanwhile, be it for a worker or for the one who commits."""
        if "://" in self.root:
            yield
            return
        Path(self.root).mkdir(parents=True, exist_ok=True)
        path = Path(self.root) / ".lock"
        with open(path, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise CorpusError(
                    f"another run is writing to {self.root} ({file.read().strip()}): wait for it or stop it"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            with self._room():
                yield

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # Lance's has its number in the text alone
            if not any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
                raise
            free = shutil.disk_usage(self.root).free >> 20
            raise NoRoom(
                f"a disk is full; that of {self.root} has {free:,} MB left. What was committed is kept: make room, or move the "
                f"corpus to a larger disk, and run the same command again. ({str(error).splitlines()[-1]})"
            ) from error


def _bytes(fragments: Iterable[lance.LanceFragment]) -> int:
    return sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.data_files())
