"""Downloads from a server on this machine: whole, broken off and gone on with, and wrong."""

import hashlib
import http.server
import json
import sys
import threading

import numpy as np
import pytest

from peppp.cli import main
from peppp.errors import DataError
from peppp.tasks import fetching
from peppp.tasks.fetching import Archive, archive_of, fetch

DATA = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()


class Server(http.server.BaseHTTPRequestHandler):
    data, ranges, stop_after, status = DATA, True, None, None

    def do_GET(self):
        start = 0
        wanted = self.headers.get("Range")
        type(self).seen.append(wanted)
        if self.status:
            self.send_error(self.status)
            return
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : self.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Handler(Server):
        pass

    Handler.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Handler.archive = Archive(
            "set.tar.gz", f"http://127.0.0.1:{running.server_port}/set.tar.gz", len(DATA),
            hashlib.sha256(DATA).hexdigest(),
        )  # fmt: skip
        yield Handler
        running.shutdown()


def test_an_archive_is_fetched_once(server, tmp_path):
    steps = []
    path = fetch(server.archive, tmp_path / "data", progress=lambda *at: steps.append(at))
    assert path.read_bytes() == DATA
    assert steps[-1] == (len(DATA), len(DATA))
    assert [p.name for p in path.parent.iterdir()] == ["set.tar.gz"]
    assert fetch(server.archive, tmp_path / "data") == path
    assert server.seen == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_line_is_gone_on_with(server, tmp_path, ranges):
    server.stop_after = 1_234_567
    with pytest.raises(DataError, match="run the same line again to resume"):
        fetch(server.archive, tmp_path)
    part = tmp_path / "set.tar.gz.part"
    assert 0 < part.stat().st_size <= 1_234_567
    assert not (tmp_path / "set.tar.gz").exists()
    have = part.stat().st_size
    server.stop_after, server.ranges = None, ranges
    assert fetch(server.archive, tmp_path).read_bytes() == DATA
    assert server.seen == [None, f"bytes={have}-"]
    assert not part.exists()


def test_a_wrong_checksum_keeps_nothing(server, tmp_path):
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(DataError, match=r"set\.tar\.gz\.part has the sha256"):
        fetch(server.archive, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set.tar.gz").write_bytes(server.data)  # one that somebody else put there stays, and is named
    with pytest.raises(DataError, match=r"set\.tar\.gz has the sha256"):
        fetch(server.archive, tmp_path)
    assert (tmp_path / "set.tar.gz").exists()


def test_a_file_that_is_too_long_is_not_taken(server, tmp_path):
    server.data = DATA + b"more"
    with pytest.raises(DataError, match="3000004 bytes, not the 3000000"):
        fetch(server.archive, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_servers_that_refuse_or_are_not_there(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match="answered 404"):
        fetch(server.archive, tmp_path)
    nowhere = Archive("a", "http://127.0.0.1:9/a", 1, "")
    with pytest.raises(DataError, match=r"cannot reach http://127\.0\.0\.1:9/a: .*; is there a network"):
        fetch(nowhere, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="name another folder"):
        fetch(server.archive, tmp_path / "file")


def test_what_can_be_fetched():
    assert archive_of("cifar10").size == 170_498_071
    assert archive_of("cifar100-fish") is archive_of("cifar100-trees") is fetching.ARCHIVES["CIFAR-100"]
    assert all(len(one.sha256) == 64 for one in fetching.ARCHIVES.values())
    with pytest.raises(DataError, match=r"ISIC 2019 .*CC BY-NC 4.0\), which peppp does not download"):
        archive_of("isic")


def test_the_command_fetches_into_the_data_root(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "ARCHIVES", {"CIFAR-10": server.archive})
    monkeypatch.setenv("PEPPP_DATA", str(tmp_path / "elsewhere"))
    command = ["peppp", "datasets", "fetch", "cifar10", "--data-root", str(tmp_path / "root"), "--json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(tmp_path / "root" / "set.tar.gz")
    assert (tmp_path / "root" / "set.tar.gz").read_bytes() == DATA
