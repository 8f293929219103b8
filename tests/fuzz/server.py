"""The service in a process of its own: `python -m tests.fuzz.server DATABASE_URL HOME` prints its URL and stays.

Ends when its standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.live_service import live_settings, serve


@contextlib.contextmanager
def running(database_url: str, home: Path, *, is_quiet: bool = False) -> Iterator[tuple[str, int]]:
    """The service in a process of its own; gives its URL and process id. A quiet one keeps its log to itself."""
    command = [sys.executable, "-m", "tests.fuzz.server", database_url, str(home)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAUTO_")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL if is_quiet else None}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit("the service did not start")
        try:
            yield url, process.pid
        finally:
            process.stdin.close()
            process.wait(30)


def main() -> None:
    """Serve until standard input ends."""
    url, stop = serve(live_settings(sys.argv[1], Path(sys.argv[2])))
    print(url, flush=True)
    sys.stdin.read()
    stop()


if __name__ == "__main__":
    main()
