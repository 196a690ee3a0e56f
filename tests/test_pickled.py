import io
import os
import pickle
import time

import numpy as np
import pytest

from pipeline.imports.pickled import load_pickled, load_pickled_list, mapped, plain
from pipeline.stage import ObjectError

ARRAYS = {
    "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "big-endian": np.array([1.5, -2], dtype=">f8"),
    "bits": np.array([True, False]),
    "none": np.zeros((0, 4), np.float16),
}
NESTED = {"text": ["a", "ü", ""], "pairs": {"x": (1, 2.5, None, True)}, "number": np.float32(0.5), "word": np.str_("word")}


def npy(value, protocol=3) -> bytes:
    """The bytes of an .npy file with one pickled object, as numpy.save writes it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(np.array(None)))
    holder = np.empty((), object)
    holder[()] = value
    pickle.dump(holder, file, protocol=protocol)
    return file.getvalue()


def program(code: bytes) -> bytes:
    """The same with instructions of one's own."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(np.array(None)))
    return file.getvalue() + code


class Runs:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(1, 6))
def test_what_numpy_saved_is_read_as_it_was(protocol, tmp_path):
    found = load_pickled(tmp_path, npy(ARRAYS | NESTED, protocol))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(plain(found[name]), array)
        assert plain(found[name]).dtype == array.dtype
    assert {name: found[name] for name in NESTED} == NESTED


def test_numpy_itself_reads_the_same(tmp_path):
    np.save(tmp_path / "a.npy", ARRAYS, allow_pickle=True)
    found = load_pickled(tmp_path, (tmp_path / "a.npy").read_bytes())
    assert found.keys() == np.load(tmp_path / "a.npy", allow_pickle=True).item().keys()


@pytest.mark.parametrize("protocol", range(1, 6))
def test_a_program_is_refused_and_not_run(protocol, tmp_path):
    mark = tmp_path / "mark"
    attack = npy({"xyz": Runs(os.system, f"touch {mark}")}, protocol)
    with pytest.raises(ObjectError, match=r"system|instruction") as raised:
        load_pickled(tmp_path, attack)
    assert raised.value.reason == "unsafe_pickle" and not mark.exists()
    np.load(io.BytesIO(attack), allow_pickle=True)
    assert mark.exists(), "the attack is a real one"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("1",)),
        (getattr, ("a", "upper")),
        (np.load, ("/etc/passwd",)),
        (np.fromfile, ("/etc/passwd",)),
        (bytearray, (10**12,)),
        (np.zeros, ((10**6,),)),
        (io.open, ("/etc/passwd",)),
    ],
)
def test_no_other_function_is_called(function, arguments, tmp_path):
    with pytest.raises(ObjectError) as raised:
        load_pickled(tmp_path, npy({"x": Runs(function, *arguments)}))
    assert raised.value.reason == "unsafe_pickle"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"cnumpy\nndarray\n}X\x01\x00\x00\x00a)sb.", "unsafe_pickle"),  # sets an attribute of what it names
        (b"X\x01\x00\x00\x00aX\x01\x00\x00\x00b)R.", "unsafe_pickle"),  # calls a text
        (b"cnumpy\nndarray\n)\x81.", "unsafe_pickle"),
        (b"(cos\nsystem\nX\x02\x00\x00\x00ido.", "unsafe_pickle"),
        (b"(X\x02\x00\x00\x00idios\nsystem\n.", "unsafe_pickle"),
        (b"Ppersistent\n.", "unsafe_pickle"),
        (b"\x82\x01.", "unsafe_pickle"),  # a registered extension
        (b"}" + b")" + b"\x85" * 100_000 + b"Ns.", "unsafe_pickle"),  # to hash this overflows the stack
        (b"N" + b"\x85" * 100_000 + b".", "unreadable"),
        (b"]r\xff\xff\xff\xff.", "unreadable"),  # C's machine takes 64 GB for this memo
        (b"B\xff\xff\xff\x7fabc", "unreadable"),
        (b"", "unreadable"),
        (b"no pickle", "unsafe_pickle"),
    ],
)
def test_a_forged_pickle_is_refused_at_once(code, reason, tmp_path):
    began = time.monotonic()
    with pytest.raises(ObjectError) as raised:
        load_pickled(tmp_path, program(code))
    assert raised.value.reason == reason and time.monotonic() - began < 2


@pytest.mark.parametrize("shape", [(10**12,), (-1,), (2, 2)])
def test_an_array_takes_no_more_than_its_bytes(shape, tmp_path):
    with pytest.raises(ObjectError, match="array"):
        state = (1, shape, np.dtype("f4"), False, b"\0" * 12)
        load_pickled(tmp_path, npy({"x": Built(state)}))


class Built:
    """Pickles as an array with a state of one's own."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_npy"),
        (b"\x93NUMPY\x01\x00", "not_npy"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not_npy"),
        (npy({"a": 1})[:-20], "unreadable"),
    ],
)
def test_what_is_no_pickled_object_is_told(content, reason, tmp_path):
    with pytest.raises(ObjectError) as raised:
        load_pickled(tmp_path, content)
    assert raised.value.reason == reason


def test_a_plain_array_is_no_object(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    with pytest.raises(ObjectError, match="not one pickled dictionary"):
        load_pickled(tmp_path, file.getvalue())


def many(place, shape, code: bytes) -> None:
    """An .npy file with an array of so many objects, as far as it says."""
    with open(place, "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty(shape, object))
        np.lib.format.write_array_header_1_0(file, header)
        file.write(code)


@pytest.mark.parametrize("protocol", range(1, 6))
def test_a_mapped_list_is_read_as_it_was_and_its_arrays_are_views(protocol, tmp_path):
    objects = np.empty(3, object)
    objects[:] = [{"xyz": np.arange(size, dtype=np.float32)} for size in (10, 5_000, 50_000)]
    many(tmp_path / "a.npy", 3, pickle.dumps(objects, protocol=protocol))
    found = load_pickled_list(tmp_path / "a.npy", mapped(tmp_path / "a.npy"))
    for one, other in zip(found, objects, strict=True):
        np.testing.assert_array_equal(plain(one["xyz"]), other["xyz"])
        assert not plain(one["xyz"]).flags.writeable
    if protocol in (3, 4):  # the ones that numpy.save takes
        large = plain(found[2]["xyz"])
        while isinstance(large.base, np.ndarray):
            large = large.base
        assert isinstance(large.base, memoryview)


def test_long_texts_of_python_2_in_a_mapped_file_are_arrays(tmp_path):
    content = bytes(range(256)) * 20
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    size = len(content).to_bytes(4, "little")
    many(tmp_path / "a.npy", 5120, b"\x80\x02" + array + b"(K\x01J" + size + b"\x85" + dtype + b"\x89T" + size + content + b"tb.")
    assert bytes(load_pickled_list(tmp_path / "a.npy", mapped(tmp_path / "a.npy"))) == content


def test_a_list_that_does_not_have_what_it_states_is_refused(tmp_path):
    objects = np.empty(3, object)
    for stated, holds in ((2, objects), (3, np.array(None))):
        many(tmp_path / "a.npy", stated, pickle.dumps(holds, protocol=3))
        with pytest.raises(ObjectError) as error:
            load_pickled_list(tmp_path / "a.npy", mapped(tmp_path / "a.npy"))
        assert error.value.reason == "unreadable"
    with pytest.raises(ObjectError) as error:
        load_pickled(tmp_path / "a.npy", mapped(tmp_path / "a.npy"))
    assert error.value.reason == "not_npy"
