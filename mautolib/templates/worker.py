"""The process that renders previews: what an editor just typed runs here, never in the API.

One such process waits for requests on its standard input (`render` starts it) and forks a child for each. The child
may use 250 ms of CPU to render (2 s to compile, which is bounded by `checks`) and 64 MB more than it was born with;
past that the kernel ends it, the answer says so, and the next request finds a fresh child. The process has no secrets
in its environment, and ends with its parent.
Wire format both ways: four bytes of length, then JSON.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO, Final

from mautolib.errors import InvalidInput
from mautolib.templates.compile import compile_template

COMPILE_SECONDS: Final = 2.0
RENDER_SECONDS: Final = 0.25
WALL_SECONDS: Final = 5.0
EXTRA_BYTES: Final = 64 * 1024 * 1024
MAX_REQUEST: Final = 16 * 1024 * 1024
OUT_OF_MEMORY: Final = 3
_TOO_LONG = "Template error: takes more than 250 ms to render"
_TOO_LARGE = "Template error: needs more than 64 MB to render"


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(int.from_bytes(head, "big"))
    message: dict[str, Any] = json.loads(body)
    return message


def write_frame(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Send one message."""
    body = json.dumps(message).encode()
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile and render one request; faults of the template are part of the answer."""
    variables = request["variables"]
    compiled = compile_template(
        request["subject"],
        request["html_body"],
        request["text_body"],
        strict=False,
        variables=list(variables),
        language=request.get("language", ""),
    )
    try:
        compiled.refuse()
        allow(RENDER_SECONDS)
        rendered, warnings = compiled.with_strictness(strict=request["strict"]).preview(variables)
        for part in (rendered.subject, rendered.html, rendered.text):
            part.encode()
    except InvalidInput as error:
        return {"error": str(error), "path": list(error.path), "line": error.line}
    except MemoryError:
        return {"error": _TOO_LARGE}
    except UnicodeEncodeError:
        return {"error": "Template error: the text holds half a surrogate pair"}
    return {"subject": rendered.subject, "html": rendered.html, "text": rendered.text, "warnings": list(warnings)}


def allow(seconds: float) -> None:
    """Let this process run for so much CPU time from now on; then the kernel ends it."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def confine() -> None:
    """Give this process its limits: CPU time by a timer the kernel keeps, memory above what it has now."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    allow(COMPILE_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def in_child(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request in a child with limits."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(request, writing)
    os.close(writing)
    body = _read_all(reading, child)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if body:
        message: dict[str, Any] = json.loads(body)
        return message
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU, signal.SIGKILL):
        return {"error": _TOO_LONG}
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == OUT_OF_MEMORY:
        return {"error": _TOO_LARGE}
    return {"error": "Template error: the template cannot be rendered"}


def _be_child(request: dict[str, Any], writing: int) -> None:
    """Never returns: the child ends here whatever happens."""
    try:
        confine()
        body = memoryview(json.dumps(answer(request)).encode())
        while body:
            body = body[os.write(writing, body) :]
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException:  # noqa: BLE001 - a fault of ours: tell the log, never run on as a second parent
        traceback.print_exc()
        os._exit(1)


def _read_all(reading: int, child: int) -> bytes:
    """What the child writes until it ends; nothing, and no child, after `WALL_SECONDS`."""
    chunks: list[bytes] = []
    deadline = time.monotonic() + WALL_SECONDS
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            return b""
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def main() -> None:
    """Serve requests until standard input ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # a Ctrl-C is for the parent; its end ends this one
        signal.signal(ignored, signal.SIG_IGN)
    answer({"subject": "{{ a }}", "html_body": "<p>{{ a|upper }}</p>", "text_body": "", "strict": False,
            "variables": {"a": "warm"}})
    gc.collect()
    gc.freeze()
    while (request := read_frame(sys.stdin.buffer)) is not None:
        write_frame(sys.stdout.buffer, in_child(request))


if __name__ == "__main__":
    main()
