"""Exploring: what is found, what is told of an object, and what nobody from outside may do. Over a real server on the loopback."""

import io
import json
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from explored import COLORS, HOSTILE, LOG, REFUSED, TEACHER, made_corpus, served
from PIL import Image

from jobs.__main__ import main
from reports.catalogue import read, rows_to_read
from schemas.corpus import Reader
from schemas.tables import CAPTIONS


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return made_corpus(str(tmp_path_factory.mktemp("explore") / "a corpus")).root


@pytest.fixture(scope="module")
def catalogue(root):
    return read(Reader.at(root))


@pytest.fixture(scope="module")
def server(root):
    with served(root) as running:
        yield running


@pytest.fixture
def get(server):
    """Answers of the server: JSON, or the bytes of what is none."""

    def ask(path: str, **asked):
        answer = requests.get(server.address + path, params=asked, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.content

    return ask


def found(get, **asked) -> list[str]:
    told = get("/api/objects", **asked)
    assert told["total"] == len(told["objects"])
    return [one["id"].removeprefix("test/") for one in told["objects"]]


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("chair", "0"),  # a word, not a part of one: the armchair is none
        ("CHAI", "0"),
        ("furniture", "01"),
        ("seat", "01"),  # a tag of one, a kept caption of the other
        ("red legs", "0"),  # name and caption together
        ("legs  red ", "0"),
        ("red blue", ""),
        ("nonsense", ""),  # in a dropped caption
        ("green tree", "2"),
        ("green_tree", "2"),
        ("(old)", "2"),
        ("evergreen", "2"),  # a label
        ("übergröße", "6"),
        ("ÜBER", "6"),
        ("test/3", "3"),
        ("er", ""),
        (" ", "01234567"),
    ],
)
def test_words_are_found_where_they_begin_in_all_that_is_said_of_an_object(catalogue, text, objects):
    mask = catalogue.saying(text)
    assert {catalogue.ids[int(place)].as_py() for place in np.flatnonzero(mask)} - {REFUSED} == {f"test/{one}" for one in objects}


def test_filters_hold_together_and_each_counts_what_it_would_leave(get):
    assert found(get, license="CC-BY-4.0") == ["0"]
    assert found(get, category="furniture") == ["0", "1"]
    assert found(get, category="furniture", captions="kept, of cap3d") == ["1"]
    assert found(get, captions="some kept") == ["0", "1", "5"]
    assert found(get, captions="dropped: boilerplate") == ["0"]
    assert found(get, failures="any") == ["4", "5", "refused"]
    assert found(get, failures="render: gate: black") == ["4", "5"]
    assert found(get, made="no views") == ["3", "4", "5", "6", "7", "refused"]
    assert found(get, warning="flat_geometry") == ["2"] and found(get, warning="missing_texture") == ["3"]
    assert found(get, split="lvis") == ["2"]
    assert found(get, category="nothing of the kind") == []
    facets = get("/api/objects", category="furniture", captions="kept, of cap3d")["facets"]
    assert facets["category"]["values"] == [["furniture", 1]]  # of those with such captions
    assert sorted(facets["captions"]["values"]) == [
        ["dropped: boilerplate", 1],
        ["kept, of cap3d", 1],
        ["kept, of metadata", 1],
        ["some kept", 2],
    ]
    assert get("/api/objects")["facets"]["failures"]["values"] == [
        ["none", 6],
        ["any", 3],
        ["render: gate: black", 2],
        ["ingest: asset_missing", 1],
    ]


def test_pages_follow_one_another_and_chance_is_the_seeds(get):
    whole = found(get)
    assert len(whole) == 9
    pages = [get("/api/objects", offset=first, count=4) for first in (0, 4, 8, 12)]
    assert {page["total"] for page in pages} == {9}
    assert [one["id"].removeprefix("test/") for page in pages for one in page["objects"]] == whole
    orders = {tuple(found(get, shuffle=seed)) for seed in (1, 1, 2, 3)}
    assert len(orders) == 3 and all(sorted(order) == sorted(whole) for order in orders) and tuple(whole) not in orders


