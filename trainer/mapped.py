"""Rows of a Lance table by number: of a local one through mmap, so that vectors are copied once, from the page cache to the batch.

Lance lays wide vectors of fixed size one after the other, without compression ("full zip"; a byte of control before each where some
are null, or where each row is a list of vectors), and narrow ones and lists of numbers in chunks of a power of two ("mini blocks").
Where pages lie in a file is public (`LanceFileReader.metadata`); what they hold is told by a description meant for reading. So
`Mapped` accepts the descriptions that it knows word by word, compares some rows with what Lance itself reads, and refuses all else:
`Unmappable`, and the caller takes the rows from Lance.

Format: https://lance.org/format/file/encoding, "Structural encoding".
"""

import math
import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int, Shaped, UInt8
from lance.file import LanceFileReader

COMPARED = 24  # rows that are read both ways when a column is opened
NUMBERS_IN_CHUNK = 2048  # of 16 bits, in all chunks of a page but the last; or half of that, or twice
FILE_VERSION = (2, 2)

_FLAT = r"Flat\(Flat\{bits_per_value:(?P<bits>\d+),data:None\}\)"
_ENCODED = r"Some\(CompressiveEncoding\{compression:Some\(%s\)\}\)"
_VECTORS = (
    r"FixedSizeList\(FixedSizeList\{items_per_value:(?P<width>\d+),has_validity:(?P<validity>true|false),values:"
    + _ENCODED % _FLAT
    + r"\}\)"
)
_LAYERS = r"layers:\[(?P<layers>\w+(?:,\w+)?)\]"
_FULL_ZIP = re.compile(
    r"PageLayout\{layout:Some\(FullZipLayout\(FullZipLayout\{bits_rep:(?P<rep>[01]),bits_def:(?P<def>[01]),"
    r"num_items:(?P<items>\d+),num_visible_items:(?P<visible>\d+),value_compression:"
    + (_ENCODED % _VECTORS)
    + f",{_LAYERS}"
    + r",details:Some\(BitsPerValue\(\d+\)\)\}\)\)\}"
)
_MINI_BLOCK = re.compile(
    r"PageLayout\{layout:Some\(MiniBlockLayout\(MiniBlockLayout\{"
    r"rep_compression:(?P<rep>None|Some\(.*\)),def_compression:(?P<def>None|Some\(.*\)),value_compression:"
    + (_ENCODED % f"(?:{_VECTORS}|{_FLAT.replace('bits>', 'number>')})")
    + f",dictionary:None,num_dictionary_items:0,{_LAYERS}"
    + r",num_buffers:1,repetition_index_depth:[01],num_items:(?P<items>\d+),has_large_chunk:(?P<large>true|false)\}\)\)\}"
)
_ALL_NULL = re.compile(r"PageLayout\{layout:Some\(ConstantLayout\(ConstantLayout\{" + _LAYERS + r",inline_value:None,.*\}\)\)\}")

_ITEM, _ITEM_OR_NULL = "RepdefAllValidItem", "RepdefNullableItem"
_LIST, _LIST_OR_NULL = f"{_ITEM},RepdefAllValidList", f"{_ITEM},RepdefNullableList"


class Unmappable(Exception):
    """The column cannot be read through mmap; the message says what was found."""


@dataclass(frozen=True)
class _Rows:
    """Where the values of consecutive rows lie in memory.

    A row is put together of blocks of `size` bytes from the addresses `starts`. `valid`: which rows have a value. `flags`: where
    above 0, it is the byte so far before the value that tells (0: it has one). `counts`: vectors of each row, of which one lies
    `size + 1` bytes after the other.
    """

    size: int
    starts: Int[np.ndarray, "n k"]
    valid: Bool[np.ndarray, " n"]
    flags: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " n"]

    @classmethod
    def empty(cls, rows: int) -> Self:
        """Rows without a value."""
        return cls(0, np.zeros((rows, 1), np.int64), *(np.zeros(rows, kind) for kind in (bool, np.int32, np.int32)))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The rows of all parts, one after the other. Raises Unmappable when they are laid out in different ways."""
        parts = [part for part in parts if len(part.starts)]
        shapes = {(part.size, part.starts.shape[1]) for part in parts if part.size}
        if len(shapes) > 1:
            raise Unmappable(f"values lie in blocks of {' or '.join(str(size) for size, _ in sorted(shapes))} bytes")
        if not parts:
            return cls.empty(0)
        size, blocks = next(iter(shapes), (0, 1))
        starts = [part.starts if part.size else np.zeros((len(part.starts), blocks), np.int64) for part in parts]
        rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("valid", "flags", "counts"))
        return cls(size, np.concatenate(starts), *rest)

    def chosen(self, rows: Int[np.ndarray, " n"]) -> Self:
        """Some of the rows, in this order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ("starts", "valid", "flags", "counts")})


