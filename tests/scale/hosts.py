"""The name a worker gives itself, so that two workers on one machine can be told apart in `task_instance`."""

from __future__ import annotations

import os
import socket


def name() -> str:
    """What SCALE_HOST says; elsewhere this machine's name. Airflow calls it (`[core] hostname_callable`)."""
    return os.environ.get("SCALE_HOST") or socket.gethostname()
