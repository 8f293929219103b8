"""Two local S3 servers: one that works (moto's), and one that says what a test wants to hear."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}  # fmt: skip


class Store:
    """A working S3 with one bucket, `lists`."""

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        self._client: Any = boto3.session.Session().client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="tests", aws_secret_access_key="tests"
        )
        self._client.create_bucket(Bucket="lists")

    def put(self, key: str, content: bytes, **how: Any) -> str:
        """Store an object; returns its address."""
        self._client.put_object(Bucket="lists", Key=key, Body=content, **how)
        return f"s3://lists/{key}"


@contextmanager
def working() -> Iterator[Store]:
    """moto's server on a free port."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Store(f"http://{host}:{port}")
    finally:
        server.stop()


@dataclass
class Script:
    """What the other server answers: `(status, code)` errors one after the other (the last one for ever), or `content`.

    Args:
        announced: the length it promises, when that is not the content's.
        pause: what it waits for before it ends an answer.
        is_over_after_errors: `content` follows the errors.
    """

    url: str = ""
    errors: list[tuple[int, str]] = field(default_factory=list)
    content: bytes = b""
    announced: int | None = None
    pause: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    is_over_after_errors: bool = False


@contextmanager
def scripted() -> Iterator[Script]:
    """A server that answers every GET by its script."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append(self.path)
            if script.errors:
                is_kept = len(script.errors) == 1 and not script.is_over_after_errors
                status, code = script.errors[0] if is_kept else script.errors.pop(0)
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(script.announced or len(script.content)))
            self.end_headers()
            self.wfile.write(script.content)
            self.wfile.flush()
            if script.pause is not None:
                script.pause.wait(10)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
