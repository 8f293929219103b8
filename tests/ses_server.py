"""Two local SES servers: one that works (moto's), and one that says what a test wants to hear."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REGION = "eu-central-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_MAX_ATTEMPTS": "5",
}  # fmt: skip


class Mailer:
    """A working SES that sends from shop.example."""

    def __init__(self, url: str) -> None:
        self.url = url

    def arrived(self) -> list[Any]:
        """What it took: source, destinations, raw_data of each."""
        from moto.backends import get_backend

        return list(get_backend("ses")["123456789012"][REGION].sent_messages)


@cache
def _url() -> str:
    """moto's server on a free port; one for all tests of a process, it takes its time to come and go."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@contextmanager
def working() -> Iterator[Mailer]:
    """moto's SES, empty."""
    import boto3
    from moto.backends import get_backend

    url = _url()
    client: Any = boto3.session.Session().client(
        "sesv2", endpoint_url=url, region_name=REGION, aws_access_key_id="tests", aws_secret_access_key="tests"
    )
    client.create_email_identity(EmailIdentity="shop.example")
    client.close()
    try:
        yield Mailer(url)
    finally:
        get_backend("ses").reset()


@dataclass
class Script:
    """What the other server answers, one after the other, the last one for ever.

    An answer is `(status, code, text)`, a MessageId, or what it does instead: DROP or HANG after it has read the
    request, HALF an answer.
    """

    url: str = ""
    answers: list[tuple[int, str, str] | str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


DROP, HANG, HALF, NONSENSE = "<drop>", "<hang>", "<half>", "<nonsense>"


@contextmanager
def scripted(*answers: tuple[int, str, str] | str, tls: ssl.SSLContext | None = None) -> Iterator[Script]:
    """A server that answers every request by its script."""
    script = Script(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            script.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            said = script.answers[0] if len(script.answers) == 1 else script.answers.pop(0)
            if said in (DROP, HANG):
                if said == HANG:
                    script.over.wait(20)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if isinstance(said, tuple):
                self.say(said[0], {"message": said[2]} if said[2] else {}, code=said[1])
            elif said == NONSENSE:
                self.say(200, {})
            else:
                self.say(200, {"MessageId": said}, half=said == HALF)

        def say(self, status: int, content: dict[str, str], *, code: str = "", half: bool = False) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if code:
                self.send_header("x-amzn-ErrorType", code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:5] if half else body)
            self.wfile.flush()
            if half:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield script
    finally:
        script.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