def test_all_that_is_known_of_an_object_is_told(get):
    told = get("/api/object", id="test/0")
    assert told["about"]["creator"] == "Ada" and told["license"] == "CC-BY-4.0" and not told["failed"]
    assert [view["view"] for view in told["views"]] == [0, 1, 2, 3]
    assert [(one["text"], one["kept"], one["dropped_because"]) for one in told["captions"]] == [
        ("a chair with four legs", True, None),
        ("nonsense nonsense", False, "boilerplate"),
    ]
    assert told["points"] is None
    tree = get("/api/object", id="test/2")
    assert tree["points"] == {"vertices": 1002, "faces": 2000, "area": 12.5, "warnings": ["flat_geometry"]}
    assert tree["splits"] == [{"split": "lvis", "label": "evergreen"}]
    refused = get("/api/object", id=REFUSED)
    assert refused["about"] is None and refused["views"] == [] and refused["failures"][0]["reason"] == "asset_missing"
    assert "SPDX" in get("/api/corpus")["columns"]["objects"]["license"]


def test_a_failure_says_what_happened_and_what_to_type(get, root):
    [failure] = get("/api/object", id="test/4")["failures"]
    assert failure["log_tail"] == LOG and failure["attempts"] == 3 and failure["thumbnail"] and failure["pictured"]
    command = shlex.split(failure["command"])
    assert command == ["python", "-m", "jobs", "retry", root, "--stage", "render", "--reason", "gate: black"]
    assert Image.open(io.BytesIO(get("/thumbnail", id="test/4", stage="render"))).size == (96, 24)


def test_failures_are_listed_by_reason_those_of_texts_too(get):
    kinds = get("/api/failures")["kinds"]
    assert [(kind["stage"], kind["reason"], kind["count"]) for kind in kinds] == [
        ("render", "gate: black", 2),
        ("ingest", "asset_missing", 1),
        ("embed-texts", "too_long", 1),
    ]
    black = get("/api/failures", stage="render", reason="gate: black")
    assert [one["object_id"] for one in black["failures"]] == ["test/4", "test/5"] and black["total"] == 2
    later = get("/api/failures", stage="render", reason="gate: black", offset=1)
    assert [one["object_id"] for one in later["failures"]] == ["test/5"]
    [text] = get("/api/failures", stage="embed-texts", reason="too_long")["failures"]
    assert not text["known"]


def pixel(image: bytes) -> tuple[int, ...]:
    return Image.open(io.BytesIO(image)).convert("RGB").getpixel((5, 5))


def test_a_view_is_the_one_that_was_asked_for(get, root):
    stored = Reader.at(root).need("views").to_table(columns=["object_id", "view", "image"]).to_pylist()
    assert len(stored) == 12
    for row in stored:
        assert get("/view", id=row["object_id"], view=row["view"]) == row["image"]
    assert pixel(get("/picture", id="test/1")) == COLORS[1]


def test_what_has_no_views_is_pictured_by_its_failure_or_its_points(get):
    assert pixel(get("/picture", id="test/4")) == (9, 9, 9)
    drawn = np.asarray(Image.open(io.BytesIO(get("/picture", id="test/3"))).convert("RGBA"))
    assert 0.3 < (drawn[..., 3] > 0).mean() < 0.9
    pictured = {one["id"].removeprefix("test/"): one["pictured"] for one in get("/api/objects")["objects"]}
    assert {id for id, there in pictured.items() if there} == set("01234")


def test_points_are_the_stored_ones(get, root):
    for number in (2, 3):
        [row] = Reader.at(root).need("points").to_table(filter=f"object_id = 'test/{number}'").to_pylist()
        answer = get("/points", id=f"test/{number}")
        [many] = np.frombuffer(answer, "<u4", 1)
        np.testing.assert_array_equal(np.frombuffer(answer, "<f4", 3 * many, 4), row["xyz"])
        np.testing.assert_array_equal(np.frombuffer(answer, np.uint8, offset=4 + 12 * many), row["rgb"] or [])


