"""How much room a corpus takes, table by table: what its current version needs, and what is dead.

Bytes are those of files, as the store that holds them lists them. Dead are
    deleted    rows that were deleted from files which are still in use, by their share of the file's rows
    old        files that only earlier versions refer to
    loose      files that no version refers to: rows of a run that was killed before it committed them, or of one that is running
and everything else is live. A report that reads an earlier version counts what that version needs as live.
"""

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from reports.section import Bar, Bars, Rows, Section, Tile, Tiles
from reports.spreads import percent
from schemas.corpus import Reader
from schemas.tables import OBJECTS

COLUMNS_SHOWN = 15
MUCH_DEAD = 0.25  # share of a corpus from which on it is worth a warning
NOT_WORTH_IT = 10e6  # bytes below which nothing is
BOOKKEEPING = ("_versions/", "_refs/")  # files here that no manifest names (tags) belong to the table itself


@dataclass(frozen=True)
class Room:
    """Bytes of a table, the parts of them that are dead (the rest are live), and how many versions of it can be read."""

    bytes: int = 0
    deleted: int = 0
    old: int = 0
    loose: int = 0
    versions: int = 0

    @property
    def dead(self) -> int:
        return self.deleted + self.old + self.loose

    @property
    def live(self) -> int:
        return self.bytes - self.dead

    def __add__(self, other: "Room") -> "Room":
        return Room(*(mine + theirs for mine, theirs in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def figures(self) -> dict[str, int | float | None]:
        """Bytes by what they are, and the dead ones' share."""
        return {
            "bytes": self.bytes,
            "live_bytes": self.live,
            "dead_bytes": self.dead,
            "deleted_bytes": self.deleted,
            "old_bytes": self.old,
            "loose_bytes": self.loose,
            "dead_bytes_share": self.dead / self.bytes if self.bytes else None,
            "versions": self.versions,
        }


def storage(corpus: Reader) -> Section:
    """The section on room: per table rows, bytes, what of them is dead and why, fragments, versions; and the largest columns."""
    made = {name: dataset for name in corpus.tables() if (dataset := corpus.open(name)) is not None}
    rooms = {name: room_of(dataset) for name, dataset in made.items()}
    whole = sum(rooms.values(), Room())
    objects = made[OBJECTS.name].count_rows() if OBJECTS.name in made else None
    tables = {
        name: {
            "rows": dataset.count_rows(),
            **rooms[name].figures(),
            "fragments": len(dataset.get_fragments()),
            "tags": sorted(dataset.tags.list()),
            "bytes_per_row": rooms[name].live / rows if (rows := dataset.count_rows()) else None,
            "bytes_per_object": rooms[name].live / objects if objects else None,
        }
        for name, dataset in made.items()
    }
    columns = sorted(((size, name, column) for name in made for column, size in columns_of(made[name]).items()), reverse=True)
    figures = _whole(whole, objects) | {"tables": tables, "columns": [_column(*one, tables) for one in columns]}
    return Section(
        key="storage",
        title="Size on disk",
        lead=_lead(whole, objects),
        figures=figures,
        gates={name: figures[name] for name in ("dead_bytes_share", "bytes_per_object")},
        warnings=_warnings(whole, corpus.root),
        exhibits=(_tiles(whole, objects), _bars(rooms), _table(tables), _columns_table(figures["columns"])) if tables else (),
    )


def room_of(dataset: Any) -> Room:
    """The bytes of a table (a lance dataset), and which of them the version that it is opened at does not need."""
    sizes = {}
    for batch in dataset.all_files():
        sizes.update(zip(batch["path"].to_pylist(), batch["size_bytes"].to_pylist(), strict=True))
    needed, known, versions = set(), set(), set()
    for batch in dataset.tracked_files():  # a row per file and version
        known.update(batch["path"].to_pylist())
        versions.update(pc.unique(batch["version"]).to_pylist())
        needed.update(batch.filter(pc.equal(batch["version"], dataset.version))["path"].to_pylist())
    deleted = 0.0
    for fragment in dataset.get_fragments():
        if gone := fragment.num_deletions:
            size = sum(sizes.get(f"data/{file.path}", 0) for file in fragment.data_files())
            deleted += size * gone / fragment.physical_rows
    return Room(
        bytes=sum(sizes.values()),
        deleted=round(deleted),
        old=sum(size for path, size in sizes.items() if path in known and path not in needed),
        loose=sum(size for path, size in sizes.items() if path not in known and not path.startswith(BOOKKEEPING)),
        versions=len(versions),
    )


def columns_of(dataset: Any) -> dict[str, int]:
    """Bytes of each column in the files in use, deleted rows included."""
    sizes = {field.id: field.bytes_on_disk for field in dataset.stats.data_stats().fields}

    def size(field: Any) -> int:
        return sizes.get(field.id(), 0) + sum(size(child) for child in field.children())

    return {field.name(): size(field) for field in dataset.lance_schema.fields()}


def size_text(size: float) -> str:
    """A number of bytes for people: "640 B", "1.3 GB"; a kilobyte has 1,000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError


def _whole(whole: Room, objects: int | None) -> dict[str, Any]:
    return whole.figures() | {"bytes_per_object": whole.live / objects if objects else None}


def _column(size: int, table: str, column: str, tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows = tables[table]["rows"]
    return {"table": table, "column": column, "bytes": size, "bytes_per_row": size / rows if rows else None}


def _lead(whole: Room, objects: int | None) -> str:
    if not whole.bytes:
        return "This corpus has no tables."
    each = f", {size_text(whole.live / objects)} of live data for each of its {objects:,} objects" if objects else ""
    dead = f"{size_text(whole.dead)} of it ({percent(whole.dead / whole.bytes)}) are dead" if whole.dead else "None of it is dead"
    return f"The tables take {size_text(whole.bytes)}{each}. {dead}."


def _warnings(whole: Room, root: str) -> tuple[str, ...]:
    said = []
    if _much_is_dead(whole):
        said.append(
            f"{percent(whole.dead / whole.bytes)} of the corpus' bytes are dead, {size_text(whole.dead)}: deleted rows, and files "
            f"that the current versions of its tables do not need. To have them back: python -m jobs maintain {root}"
        )
    if whole.loose > NOT_WORTH_IT:
        said.append(
            f"{size_text(whole.loose)} belong to no version of any table: a run was killed before it committed them, or one is "
            "running now."
        )
    return tuple(said)


def _much_is_dead(whole: Room) -> bool:
    return whole.dead > max(NOT_WORTH_IT, MUCH_DEAD * whole.bytes)


def _tiles(whole: Room, objects: int | None) -> Tiles:
    parts = (
        f"{size_text(whole.old)} of earlier versions, {size_text(whole.deleted)} of deleted rows, {size_text(whole.loose)} loose"
    )
    tiles = [
        Tile("on disk", size_text(whole.bytes)),
        Tile("live", size_text(whole.live), "what the current versions of the tables need"),
        Tile("dead", percent(whole.dead / whole.bytes), parts, "bad" if _much_is_dead(whole) else "plain"),
    ]
    if objects:
        tiles.append(Tile("per object", size_text(whole.live / objects), "live bytes of all tables together"))
    return Tiles(tuple(tiles))


def _bars(rooms: dict[str, Room]) -> Bars:
    ordered = sorted(rooms.items(), key=lambda pair: -pair[1].bytes)
    return Bars(
        title="Where the bytes are",
        unit="bytes",
        bars=tuple(Bar(name, room.bytes, size_text(room.bytes), room.dead) for name, room in ordered),
        part="dead",
    )


def _table(tables: dict[str, dict[str, Any]]) -> Rows:
    head = ("table", "rows", "MB", "live MB", "dead %", "bytes per row", "bytes per object", "fragments", "versions")
    return Rows(
        title="Tables",
        head=head,
        rows=tuple(
            (
                name,
                one["rows"],
                *(round(one[part] / 1e6, 3) for part in ("bytes", "live_bytes")),
                None if one["dead_bytes_share"] is None else round(100 * one["dead_bytes_share"], 1),
                *(None if one[per] is None else round(one[per]) for per in ("bytes_per_row", "bytes_per_object")),
                one["fragments"],
                one["versions"],
            )
            for name, one in sorted(tables.items(), key=lambda pair: -pair[1]["bytes"])
        ),
        note="Dead: rows deleted from files in use (by their share of the file's rows), files of earlier versions, and files of no "
        "version. A training run reads the versions it began with: what is dead for the newest version may be its data.",
    )


def _columns_table(columns: list[dict[str, Any]]) -> Rows:
    return Rows(
        title="Largest columns",
        head=("table", "column", "MB", "bytes per row"),
        rows=tuple(
            (one["table"], one["column"], round(one["bytes"] / 1e6, 3), one["bytes_per_row"] and round(one["bytes_per_row"]))
            for one in columns[:COLUMNS_SHOWN]
        ),
        folded=True,
        note="As they are in the files in use, deleted rows included.",
    )
