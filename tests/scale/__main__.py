"""The main job under CeleryExecutor with Redis and two workers, then under LocalExecutor: the figures must be equal.

The Celery run has what the profile `scale` of docker-compose.yml has: that executor, and the users of Airflow's UI in
its own database.

`python -m tests.scale`: two stacks of its own on free ports, one after the other, each with the same contacts and the
real DAGs. Prints both columns and who ran what; exit code 0 only when every figure and every digest is the same and
each worker has run tasks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import time as clock
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from mautolib.db.engine import connect
from mautolib.demo import __main__ as demo
from mautolib.demo import contact_file, live, shop
from mautolib.demo.faces import Faces, wait_until
from mautolib.demo.people import people
from mautolib.demo.screen import Screen
from mautolib.errors import ProviderUnavailable
from mautolib.settings import variable
from mautolib.stack import container, container_health
from mautolib.stack.home import Home
from mautolib.stack.launcher import Stack
from tests.scale import ground
from tests.scale.figures import figures

_PORTS = ("api_port", "airflow_port", "database_port", "smtp_port", "mail_page_port")
_WHO_RAN = """
    select coalesce(hostname, '-'), state, count(*), count(distinct pid)
    from task_instance where start_date is not null group by 1, 2 order by 1, 2"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One executor's outcome.

    Attributes:
        tasks: host -> tasks that ended well there, from Airflow's metadata.
        failed: tasks that did not.
        told: worker -> tasks it says it ran, from its own log.
    """

    figures: Mapping[str, str]
    tasks: Mapping[str, int]
    failed: int
    told: Mapping[str, int]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Both runs, the comparison, the verdict."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--contacts", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=4, help="tasks a worker runs at once (4)")
    given = parser.parse_args(arguments)
    midnight = datetime.combine(datetime.now(UTC).date(), clock(), UTC)
    spread = _run(given, midnight, spread=True)
    alone = _run(given, midnight, spread=False)
    return _judge(spread, alone, given.workers)


def _judge(spread: Run, alone: Run, workers: int) -> int:
    print(f"\n{'':<40}{'Celery':>24}{'Local':>24}")
    different = 0
    for name, value in spread.figures.items():
        other = alone.figures[name]
        different += value != other
        print(f"{name:<40}{value:>24}{other:>24}{'' if value == other else '   DIFFERENT'}")
    print(f"{'seconds':<40}{spread.seconds:>24.0f}{alone.seconds:>24.0f}")
    print(f"\nTasks by host (Airflow's metadata): Celery {dict(spread.tasks)}, {spread.failed} failed; "
          f"Local {dict(alone.tasks)}, {alone.failed} failed")
    print(f"Tasks by worker (their own logs): {dict(spread.told)}")
    used = [name for name, count in spread.told.items() if count and spread.tasks.get(name)]
    is_good = not different and len(used) == workers and set(spread.tasks) == set(used)
    print(f"{different} of {len(spread.figures)} figures differ; {len(used)} of {workers} workers ran tasks: "
          f"{'EQUAL' if is_good else 'NOT EQUAL'}")
    return 0 if is_good else 1


def _run(given: argparse.Namespace, midnight: datetime, *, spread: bool) -> Run:
    name = "CeleryExecutor" if spread else "LocalExecutor"
    screen = Screen(sys.stdout)
    folder = Path(tempfile.mkdtemp(prefix="mauto-scale-"))
    folder.chmod(0o711)
    try:
        with ExitStack() as open_ones:
            more = {"AIRFLOW__CORE__EXECUTOR": name}
            if spread:
                broker = open_ones.enter_context(ground.redis(folder / "redis"))
                screen.line(f"Redis {broker.version} answers")
                more |= {**container.scaled(broker.environ),
                         "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.scale.hosts.name"}  # fmt: skip
            stack = open_ones.enter_context(_stack(folder / "home", more, screen))
            began = time.monotonic()
            count = given.workers if spread else 0
            team = open_ones.enter_context(ground.workers(stack.plan, count, slots=given.slots))
            screen.line(f"{len(team)} workers are ready" if spread else "the scheduler runs the tasks itself")
            for program in team:
                is_well = container_health.main(["airflow-worker"], {**broker.environ, "HOSTNAME": program.name}) == 0
                screen.line(f"{program.name} {'answers' if is_well else 'does not answer'} when it is asked how it is")
            found = _play(stack, given.contacts, midnight, screen)
            tasks, failed = _who_ran(stack)
            return Run(figures=found, tasks=tasks, failed=failed, seconds=time.monotonic() - began,
                       told={program.name: ground.ran(program) for program in team})  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stack(folder: Path, more: Mapping[str, str], screen: Screen) -> Iterator[Stack]:
    home = Home(folder)
    demo.pin(home)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MAUTO_"))}
    stack = Stack(home, {**environ, **more, **{variable(name): str(ground.free_port()) for name in _PORTS}})
    try:
        screen.head(f"The main job under {more['AIRFLOW__CORE__EXECUTOR']}")
        _up(stack, screen)
        yield stack
    finally:
        stack.down()


def _up(stack: Stack, screen: Screen) -> None:
    """Start the stack; on a machine that is too busy a second time, when the databases are there already."""
    try:
        stack.up(lambda seconds, line: screen.line(f"{seconds:5.1f} s  {line}"))
    except ProviderUnavailable as error:
        screen.line(str(error).splitlines()[0])
        stack.up(lambda seconds, line: screen.line(f"{seconds:5.1f} s  {line}"))


def _play(stack: Stack, contacts: int, midnight: datetime, screen: Screen) -> dict[str, str]:
    """What `make demo` does, and scores of one moment that both runs share."""
    settings, now = stack.settings, datetime.now(UTC)
    everybody = list(people(contacts, midnight))
    engine, faces = connect(settings.url_for("owner")), Faces(stack.plan)
    try:
        file = stack.home.path / "contacts.csv"
        truth = contact_file.write(file, everybody)
        templates = shop.furnish(engine, settings, now)
        show = live.Show(faces=faces, engine=engine, screen=screen, mail_folder=stack.home.mail)
        show.import_contacts(file, truth)
        shop.load_history(engine, settings, everybody, midnight, now)
        show.score()
        run_id = faces.trigger("score_recalculation", as_of=midnight.isoformat())
        wait_until("the scores of midnight", lambda: faces.run_state("score_recalculation", run_id) == "success",
                   seconds=180, tick=lambda: None)  # fmt: skip
        show.mailing(templates["Newsletter"])
        show.welcome(now)
        _settle(engine, screen)
        show.cohorts()
        return figures(engine, midnight)
    finally:
        faces.close()
        engine.dispose()


def _settle(engine: Engine, screen: Screen) -> None:
    """Wait until every opening and click has taken effect: what is counted next shall not depend on the moment."""

    def is_quiet() -> bool:
        with engine.connect() as tx:
            return not tx.execute(text("select count(*) from event_pending")).scalar_one()

    wait_until("the effect of every event", is_quiet, seconds=180, tick=lambda: screen.bar(0, 1, "events"))


def _who_ran(stack: Stack) -> tuple[dict[str, int], int]:
    url = stack.settings.airflow_database_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    engine = create_engine(url)
    try:
        with engine.connect() as tx:
            rows = tx.execute(text(_WHO_RAN)).all()
    finally:
        engine.dispose()
    return {row[0]: row[2] for row in rows if row[1] == "success"}, sum(row[2] for row in rows if row[1] == "failed")


if __name__ == "__main__":
    sys.exit(main())
