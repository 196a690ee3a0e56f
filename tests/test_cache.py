import multiprocessing
import os
import time

import fsspec
import pytest

import pipeline.fetch.persist
from pipeline.fetch.cache import opened
from pipeline.stage import ObjectError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, and no long pauses."""
    monkeypatch.setenv("TRICORPUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline.fetch.persist, "PAUSES", (0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def store():
    """A function that puts bytes into an object store of this process and says where."""
    filesystem = fsspec.filesystem("memory")

    def put(name, content):
        filesystem.pipe_file(f"/cached/{name}", content)
        return f"memory://cached/{name}"

    yield put
    filesystem.rm("/cached", recursive=True)


def sizes(folder):
    return sorted(path.stat().st_size for path in folder.iterdir())


def test_a_local_path_is_given_as_it_is_and_not_looked_at(folder):
    with opened("/nowhere/at/all.glb") as path:
        assert str(path) == "/nowhere/at/all.glb"
    with opened("file:///nowhere/at/all.glb") as path:
        assert str(path) == "/nowhere/at/all.glb"
    assert not folder.exists()


def test_a_remote_file_is_fetched_once_and_anew_when_it_changed(folder, store, monkeypatch):
    place = store("a.GLB", b"first")
    fetched = []
    get_file = type(fsspec.filesystem("memory")).get_file
    monkeypatch.setattr(
        "fsspec.implementations.memory.MemoryFileSystem.get_file",
        lambda self, *given, **more: fetched.append(given) or get_file(self, *given, **more),
    )
    for _ in range(2):
        with opened(place) as path:
            assert path.read_bytes() == b"first" and path.suffix == ".glb" and path.parent == folder
    store("a.GLB", b"other")
    with opened(place) as path:
        assert path.read_bytes() == b"other"
    assert len(fetched) == 2


def test_nothing_there_is_said_and_leaves_nothing(folder, store):
    with pytest.raises(FileNotFoundError), opened("memory://cached/none.glb"):
        pass
    store("deep/a.glb", b"x")
    with pytest.raises(FileNotFoundError, match="is a folder"), opened("memory://cached/deep"):
        pass
    assert not folder.exists() or not sizes(folder)


def test_what_was_not_used_for_longest_goes_first_and_what_is_in_use_stays(folder, store, monkeypatch):
    monkeypatch.setenv("TRICORPUS_CACHE_GB", "0.000000250")  # 250 bytes
    places = [store(name, bytes(100)) for name in ("a.glb", "b.glb", "c.glb")]
    with opened(places[0]) as first:
        with opened(places[1]) as second:
            pass
        os.utime(first, (1, 1))  # used longest ago, yet in use
        with opened(places[2]) as third:
            assert first.exists() and third.exists() and not second.exists()
    with opened(store("d.glb", bytes(240))) as fourth:  # leaves no room for others
        assert sizes(folder) == [240]
    with opened(store("e.glb", bytes(999))) as fifth:  # larger than the cache: there while it is used
        assert fifth.stat().st_size == 999 and not fourth.exists()


def test_a_broken_connection_is_tried_again_and_a_cut_file_never_kept(folder, store, monkeypatch):
    place = store("a.glb", b"content")
    tries = []

    def get_file(self, remote, local, **_):
        tries.append(local)
        if len(tries) == 1:
            raise ConnectionResetError("reset by peer")
        with open(local, "wb") as file:
            file.write(b"content"[: 3 if len(tries) == 2 else None])

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", get_file)
    with opened(place) as path:
        assert path.read_bytes() == b"content"
    assert len(tries) == 3


def test_a_store_that_never_answers_costs_the_object(folder, store, monkeypatch):
    place = store("a.glb", b"content")
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", lambda *_, **__: 1 / 0)
    with pytest.raises(ObjectError, match="memory://cached/a.glb cannot be fetched .*ZeroDivision") as raised, opened(place):
        pass
    assert (raised.value.reason, raised.value.attempts) == ("unreachable", 3)


def test_a_full_disk_is_no_fault_of_the_object(folder, store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    place = store("a.glb", b"content")
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", full)
    with pytest.raises(OSError, match="No space left"), opened(place):
        pass


@pytest.mark.parametrize("given", ["much", "0", "-1", "nan"])
def test_a_wrong_limit_is_a_sentence(folder, store, monkeypatch, given):
    monkeypatch.setenv("TRICORPUS_CACHE_GB", given)
    with pytest.raises(RuntimeError, match=f"TRICORPUS_CACHE_GB is '{given}': must be"), opened(store("a.glb", b"x")):
        pass


def _use(number, places, folder, barrier, told):
    """One of many processes that use the same small cache."""
    os.environ |= {"TRICORPUS_CACHE": folder, "TRICORPUS_CACHE_GB": "0.000003"}  # 3,000 bytes: three files
    filesystem = fsspec.filesystem("memory")
    fetched = []
    get_file = filesystem.get_file

    def slowly(remote, local):
        time.sleep(0.002)
        fetched.append(remote)
        get_file(remote, local)

    filesystem.get_file = slowly
    for place in places:
        filesystem.pipe_file(place.removeprefix("memory:/"), place[-5:].encode() * 200)
        filesystem.store[place.removeprefix("memory:/")].created = 0  # one state for all processes
    barrier.wait()
    good = 0
    for turn in range(60):
        place = places[(turn * 7 + number) % len(places)]
        with opened(place) as path:
            good += path.read_bytes() == place[-5:].encode() * 200
    told.put((good, len(fetched)))


def test_many_processes_share_one_small_cache_and_each_reads_what_it_asked_for(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier, told = spawn.Barrier(4), spawn.Queue()
    places = [f"memory://shared/{name}.glb" for name in "abcdefg"]
    users = [spawn.Process(target=_use, args=(number, places, str(tmp_path / "cache"), barrier, told)) for number in range(4)]
    for user in users:
        user.start()
    results = [told.get(timeout=60) for _ in users]
    for user in users:
        user.join()
    assert [good for good, _ in results] == [60] * 4
    assert sum(sizes(tmp_path / "cache")) <= (3 + 4) * 1000
    assert not list((tmp_path / "cache").glob("*.part"))
