import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from render import confine

pytestmark = pytest.mark.skipif(not confine.version(), reason="this kernel has no Landlock")
PYTHON = (sys.prefix, sys.base_prefix)


def run(program: str, folder: Path, **settings) -> str:
    """What a confined Python program says last: "done", or the name of what it raised."""
    wrapped = f"try:\n    {program}\n    print('done')\nexcept OSError as error:\n    print(type(error).__name__)"
    command = confine.command([sys.executable, "-c", wrapped], readable=PYTHON, writable=[str(folder)], **settings)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1]


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """A folder of the program's own, a secret beside it, and a link to the secret within."""
    own, secret = tmp_path / "own", tmp_path / "secret.txt"
    own.mkdir()
    secret.write_text("secret")
    (own / "link").symlink_to(secret)
    (own / "mine.txt").write_text("mine")
    return {"own": own, "secret": secret}


TRIES = {
    "a file outside its folder is read": "open({secret!r}).read()",
    "a link leads out of its folder": "open({own!r} + '/link').read()",
    "a folder outside its own is listed": "import os; os.listdir({outside!r})",
    "a file outside its folder is written": "open({outside!r} + '/new', 'w')",
    "a file outside its folder is cut": "import os; os.truncate({secret!r}, 0)",
    "a file outside its folder is removed": "import os; os.remove({secret!r})",
    "a link is made": "import os; os.symlink({secret!r}, {own!r} + '/new')",
    "/etc/passwd is read": "open('/etc/passwd').read()",
    "its parent's environment is read": "open('/proc/{parent}/environ').read()",
    "its parent gets a signal": "import os; os.kill({parent}, 0)",
    "a connection is made": "import socket; socket.create_connection(('127.0.0.1', {port}))",
    "a port is listened on": "import socket; socket.create_server(('127.0.0.1', 0))",
}


@pytest.mark.parametrize("what", TRIES)
def test_what_a_confined_program_cannot_do_it_could_unconfined(places, tmp_path, what):
    with socket.create_server(("127.0.0.1", 0)) as server:
        named = {name: str(path) for name, path in places.items()} | {"outside": str(tmp_path)}
        program = TRIES[what].format(**named, parent=os.getpid(), port=server.getsockname()[1])
        assert run(program, places["own"]) == "PermissionError"
        assert run(program, places["own"], confine=False) == "done"


def test_in_its_own_folder_it_may_do_what_it_likes(places):
    own = str(places["own"])
    makes = f"import os; os.mkdir({own!r} + '/a'); open({own!r} + '/a/b', 'w').write('x'); os.listdir({own!r})"
    removes = f"import os; os.remove({own!r} + '/mine.txt'); open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(1)"
    assert run(makes, places["own"]) == run(removes, places["own"]) == "done"
    assert (places["own"] / "a" / "b").read_text() == "x" and not (places["own"] / "mine.txt").exists()


def test_what_it_starts_is_confined_as_well(places):
    program = f"import subprocess; print(subprocess.run(['/bin/cat', {str(places['secret'])!r}]).returncode)"
    command = confine.command([sys.executable, "-c", program], readable=PYTHON)
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout == "1\n" and "denied" in ended.stderr


@pytest.mark.parametrize("confined", [True, False])
def test_a_file_grows_to_its_limit_and_no_further(places, confined):
    program = f"open({str(places['own'])!r} + '/big', 'wb', buffering=0).write(bytes(2000))"
    run(program, places["own"], file_bytes=1000, confine=confined)
    assert (places["own"] / "big").stat().st_size == 1000


def test_a_kernel_without_landlock_starts_the_program_all_the_same(places, monkeypatch):
    monkeypatch.setattr(confine, "version", lambda: 0)
    confine.confine([(confine.READ, "/usr")])
    assert places["secret"].read_text() == "secret"
