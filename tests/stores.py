"""Stores on loopback: a web server that can be made to fail, S3 as moto serves it, Google's API."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: What is done to an answer: its status, body and headers may be exchanged; None leaves it.
Fault = Callable[[str], str | None]


@dataclass
class WebServer:
    """Files of a folder over HTTP, with ranges; what is asked for is kept in `asked`.

    `fault` is asked for each path: ``503`` answers so, ``cut`` breaks off in the middle of the
    body, ``slow`` waits a second, ``hang`` never answers, ``403`` refuses, ``302 URL`` sends
    elsewhere, ``etag`` gives another mark with every answer.
    """

    root: Path
    fault: Fault = lambda path: None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def content(self, path: str) -> bytes | None:
        """What lies at the path of a request."""
        file = self.root / unquote(urlsplit(path).path).lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def put(self, path: str, body: bytes) -> bytes | None:
        """Take an object; None refuses."""
        return None

    def delete(self, path: str) -> bytes | None:
        """Remove an object; None where there is none."""
        return None


class GoogleServer(WebServer):
    """A bucket of Google Cloud Storage: objects and listings by its JSON API."""

    def content(self, path: str) -> bytes | None:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        _, _, rest = parts.path.partition("/b/")
        bucket, _, name = rest.partition("/o")
        if not name.strip("/"):
            prefix = query.get("prefix", [""])[0]
            names = sorted(
                f.relative_to(self.root / bucket).as_posix()
                for f in (self.root / bucket).rglob("*")
                if f.is_file()
            )
            items = [{"name": n, "generation": "1"} for n in names if n.startswith(prefix)]
            return json.dumps({"items": items}).encode()
        key = unquote(name.lstrip("/"))
        file = self.root / bucket / key
        if file.is_file() and query.get("alt") != ["media"]:
            told = {"name": key, "generation": "1", "size": str(file.stat().st_size)}
            return json.dumps(told).encode()
        return file.read_bytes() if file.is_file() else None

    def put(self, path: str, body: bytes) -> bytes | None:
        parts = urlsplit(path)
        name = parse_qs(parts.query)["name"][0]
        bucket = parts.path.partition("/b/")[2].partition("/o")[0]
        file = self.root / bucket / unquote(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        return json.dumps({"name": name, "generation": "2", "size": str(len(body))}).encode()

    def delete(self, path: str) -> bytes | None:
        bucket, _, name = urlsplit(path).path.partition("/b/")[2].partition("/o/")
        file = self.root / bucket / unquote(name)
        if not file.is_file():
            return None
        file.unlink()
        return b""


@contextmanager
def served(server: WebServer) -> Iterator[WebServer]:
    """The server at work, its address in `url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: two would wait for each other

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(server.put(self.path, body))

        def do_DELETE(self) -> None:
            self.answer(server.delete(self.path))

        def answer(self, said: bytes | None) -> None:
            self.send_response(404 if said is None else 200)
            self.send_header("Content-Length", str(len(said or b"")))
            self.end_headers()
            self.wfile.write(said or b"")

        def do_GET(self) -> None:
            server.asked.append(self.path)
            fault = server.fault(self.path)
            if fault == "slow":
                time.sleep(1.0)
            if fault == "hang":
                time.sleep(20.0)
            if fault and fault.startswith("302 "):
                self.send_response(302)
                self.send_header("Location", fault.removeprefix("302 "))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault in ("503", "403"):
                self.send_response(int(fault))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = server.content(self.path)
            status = 404 if body is None else 200
            body = body or b""
            asked = self.headers.get("Range")
            tag = len(server.asked) if fault == "etag" else hash(body)
            headers = {"ETag": f'"{tag}"', "x-goog-generation": "1"}
            if asked and status == 200 and body:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start = int(first) if first else max(0, len(body) - int(last))
                stop = min(len(body), int(last) + 1) if first and last else len(body)
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
                status, body = 206, body[start:stop]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # or a connection is refused, and tried again a second later

    http = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


#: What is put into the environment of whoever reads from `s3_served`.
KEYS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}


@contextmanager
def s3_served() -> Iterator[tuple[str, Any]]:
    """(endpoint, client of boto3) of an S3 store that moto serves, with a bucket ``cells``."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id="me", aws_secret_access_key="secret",
    )  # fmt: skip
    client.create_bucket(Bucket="cells")
    try:
        yield endpoint, client
    finally:
        server.stop()


def put(client: Any, folder: Path, prefix: str) -> None:
    """Bring a folder into the bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder).as_posix()}"
            client.put_object(Bucket="cells", Key=key, Body=file.read_bytes())