def test_the_likest_come_first_and_are_not_the_object_itself(get, server):
    assert server.about["teacher"] == TEACHER
    told = get("/api/alike", id="test/0")
    assert [one["id"] for one in told] == ["test/1", "test/2"]
    assert told[0]["score"] > told[1]["score"] and told[0]["name"] == "Armchair"
    assert get("/api/alike", id="test/6") == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/object?id=nobody", 404),
        ("/picture?id=../../../etc/passwd", 404),
        ("/picture?id=test/6", 404),
        ("/picture", 404),
        ("/view?id=test/0&view=9", 404),
        ("/view?id=test/0&view=-1", 400),
        ("/view?id=test/6&view=0", 404),
        ("/points?id=test/6", 404),
        ("/thumbnail?id=test/5&stage=render", 404),
        ("/api/failures?stage=render&reason=nothing", 404),
        ("/api/objects?offset=x", 400),
        ("/api/objects?shuffle=1e9", 400),
        ("/api/object?id=' OR true --", 404),
        ("/explore.py", 404),
        ("/..%2f..%2fpyproject.toml", 404),
        ("/static/explore.js", 404),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(server, path, code):
    answer = requests.get(server.address + path, timeout=60)
    assert answer.status_code == code
    assert answer.json()["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(server, method):
    assert requests.request(method, server.address + "/api/objects", timeout=60).status_code == 405


def test_nothing_is_written_to_the_corpus(root, get):
    def state() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in Path(root).rglob("*")}

    before = state()
    get("/api/object", id="test/0")
    get("/api/alike", id="test/0")
    found(get, q="chair")
    assert state() == before


def test_names_of_elsewhere_that_lead_here_are_refused(server):
    port = server.address.rpartition(":")[2]
    for host, code in (
        (f"127.0.0.1:{port}", 200),
        (f"localhost:{port}", 200),
        ("localhost:80", 200),
        (f"evil.example:{port}", 400),
        (f"127.0.0.1.evil.example:{port}", 400),
        ("", 400),
    ):
        assert requests.get(server.address + "/api/corpus", headers={"Host": host}, timeout=60).status_code == code, host


def test_every_answer_forbids_what_comes_from_elsewhere(server):
    for path, host in (("/", None), ("/api/corpus", None), ("/picture?id=test/0", None), ("/nothing", None), ("/", "evil.example")):
        answer = requests.get(server.address + path, headers={"Host": host} if host else {}, timeout=60)
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert not any(word in " ".join(policy.values()) for word in ("http", "*", "unsafe-eval"))
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_other_machines_cannot_reach_it(server):
    port = int(server.address.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; says which address this machine has to others
        own = probe.getsockname()[0]
    for address in {own, "127.0.0.2"}:
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=5).close()


def test_a_key_press_ends_it_quietly(root):
    with served(root, stderr=subprocess.PIPE) as running, requests.Session() as held:
        assert held.get(running.address + "/", timeout=60).status_code == 200
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=60) == 0
        assert (running.process.stdout.read(), running.process.stderr.read()) == ("", "")


def test_a_corpus_of_objects_alone_is_explored(corpus):
    held = read(Reader.at(corpus.root))
    assert held.saying("thing 1").sum() == 11
    assert held.reasons == [] and not held.pictured.any()
    assert dict(held.facets["made"].counts(held.saying(""))) == {"no views": 20, "no points": 20}
    assert held.rows("views", 0) == [] and held.rows("objects", 0, ["name"]) == [{"name": "Thing 0"}]


def test_rows_that_came_while_it_is_open_are_not_seen(tmp_path):
    made = made_corpus(str(tmp_path / "corpus"))
    held = read(Reader.at(made.root))
    made.delete(CAPTIONS, ["test/0"], "stage = 'caption'")
    assert len(held.rows("captions", held.number("test/0"))) == 2
    assert len(read(Reader.at(made.root)).rows("captions", 0)) == 0


def test_progress_counts_every_row(root):
    told = []
    read(Reader.at(root), told.append)
    assert told == sorted(told) and told[-1] == rows_to_read(Reader.at(root)) == 8 + 12 + 2 + 5 + 1 + 4


def test_what_cannot_be_served_is_refused(root, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["explore", root, "--port", str(port)]) == 1
    assert f"--port {port}: address already in use; take another one" in capsys.readouterr().err
    assert main(["explore", root, "--port", "70000"]) == 2
    assert main(["explore", root, "--teacher", "nobody"]) == 2
    assert TEACHER in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "none"), "--json"]) == 1
    assert "has no table 'objects'" in json.loads(capsys.readouterr().out)["error"]


def test_a_hostile_text_is_data(get):
    told = get("/api/object", id="test/5")
    assert told["name"] == HOSTILE and told["failures"][0]["log_tail"] == HOSTILE
    page = get("/").decode()
    assert HOSTILE not in page and "owned" not in page