class Mapped:
    """One column of a version of a local table: fixed-size lists, lists of `width` numbers, or lists of fixed-size lists.

    Rows are called by their number in that version, as `LanceDataset.take` does. `width`: numbers in a vector. Raises Unmappable.
    Lance never changes a file; one that is removed stays readable here.
    """

    def __init__(self, dataset: lance.LanceDataset, column: str, width: int):
        if "://" in dataset.uri:
            raise Unmappable(f"{dataset.uri} is not a local folder")
        type = dataset.schema.field(column).type
        self.column, self.width = column, width
        self.lists = not pa.types.is_fixed_size_list(type)
        self.nested = self.lists and pa.types.is_fixed_size_list(type.value_type)
        self.dtype = pa.array([], type.value_type.value_type if self.nested else type.value_type).to_numpy().dtype
        self._mappings: list[mmap.mmap] = []
        self._windows: dict[int, np.ndarray] = {}
        parts, firsts, rows = [], {}, 0
        for fragment in dataset.get_fragments():
            firsts[fragment.fragment_id] = rows
            parts.append(self._fragment(dataset, fragment))
            rows += fragment.physical_rows
        self._rows = _Rows.joined(parts).chosen(_physical_rows(dataset, firsts))
        if not len(self) or (self.nested and not self._rows.size):
            raise Unmappable(f"{column} of {dataset.uri} has no rows")
        self._all_valid = bool(self._rows.valid.all())
        files = [np.frombuffer(mapping, np.uint8) for mapping in self._mappings]
        self._begin = min(file.ctypes.data for file in files)
        self._end = max(file.ctypes.data + len(file) for file in files)
        self._compare(dataset)

    def __len__(self) -> int:
        return len(self._rows.starts)

    def rows(
        self, positions: Int[np.ndarray, " n"], width: int | None = None
    ) -> tuple[Shaped[np.ndarray, "n w"], Bool[np.ndarray, " n"]]:
        """The vectors of these rows, or the first `width` numbers of each, and which rows have one; the others are zeros."""
        width = self.width if width is None else width
        starts, valid = self._rows.starts[positions], np.ones(len(positions), bool)
        if not self._all_valid:
            valid, flags = self._rows.valid[positions], self._rows.flags[positions]
            if (flagged := flags > 0).any():
                valid[flagged] = self._bytes(starts[flagged] - flags[flagged, None], 1)[:, 0] == 0
            if not valid.any():
                return np.zeros((len(positions), width), self.dtype), valid
        wanted = width * self.dtype.itemsize
        size = min(self._rows.size, wanted)
        starts = starts[:, : -(-wanted // size)]
        if self._all_valid or valid.all():
            found = self._bytes(starts, size)
        else:
            found = np.zeros((len(positions), starts.shape[1] * size), np.uint8)
            found[valid] = self._bytes(starts[valid], size)
        return found[:, :wanted].view(self.dtype), valid

    def items(
        self, positions: Int[np.ndarray, " n"], choose: Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, "n k"]]
    ) -> Shaped[np.ndarray, "n k w"]:
        """Some vectors of each row's list: `choose` is told how many each row has, and answers with those wanted."""
        chosen = choose(self._rows.counts[positions].astype(np.int64))
        starts = self._rows.starts[positions] + chosen * (self._rows.size + 1)
        return self._bytes(starts, self._rows.size).view(self.dtype).reshape(*chosen.shape, self.width)

    def _bytes(self, starts: Int[np.ndarray, "n k"], size: int) -> UInt8[np.ndarray, "n bytes"]:
        """`size` bytes from each address, copied in one pass, whatever file they lie in."""
        if size not in self._windows:
            self._windows[size] = np.asarray(_Window(self._begin, self._end - self._begin - size + 1, size))
        return self._windows[size][starts - self._begin].view(np.uint8).reshape(len(starts), starts.shape[1] * size)

    def _fragment(self, dataset: lance.LanceDataset, fragment: lance.LanceFragment) -> _Rows:
        field = dataset.lance_schema.field(self.column)
        ids = {field.id(), *(child.id() for child in field.children())}
        files = [file for file in fragment.data_files() if ids & set(file.fields)]
        if len(files) != 1 or files[0].base_id is not None:
            raise Unmappable(f"{self.column} of fragment {fragment.fragment_id} lies in {len(files)} files, or in another place")
        [file] = files
        if (file.file_major_version, file.file_minor_version) != FILE_VERSION:
            raise Unmappable(f"{file.path} is a file of version {file.file_major_version}.{file.file_minor_version}")
        path = os.path.join(dataset.uri, "data", file.path)
        with open(path, "rb") as opened:
            mapping = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
        self._mappings.append(mapping)
        content = np.frombuffer(mapping, np.uint8)
        number = max(at for id, at in zip(file.fields, file.column_indices, strict=True) if id in ids)
        pages = [self._page(content, page) for page in LanceFileReader(path).metadata().columns[number].pages]
        expected = fragment.physical_rows
        made = self._with_nulls(pages, expected, path) if self.lists else _with_empty_pages(pages, expected)
        if len(made.starts) != expected:
            raise Unmappable(f"{self.column} has {len(made.starts)} rows in {path} that can be placed, of {expected}")
        return made

    def _with_nulls(self, pages: list[_Rows | None], expected: int, path: str) -> _Rows:
        """The rows of a file from those that have a list, where null ones take no room: Lance itself says which those are."""
        full = _Rows.joined([page for page in pages if page is not None])
        if len(full.starts) == expected:
            return full
        read = LanceFileReader(path, columns=[self.column]).read_all().to_batches()
        valid = np.concatenate([batch[self.column].is_valid().to_numpy(zero_copy_only=False) for batch in read])
        if valid.sum() != len(full.starts):
            raise Unmappable(f"{self.column} has {len(full.starts)} lists in {path}, of {valid.sum()} rows that have one")
        if not valid.any():
            return _Rows.empty(expected)
        return replace(full.chosen(np.maximum(np.cumsum(valid) - 1, 0)), valid=valid)

    def _page(self, content: UInt8[np.ndarray, " bytes"], page: Any) -> _Rows | None:
        """The rows of a page; None: they are all null. Of lists of numbers only the rows that have one."""
        text = re.sub(r",(?=[)}\]])", "", re.sub(r"\s+", "", str(page.encoding)))
        buffers = [content[buffer.position : buffer.position + buffer.size] for buffer in page.buffers]
        if found := _FULL_ZIP.fullmatch(text):
            return self._full_zip(found, buffers)
        if found := _MINI_BLOCK.fullmatch(text):
            return self._mini_block(found, buffers)
        if (found := _ALL_NULL.fullmatch(text)) and found["layers"] in (_ITEM_OR_NULL, _LIST_OR_NULL):
            return None
        raise Unmappable(f"{self.column} has a page of an unknown layout: {text[:300]}")

    def _full_zip(self, page: re.Match, buffers: list[np.ndarray]) -> _Rows:
        size, count = self.width * self.dtype.itemsize, int(page["items"])
        kind = (page["rep"], page["def"], page["layers"], page["validity"], self.nested)
        if int(page["width"]) != self.width or int(page["bits"]) != 8 * self.dtype.itemsize or int(page["visible"]) != count:
            raise Unmappable(f"{self.column} has a page of {page['width']} numbers of {page['bits']} bits")
        begin, counts = buffers[0].ctypes.data, np.ones(count, np.int64)
        flag = 0
        if kind in (
            ("0", "0", _ITEM, "false", False),
            ("0", "1", _ITEM_OR_NULL, "false", False),
            ("0", "1", _ITEM_OR_NULL, "true", False),
        ):
            # where Arrow has the numbers of null rows for null, a bit for each number stands before those of every row
            flag = int(page["def"]) + (-(-self.width // 8) if page["validity"] == "true" else 0)
            starts = begin + flag + (flag + size) * np.arange(count)
            fits = len(buffers) == 1 and len(buffers[0]) == (flag + size) * count
        elif kind == ("1", "0", _LIST, "false", True):
            ends = _row_index(buffers[1], len(buffers[0]))
            starts = begin + 1 + ends[:-1]
            counts, rest = np.divmod(np.diff(ends), size + 1)
            fits = not rest.any() and counts.sum() == count
        else:
            raise Unmappable(f"{self.column} has a page of an unknown kind: {kind}")
        if not fits:
            raise Unmappable(f"{self.column} has a page of {len(buffers[0])} bytes for {count} vectors")
        return _Rows(
            size, starts[:, None], np.full(len(starts), not flag), np.full(len(starts), flag, np.int32), counts.astype(np.int32)
        )

    def _mini_block(self, page: re.Match, buffers: list[np.ndarray]) -> _Rows:
        """Chunks: a header, then values, of which all chunks but the last have as many. The first buffer has a number for each: its
        size in units of 8 bytes less 1, and below that in 4 bits the logarithm of its count. A value is a vector, or a number."""
        vectors = page["width"] is not None
        expected = (str(self.width), "false", _ITEM) if vectors else (None, None, page["layers"] if self.lists else "")
        bits, values = int(page["bits" if vectors else "number"]), int(page["items"])
        per_row, each = (1, self.width * self.dtype.itemsize) if vectors else (self.width, self.dtype.itemsize)
        known = page["layers"] in (_ITEM, _LIST, _LIST_OR_NULL) and (page["width"], page["validity"], page["layers"]) == expected
        if not known or self.nested or bits != 8 * self.dtype.itemsize or values % per_row:
            raise Unmappable(f"{self.column} has chunks of {page['layers']} with {values} values of {bits} bits")
        about = buffers[0].view(np.uint32 if page["large"] == "true" else np.uint16).astype(np.int64)
        sizes, counts = 8 * ((about >> 4) + 1), 1 << (about & 15)
        counts[-1] = values - counts[:-1].sum()
        if (counts[:-1] != counts[0]).any() or not 0 < counts[-1] <= counts[0] or sizes.sum() != len(buffers[1]):
            raise Unmappable(f"{self.column} has chunks of several sizes")
        block = math.gcd(per_row, NUMBERS_IN_CHUNK)  # a row may begin in one chunk and end in the next; a block does not
        if len(counts) > 1 and counts[0] % block:
            raise Unmappable(f"{self.column} has chunks of {counts[0]} values, which are no multiple of {block}")
        # values fill a chunk to its end, which is rounded up to 8 bytes
        begins = buffers[1].ctypes.data + np.cumsum(sizes) - -(-counts * each // 8) * 8
        rows = values // per_row
        chunk, within = np.divmod(np.arange(0, values, block), counts[0])
        starts = (begins[chunk] + within * each).reshape(rows, per_row // block)
        return _Rows(block * each, starts, np.ones(rows, bool), np.zeros(rows, np.int32), np.ones(rows, np.int32))

    def _compare(self, dataset: lance.LanceDataset) -> None:
        """Raise Unmappable unless some rows are what Lance reads."""
        for mapping in self._mappings:
            mapping.madvise(mmap.MADV_RANDOM)  # else the kernel reads megabytes around each of these few rows
        positions = np.unique(np.linspace(0, len(self) - 1, COMPARED).astype(np.int64))
        taken = Taken(dataset, self.column, self.width)
        if self.nested:
            counts = []

            def ends(count: np.ndarray) -> np.ndarray:
                counts.append(count)
                return np.stack([0 * count, count - 1], axis=1)

            pairs = [(self.items(positions, ends), taken.items(positions, ends)), tuple(counts)]
        else:
            pairs = list(zip(self.rows(positions), taken.rows(positions), strict=True))
        if not all(np.array_equal(*pair, equal_nan=pair[0].dtype.kind == "f") for pair in pairs):
            raise Unmappable(f"{self.column}: rows are not what Lance reads")
        for mapping in self._mappings:
            mapping.madvise(mmap.MADV_NORMAL)  # for whole rows, reading ahead is right


class Taken:
    """The same of any table, wherever it is, with any pages: Lance takes the rows."""

    def __init__(self, dataset: lance.LanceDataset, column: str, width: int):
        self.dataset, self.column, self.width = dataset, column, width

    def rows(
        self, positions: Int[np.ndarray, " n"], width: int | None = None
    ) -> tuple[Shaped[np.ndarray, "n w"], Bool[np.ndarray, " n"]]:
        """As `Mapped.rows`. Raises ValueError for a list of another length."""
        found, back = self._take(positions)
        valid = found.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(found).to_numpy(zero_copy_only=False)[valid]
        if (wrong := lengths != self.width).any():
            raise ValueError(
                f"{self.dataset.uri}: {self.column} has {lengths[wrong][0]:.0f} numbers in a row, must have {self.width}"
            )
        flat = found.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
        if valid.all():
            return flat[back, :width], valid[back]
        values = np.zeros((len(found), self.width), flat.dtype)
        values[valid] = flat
        return values[back, :width], valid[back]

    def items(
        self, positions: Int[np.ndarray, " n"], choose: Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, "n k"]]
    ) -> Shaped[np.ndarray, "n k w"]:
        """As `Mapped.items`."""
        found, back = self._take(positions)
        offsets = found.offsets.to_numpy()
        chosen = choose(np.diff(offsets)[back].astype(np.int64))
        vectors = found.values
        flat = vectors.values.to_numpy(zero_copy_only=False).reshape(-1, self.width)
        return flat[vectors.offset + offsets[back][:, None] + chosen]

    def _take(self, positions: Int[np.ndarray, " n"]) -> tuple[pa.Array, Int[np.ndarray, " n"]]:
        """The rows, each once and in their order, which is cheapest, and where among them each position's is."""
        rows, back = np.unique(positions, return_inverse=True)
        found = self.dataset.take(rows.tolist(), columns=[self.column])[self.column]
        return (found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()), back


@dataclass(frozen=True)
class _Window:
    """The memory from an address on as an array of `length` overlapping items of `size` bytes, one byte from each to the next.

    Numpy copies the items of an index in one loop. Only those asked for are touched: between two files there may be nothing.
    """

    begin: int
    length: int
    size: int

    @property
    def __array_interface__(self) -> dict[str, Any]:
        place = {"data": (self.begin, True), "shape": (self.length,), "strides": (1,)}
        return place | {"typestr": f"|V{self.size}", "version": 3}


def _with_empty_pages(pages: list[_Rows | None], expected: int) -> _Rows:
    """The rows of a file where some pages, one after the other, have no values: as many as the others leave."""
    missing = expected - sum(len(page.starts) for page in pages if page is not None)
    runs = [at for at, page in enumerate(pages) if page is None and (at == 0 or pages[at - 1] is not None)]
    if missing < 0 or len(runs) > 1:
        raise Unmappable("pages without values lie between others, so that nobody can say whose they are")
    parts = [_Rows.empty(missing) if at in runs else page for at, page in enumerate(pages)]
    return _Rows.joined([part for part in parts if part is not None])


def _row_index(buffer: UInt8[np.ndarray, " bytes"], end: int) -> Int[np.ndarray, " n"]:
    """Where each row of a full-zip page begins, and where the last ends; the width of the numbers is not told, but how they end."""
    for dtype in (np.uint8, np.uint16, np.uint32, np.uint64):
        if len(buffer) % np.dtype(dtype).itemsize == 0:
            found = np.frombuffer(buffer.tobytes(), dtype).astype(np.int64)
            if found[0] == 0 and found[-1] == end and (np.diff(found) > 0).all():
                return found
    raise Unmappable(f"a page of {end} bytes has an index that does not end there")


def _physical_rows(dataset: lance.LanceDataset, firsts: dict[int, int]) -> Int[np.ndarray, " n"]:
    """Of each row of this version, its number among all that its files hold, deleted ones among them."""
    addresses = dataset.scanner(columns=[], with_row_address=True).to_table()["_rowaddr"].to_numpy()
    fragments, which = np.unique(addresses >> np.uint64(32), return_inverse=True)
    starts = np.array([firsts[int(fragment)] for fragment in fragments], np.int64)
    return starts[which] + (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
