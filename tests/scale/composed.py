"""docker-compose.yml without an engine: every service's command as a process of this machine, with the profile `scale`.

`python -m tests.scale.composed`: starts the services in their order, asks each after its health as the file does, has a
worker run a DAG for Airflow's own administrator, and ends them. What is between containers and machine - images,
volumes, limits, the network - is not seen.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from mautolib.db.localpg import Cluster
from mautolib.demo.faces import Faces, wait_until
from mautolib.stack import container_health
from mautolib.stack.container import container_plan
from tests.scale.ground import free_port

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
_PORTS = ("API_PORT", "AIRFLOW_PORT", "SMTP_PORT", "MAIL_PAGE_PORT")


def main() -> int:
    """Returns 0 when every service became well and a worker ran the DAG."""
    folder = Path(tempfile.mkdtemp(prefix="mauto-composed-"))
    folder.chmod(0o711)
    port, broker = free_port(), free_port()
    environ = {
        "PATH": os.environ["PATH"], "MAUTO_HOME": str(folder / "home"), "COMPOSE_PROFILES": "scale",
        "REDIS_PASSWORD": secrets.token_hex(32), "MAUTO_CONTAINER_POSTGRES": f"127.0.0.1:{port}",
        "MAUTO_CONTAINER_AIRFLOW": "127.0.0.1", "MAUTO_CONTAINER_MAIL_SINK": "127.0.0.1",
        "MAUTO_CONTAINER_REDIS": f"127.0.0.1:{broker}", "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        **{f"MAUTO_CONTAINER_{name}": str(free_port()) for name in _PORTS},
    }  # fmt: skip
    try:
        with ExitStack() as open_ones:
            _once(["secrets", str(folder / "password")], environ)
            cluster = Cluster.ensure(folder / "postgres", port=port, password=(folder / "password").read_text())
            open_ones.callback(cluster.stop)
            _once(SERVICES["migrate"]["command"], environ)
            open_ones.enter_context(_redis(folder, broker, environ["REDIS_PASSWORD"]))
            ours = [name for name in SERVICES if name not in ("secrets", "postgres", "migrate", "redis")]
            for name in ours:
                open_ones.enter_context(_service(name, folder, environ))
            _all_well(ours, environ)
            _run_a_dag(environ)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _once(command: list[str], environ: dict[str, str]) -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "mautolib.stack.container", *command], env=environ, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    print(f"{command[0]} is done, {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def _redis(folder: Path, port: int, password: str) -> Iterator[None]:
    service = SERVICES["redis"]
    script = service["command"][0].replace("$$", "$").replace("dir /data", f"dir {folder}\nport {port}\nbind 127.0.0.1")
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([*service["entrypoint"], script], stdout=log, stderr=log,
                                   env={"PATH": os.environ["PATH"], "REDIS_PASSWORD": password})  # fmt: skip
    try:
        check = service["healthcheck"]["test"][1].replace("$$", "$").replace("redis-cli", f"redis-cli -p {port}")
        asked = {"PATH": os.environ["PATH"], "REDIS_PASSWORD": password}
        until = time.monotonic() + 30
        while shutil.which("redis-cli") and subprocess.run(["sh", "-c", check], env=asked, check=False).returncode:
            if time.monotonic() > until:
                raise TimeoutError((folder / "redis.log").read_text()[-500:])
            time.sleep(0.1)
        print("redis is well", flush=True)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _service(name: str, folder: Path, environ: dict[str, str]) -> Iterator[None]:
    own = {key: value.partition(":-")[2].rstrip("}") for key, value in SERVICES[name]["environment"].items()
           if key.startswith("AIRFLOW__")}  # fmt: skip
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "mautolib.stack.container", *SERVICES[name]["command"]],
                                   env={**environ, **own}, cwd=folder, stdout=log, stderr=log)  # fmt: skip
    try:
        yield
    except BaseException:
        print(f"{name}: {(folder / f'{name}.log').read_text()[-800:]}", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _all_well(names: list[str], environ: dict[str, str]) -> None:
    waiting, until = list(names), time.monotonic() + 600
    while waiting:
        for name in list(waiting):
            asked = SERVICES[name]["healthcheck"]["test"]
            assert asked[1:4] == ["python", "-m", "mautolib.stack.container_health"]
            with contextlib.redirect_stderr(io.StringIO()) as why:
                is_well = container_health.main(asked[4:], environ) == 0
            if is_well:
                waiting.remove(name)
                print(f"{name} is well", flush=True)
        if time.monotonic() > until:
            raise TimeoutError(f"not well: {waiting}; {why.getvalue()}")
        time.sleep(1)


def _run_a_dag(environ: dict[str, str]) -> None:
    faces = Faces(container_plan(environ))
    try:
        run_id = faces.trigger("maintenance")
        wait_until("the run of maintenance", lambda: faces.run_state("maintenance", run_id) == "success", seconds=180,
                   tick=lambda: None)  # fmt: skip
    finally:
        faces.close()
    print("a worker has run the DAG maintenance, triggered by the administrator in Airflow's own database")


if __name__ == "__main__":
    sys.exit(main())
