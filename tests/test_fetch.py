"""Fetching from a server on this machine: what arrives whole, what does not, and that a run never asks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from run_folders import call

from curate.errors import ConfigError, DataError, MachineError
from curate.fetch import MODELS, fetch

BODY = bytes(range(256)) * 5000
SHA = hashlib.sha256(BODY).hexdigest()


class _Server(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path == "/cut" else BODY)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    _Server.asked.clear()
    with HTTPServer(("127.0.0.1", 0), _Server) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_is_not_asked_for_again(server: str, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    found = fetch("m.bin", tmp_path / "models", url=f"{server}/m", sha256=SHA.upper(), progress=lambda *said: heard.append(said))
    assert (found.path, found.bytes, found.sha256, found.new) == (tmp_path / "models" / "m.bin", len(BODY), SHA, True)
    assert found.path.read_bytes() == BODY
    assert heard[-1] == (len(BODY), len(BODY))
    assert not fetch("m.bin", tmp_path / "models", url=f"{server}/m").new
    assert _Server.asked == ["/m"]


@pytest.mark.parametrize(
    ("path", "more", "kind", "said"),
    [
        ("/cut", {}, MachineError, "ended after 1,000 of 1,280,000 bytes"),
        ("/gone", {}, DataError, "answers 404"),
        ("/m", {"sha256": "0" * 64}, DataError, f"got {SHA}; nothing was kept"),
    ],
)
def test_what_is_not_whole_is_not_kept(server: str, tmp_path: Path, path: str, more: dict[str, str], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        fetch("m.bin", tmp_path, url=server + path, **more)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_compared(tmp_path: Path) -> None:
    (tmp_path / "lid.176.ftz").write_bytes(b"something else")
    with pytest.raises(DataError, match="remove it to fetch it again"):
        fetch("lid176-small", tmp_path, sha256=SHA)
    assert (tmp_path / "lid.176.ftz").read_bytes() == b"something else"


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("lid167", {}, "unknown model 'lid167'.*lid176"),
        ("lid176", {"sha256": "12"}, "64 hexadecimal digits, got '12'"),
        ("m.bin", {"url": "no address"}, "expected --url as an address"),
    ],
)
def test_wrong_words(tmp_path: Path, name: str, more: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fetch(name, tmp_path, **more)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_the_machines_fault(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _Server) as closed:
        address = f"http://127.0.0.1:{closed.server_port}/m"
    with pytest.raises(MachineError, match="could not fetch"):
        fetch("m.bin", tmp_path, url=address)


def test_the_command_shows_the_checksum(server: str, tmp_path: Path) -> None:
    words = ("fetch", "m.bin", "-o", tmp_path, "--url", f"{server}/m")
    assert call(*words).stdout == f"{tmp_path}/m.bin: 1,280,000 bytes, sha256 {SHA}\n"
    assert call(*words).stdout == f"{tmp_path}/m.bin (was there): 1,280,000 bytes, sha256 {SHA}\n"
    wrong = call("fetch", "m.bin", "-o", tmp_path / "other", "--url", f"{server}/gone")
    assert (wrong.returncode, "answers 404" in wrong.stderr) == (3, True)


def test_names_stand_in_the_help() -> None:
    said = call("fetch", "--help").stdout
    assert all(name in said for name in MODELS)
