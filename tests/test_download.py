"""Downloads from a real server on this machine, which breaks connections, lies and refuses as it is told."""

import hashlib
import http.server
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pipeline.fetch.download
import pipeline.fetch.persist
from pipeline.fetch.download import Record, download, sizes, verify

BIG = bytes(range(256)) * 4096  # 1 MiB


class Server(http.server.ThreadingHTTPServer):
    """Files by path. `ranges`: whether it can begin in the middle. `faults`: per path, what it does instead of answering."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.headers, self.faults, self.asked, self.ranges = {}, {}, {}, [], True
        self.place = f"http://127.0.0.1:{self.server_port}/data"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.removeprefix("/data/")
        server = self.server
        server.asked.append((self.command, path, self.headers.get("Range")))
        faults = server.faults.get(path, []) if body else []
        fault = faults.pop(0) if faults else None
        content = server.files.get(path)
        if content is None:
            return self.answer(404)
        if isinstance(fault, int):
            return self.answer(fault, {"Retry-After": "0"})
        if fault == "wrong":
            content = bytes(len(content))
        headers = {"ETag": f'"{hashlib.sha1(server.files[path]).hexdigest()}"'} | server.headers.get(path, {})
        range = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(range[1]) if range and server.ranges else 0
        if start and start >= len(content):
            return self.answer(416)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, headers | {"Content-Length": str(len(content) - start)}, end=False)
        if body:
            sent = content[start : start + fault[1]] if isinstance(fault, tuple) else content[start:]
            pause = fault[2] if isinstance(fault, tuple) and len(fault) > 2 else 0
            self.wfile.write(sent)
            self.wfile.flush()
            time.sleep(pause)
            if len(sent) < len(content) - start:
                self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status, headers=None, end=True):
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if end:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:  # the other end is gone, or this end closed on purpose
            pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(pipeline.fetch.persist, "PAUSES", (0.0, 0.0))
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(server, folder, *paths, **more):
    return {outcome.path: outcome for outcome in download(server.place, paths, folder, **more)}


def gets(server, path="a"):
    return [range for command, asked, range in server.asked if (command, asked) == ("GET", path)]


def linked(content):
    return {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}


def md5_of_s3(content):
    return {"Server": "AmazonS3", "ETag": f'"{hashlib.md5(content).hexdigest()}"'}


@pytest.mark.parametrize(("headers", "checked"), [(linked(BIG), "sha256"), ({}, "size")])
def test_files_arrive_whole_and_are_recorded_with_what_they_were_checked_by(server, tmp_path, headers, checked):
    server.files = {"a": BIG, "deep/er/ b%20ü#.glb": b"odd", "empty": b""}
    server.headers["a"] = headers
    server.files["deep/er/%20b%2520%C3%BC%23.glb"] = server.files["deep/er/ b%20ü#.glb"]
    outcomes = get(server, tmp_path, "a", "deep/er/ b%20ü#.glb", "empty")
    assert (tmp_path / "a").read_bytes() == BIG and (tmp_path / "deep/er/ b%20ü#.glb").read_bytes() == b"odd"
    assert [outcome.error for outcome in outcomes.values()] == [None] * 3
    line = Record(tmp_path).lines["a"]
    assert (line.bytes, line.sha256, line.checked) == (len(BIG), hashlib.sha256(BIG).hexdigest(), checked)
    assert [path.name for path in (tmp_path / ".parts").iterdir()] == ["lock"]


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    server.files = {"a": BIG, "b": b"b"}
    get(server, tmp_path, "a")
    server.asked.clear()
    outcomes = get(server, tmp_path, "a", "b")
    assert [(outcome.new, outcome.came) for outcome in outcomes.values()] == [(False, 0), (True, 1)]
    assert {path for _, path, _ in server.asked} == {"b"}


def test_what_another_tool_fetched_is_compared_and_taken_when_it_is_the_file(server, tmp_path):
    server.files = {"a": BIG, "b": BIG}
    server.headers = {"a": linked(BIG), "b": linked(BIG)}
    (tmp_path / "a").write_bytes(BIG)
    (tmp_path / "b").write_bytes(bytes(len(BIG)))
    outcomes = get(server, tmp_path, "a", "b")
    assert (outcomes["a"].new, outcomes["b"].new) == (False, True)
    assert gets(server, "a") == [] and (tmp_path / "b").read_bytes() == BIG


def test_a_connection_that_breaks_is_continued_where_it_broke_as_often_as_it_brings_something(server, tmp_path):
    server.files = {"a": BIG}
    server.headers["a"] = linked(BIG)
    server.faults["a"] = [("cut", 100_000)] * 6  # more often than it is tried in vain
    outcome = get(server, tmp_path, "a")["a"]
    assert (tmp_path / "a").read_bytes() == BIG and outcome.came == len(BIG)
    assert gets(server) == [None, *(f"bytes={number}00000-" for number in range(1, 7))]


def test_a_server_that_cannot_begin_in_the_middle_begins_anew(server, tmp_path):
    server.files, server.ranges = {"a": BIG}, False
    server.faults["a"] = [("cut", 500_000)]
    outcome = get(server, tmp_path, "a")["a"]
    assert (tmp_path / "a").read_bytes() == BIG and outcome.came > len(BIG)


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_one(server, tmp_path):
    server.files = {"a": BIG}
    server.faults["a"] = [("cut", 500_000)] + [503] * 9
    assert get(server, tmp_path, "a")["a"].error.reason == "unreachable"
    server.files["a"], server.faults["a"] = BIG[::-1], []
    get(server, tmp_path, "a")
    assert (tmp_path / "a").read_bytes() == BIG[::-1]


@pytest.mark.parametrize("headers", [linked, md5_of_s3])
def test_wrong_bytes_are_fetched_anew_and_never_kept(server, tmp_path, headers):
    server.files = {"a": BIG, "b": BIG}
    server.headers = {"a": headers(BIG), "b": headers(BIG)}
    server.faults = {"a": ["wrong"], "b": ["wrong", "wrong"]}
    outcomes = get(server, tmp_path, "a", "b")
    assert (tmp_path / "a").read_bytes() == BIG
    assert outcomes["b"].error.reason == "checksum_differs" and not (tmp_path / "b").exists()
    assert Record(tmp_path).lines.keys() == {"a"}


def test_an_etag_that_is_no_md5_is_not_taken_for_one(server, tmp_path):
    server.files = {"a": b"a", "b": b"b"}
    server.headers = {
        "a": {"Server": "nginx", "ETag": f'"{"0" * 32}"'},
        "b": {"Server": "AmazonS3", "ETag": f'"{"0" * 32}"', "x-amz-server-side-encryption": "aws:kms"},
    }
    assert [outcome.line.checked for outcome in get(server, tmp_path, "a", "b").values()] == ["size", "size"]


@pytest.mark.parametrize(
    ("status", "reason", "tries"), [(404, "not_there", 1), (403, "forbidden", 1), (400, "refused", 1), (500, "unreachable", 3)]
)
def test_what_cannot_be_had_is_a_failure_with_its_reason_and_the_others_come(server, tmp_path, status, reason, tries):
    server.files = {"a": b"a", "b": b"b"}
    server.faults["a"] = [status] * 9
    outcomes = get(server, tmp_path, "a", "b")
    assert outcomes["a"].error.reason == reason and "/data/a" in str(outcomes["a"].error)
    assert len(gets(server)) == tries and outcomes["b"].line


def test_too_many_requests_are_asked_again_when_the_server_says(server, tmp_path):
    server.files = {"a": b"a"}
    server.faults["a"] = [429, 503]
    assert get(server, tmp_path, "a")["a"].line and len(gets(server)) == 3


def test_a_path_that_leads_out_of_the_folder_is_refused(server, tmp_path):
    server.files = {"../b": b"b", "/etc/x": b"b"}
    for path in ("../b", "/etc/x", "a/../../b"):
        assert get(server, tmp_path / "into", path)[path].error.reason == "unsafe_path"
    assert not (tmp_path / "b").exists()


def test_a_copy_on_disk_or_in_a_store_is_a_place_as_well(tmp_path):
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "a").write_bytes(BIG)
    for number, place in enumerate((str(tmp_path / "from"), f"file://{tmp_path}/from")):
        outcomes = list(download(place, ["deep/a", "none"], tmp_path / str(number)))
        assert {outcome.path: outcome.error and outcome.error.reason for outcome in outcomes} == {
            "deep/a": None,
            "none": "not_there",
        }
        assert (tmp_path / str(number) / "deep" / "a").read_bytes() == BIG


def test_verify_finds_what_changed_and_the_next_download_mends_it(server, tmp_path):
    server.files = {name: name.encode() * 1000 for name in "abcd"}
    get(server, tmp_path, *"abcd")
    (tmp_path / "b").write_bytes(b"x" * 1000)
    (tmp_path / "c").unlink()
    found = {outcome.path: outcome.error and outcome.error.reason for outcome in verify(tmp_path)}
    assert found == {"a": None, "b": "file_differs", "c": "file_missing", "d": None}
    server.headers["b"] = linked(server.files["b"])
    assert sorted(path for path, outcome in get(server, tmp_path, *"abcd").items() if outcome.new) == ["b", "c"]
    assert not any(outcome.error for outcome in verify(tmp_path))
    with pytest.raises(FileNotFoundError, match="has no checksums.csv"):
        list(verify(tmp_path / "deep"))


def test_a_full_disk_stops_it_with_a_sentence(server, tmp_path, monkeypatch):
    server.files = {"a": BIG}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="make room"):
        get(server, tmp_path, "a")


def test_sizes_are_what_the_place_says(server):
    server.files = {"a": BIG, "b": b""}
    assert sizes(server.place, ["a", "b", "none"]) == {"a": len(BIG), "b": 0}


KILLED = """
import sys
from pathlib import Path
from pipeline.fetch.download import download
list(download(sys.argv[1], ["a", "b"], Path(sys.argv[2]), workers=2))
"""


def test_a_killed_download_goes_on_where_it_was(server, tmp_path):
    server.files = {"a": BIG * 4, "b": b"b"}
    server.headers["a"] = linked(BIG * 4)
    server.faults["a"] = [("slow", 3 * len(BIG), 60)]  # three quarters, then silence
    root = Path(pipeline.fetch.download.__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", KILLED, server.place, str(tmp_path)], cwd=root)
    until = time.monotonic() + 30
    while sum(path.stat().st_size for path in tmp_path.glob(".parts/*")) < 3 * len(BIG) - pipeline.fetch.download.PIECE:
        assert time.monotonic() < until
        time.sleep(0.02)
    with pytest.raises(BlockingIOError):  # two at once would spoil each other's files
        get(server, tmp_path, "a")
    child.send_signal(signal.SIGKILL)
    child.wait()
    outcome = get(server, tmp_path, "a", "b")["a"]
    assert (tmp_path / "a").read_bytes() == BIG * 4
    assert outcome.came <= len(BIG) + pipeline.fetch.download.PIECE
