"""Fuzz every operation of the API: `python -m tests.fuzz.api --cases 10000 --seed 1 --only /api/v1/tags/`.

Schemathesis makes the cases from our own OpenAPI document: boundary values, data that fits, data that does not. A share
of them is grounded, that is, their ids are put in place of generated ones and name things that exist (fresh ones
where an operation uses them up), so that every operation is really reached. A run is repeated by its seed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import Failure

from tests.api.contract import document, served
from tests.fuzz.objects import PREFIX, Objects
from tests.fuzz.report import ENOUGH, Report, Seen
from tests.fuzz.seeding import seed
from tests.fuzz.server import running
from tests.live_service import LiveService, live_settings, make_users

#: Checks of schemathesis that are left out, and why.
EXCLUDED = {
    "positive_data_acceptance": (
        "a schema cannot say what the contract also demands: IANA time zones, a source for granted consent, ids that "
        "exist, rules of segments, values not taken; tests/api/test_every_operation.py sends every documented example"
    ),
    "use_after_free": "judges sequences, which independent cases are not; DELETE twice is in test_every_operation.py",
    "ensure_resource_availability": "judges sequences, which independent cases are not",
    "object_level_authorization": "needs things that belong to one caller; here roles decide, see test_operations.py",
}
#: Checks left out for the public pages behind links in mail, and why.
EXCLUDED_OF_PAGES = {
    "negative_data_rejection": "a link that is not genuine gets a neutral page and changes nothing, whatever it says",
}
#: The same for single operations.
EXCLUDED_OF_ONE = {
    ("POST", f"{PREFIX}/events/", "negative_data_rejection"): (
        "a bad event of an array is told in its own result, the others are taken; a bad single event is 422"
    ),
}
#: How a value that does not fit may be refused.
REFUSALS = ["400", "401", "403", "404", "405", "408", "409", "412", "413", "415", "422", "429"]
#: The fuzzer's own user and keys must outlive the run: ids of these are always those of fresh ones.
_PRECIOUS = ("/users/{id}", "/api-keys/{id}")
#: Operations whose failures limit everybody at this address: others first.
_LAST = ("/auth/", "/track/")
KNOWN = ENOUGH + 5
_PARAMETER = re.compile(r"\{([a-z_]+)\}")
_GENERATED_IDS = 0.25


class Fuzzer:
    """One run over one running service."""

    def __init__(self, service: LiveService, openapi: dict[str, Any], *, seed: int, enough: int = ENOUGH) -> None:
        load_all_checks()
        self.service, self.openapi, self.number = service, openapi, seed
        self.objects = Objects(service, openapi)
        self.random = random.Random(seed)
        self.session = requests.Session()
        self.session.trust_env = False
        self.schema = schemathesis.openapi.from_dict(copy.deepcopy(openapi))
        self.schema.config.checks.negative_data_rejection.expected_statuses = REFUSALS
        self.checks = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name not in EXCLUDED]
        self.public_checks = [check for check in self.checks if check.__name__ not in EXCLUDED_OF_PAGES]
        self.report = Report(seed=seed, enough=enough)

    def close(self) -> None:
        """Let go of the connections."""
        self.objects.close()
        self.session.close()

    def run(self, cases: int, only: str = "") -> Report:
        """Send `cases` cases, shared evenly between the operations."""
        operations = [result.ok() for result in self.schema.get_all_operations()]
        operations = [o for o in operations if only in f"{o.method.upper()} {o.path}"]
        operations.sort(key=lambda o: any(part in o.path for part in _LAST))
        share, rest = divmod(cases, len(operations))
        for place, operation in enumerate(operations):
            self._fuzz(operation, share + (place < rest))
        return self.report

    def _fuzz(self, operation: Any, cases: int) -> None:
        entry = self.openapi["paths"][operation.path][operation.method.lower()]
        statuses = frozenset(int(code) for code in entry["responses"])
        seen = Seen(label=operation.label, documented=statuses)
        self.report.operations[operation.label] = seen
        known = min(KNOWN, cases // 2)
        for _ in range(known):
            self._send_known(operation, seen)
        made = itertools.chain(self._boundaries(operation, (cases - known) // 3), self._generated(operation, cases))
        for case in itertools.islice(made, cases - known):
            try:
                self._ground(case)
            except AssertionError as error:
                seen.faults.setdefault("what it needs cannot be made", str(error)[:2000])
                seen.broken += 1
                continue
            self._send(case, seen)
        while seen.calls < cases:
            self._send_known(operation, seen)  # an operation without parameters has few cases of its own

    # ---- making cases

    def _boundaries(self, operation: Any, most: int) -> Iterator[Any]:
        config = self.schema.config.generation_for(operation=operation)
        found = list(
            self.schema.iter_coverage_cases(operation, generation_modes=list(GenerationMode), generation_config=config)
        )
        return iter(self.random.sample(found, min(most, len(found))))

    def _generated(self, operation: Any, most: int) -> Iterator[Any]:
        modes = [GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
        streams = [self._stream(operation, mode, most // 3 + 1, number) for number, mode in enumerate(modes)]
        return (case for group in itertools.zip_longest(*streams) for case in group if case is not None)

    def _stream(self, operation: Any, mode: GenerationMode, most: int, number: int) -> list[Any]:
        found: list[Any] = []
        try:
            strategy = operation.as_strategy(mode)
        except Exception as error:  # what cannot be wrong (no parameters, no body) has no wrong cases
            if "negative" not in str(error).lower() and "Impossible" not in str(error):
                raise
            return found

        @seeded(self.number * 10 + number)
        @settings(
            max_examples=most, database=None, phases=[Phase.generate], deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def collect(case: Any) -> None:
            found.append(case)

        try:
            collect()
        except Exception as error:
            if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):
                raise
        return found

    def _ground(self, case: Any) -> None:
        """Put what exists in place of what was made up, most of the time, and the caller's own token."""
        mode = case.meta.generation.mode if case.meta else GenerationMode.POSITIVE
        is_positive = mode is GenerationMode.POSITIVE
        for name in [n for n in case.headers or {} if n.lower() in ("authorization", "x-api-key", "cookie")]:
            if self.random.random() > 0.05:
                del case.headers[name]
        wanted = set(_PARAMETER.findall(case.path))
        if wanted and (
            any(case.path.endswith(end) for end in _PRECIOUS)
            or not wanted <= set(case.path_parameters or ())
            or (not _is_wrong_in_path(case) and self.random.random() > _GENERATED_IDS)
        ):
            reads = case.method.upper() == "GET" and self.random.random() > 0.2
            values, query = self.objects.path_values(case.operation.method.upper(), case.path, fresh=not reads)
            case.path_parameters = values
            if query:
                case.query = {**(case.query or {}), **query}
        if not is_positive or self.random.random() < 0.2:
            return
        for name in [n for n in case.headers or {} if n.lower() in ("idempotency-key", "if-match")]:
            del case.headers[name]
        if isinstance(case.body, dict | list) and case.media_type == "application/json":
            case.body = self.objects.personal(case.body)

    # ---- sending

    def _send_known(self, operation: Any, seen: Seen) -> None:
        """Send a request that succeeds."""
        try:
            ready = self.objects.ready(operation.method.upper(), operation.path)
            with_token = ready.send(self.objects.admin)
        except (AssertionError, httpx.HTTPError) as error:
            seen.broken += 1
            seen.faults.setdefault(f"{type(error).__name__} when calling it well", str(error)[:2000])
            return
        case = operation.Case(query=ready.params, path_parameters=ready.values)
        request = f"{ready.method} {ready.path} {ready.params} {ready.json}"[:2000]
        token = {"Authorization": with_token.request.headers["Authorization"]}
        self._judge(case, with_token, seen, request, token)

    def _send(self, case: Any, seen: Seen) -> None:
        headers = {}
        names = {name.lower() for name in case.headers or {}}
        if not names & {"authorization", "x-api-key"}:
            headers = self._token(case)
        try:
            response = case.call(
                base_url=self.service.url, session=self.session, headers=headers, allow_redirects=False, timeout=30
            )
        except requests.RequestException as error:
            self.session.close()
            seen.broken += 1
            if seen.broken > 2:  # once may be an idle connection the server was just closing
                request = case.as_curl_command(base_url=self.service.url)
                seen.faults.setdefault(type(error).__name__, request[:2000])
            return
        request = case.as_curl_command(headers=headers, base_url=self.service.url)
        self._judge(case, response, seen, request[:3000], headers)

    def _token(self, case: Any) -> dict[str, str]:
        if case.path.endswith(("/auth/logout", "/auth/password")):
            return {"Authorization": f"Bearer {self.objects.own_user()[1]['access_token']}"}
        return {"Authorization": f"Bearer {self.service.token('admin')}"}

    def _judge(
        self, case: Any, response: Any, seen: Seen, request: str, headers: dict[str, str] | None = None
    ) -> None:
        is_other_method = case.method.upper() != case.operation.method.upper()
        if is_other_method and response.status_code == 405:
            seen.other_methods += 1  # no answer of this operation; `unsupported_method` checks it
        else:
            seen.statuses[response.status_code] += 1
        checks = self.public_checks if case.path.startswith(f"{PREFIX}/track/") else self.checks
        left_out = {name for method, path, name in EXCLUDED_OF_ONE if (method, path) == (case.method, case.path)}
        checks = [check for check in checks if check.__name__ not in left_out]
        try:
            case.validate_response(
                response, checks=checks, headers=headers,
                transport_kwargs={"base_url": self.service.url, "session": self.session, "headers": headers},
            )  # fmt: skip
        except BaseExceptionGroup as group:
            for failure in group.exceptions:
                if not isinstance(failure, Failure):
                    raise
                name = f"{type(failure).__name__} {response.status_code} | {failure.message[:700]}"
                if not any(known.partition(" |")[0] == name.partition(" |")[0] for known in seen.faults):
                    seen.faults[name] = f"{request}\n  -> {response.status_code} {response.text[:600]}"


def _is_wrong_in_path(case: Any) -> bool:
    """Whether the case is about a path parameter that does not fit."""
    from schemathesis.core.parameters import ParameterLocation

    return bool(case.meta and case.meta.is_negative_at(ParameterLocation.PATH))


def main() -> None:
    """Fuzz a service of its own over a seeded database, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.api", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="how many requests (10000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same cases (1)")
    parser.add_argument("--only", default="", metavar="PATH", help="operations whose `METHOD path` contains this")
    options = parser.parse_args()
    from mautolib.db.engine import connect
    from mautolib.db.localpg import temporary_cluster
    from mautolib.db.migrate import migrate

    with temporary_cluster() as cluster, tempfile.TemporaryDirectory(prefix="mauto-fuzz-") as folder:
        cluster.create_database("fuzz")
        engine = connect(cluster.url("fuzz"))
        migrate(engine)
        make_users(engine)
        with running(cluster.url("fuzz"), Path(folder)) as (url, _):
            openapi = document()
            service = LiveService(url=url, engine=engine, settings=live_settings(cluster.url("fuzz"), Path(folder)))
            fuzzer = Fuzzer(service, openapi, seed=options.seed)
            made = seed(fuzzer.objects)
            sys.stdout.write(f"seeded: {json.dumps(made)}\n{len(served(openapi))} operations\n")
            of_one = {" ".join(reversed(key)): reason for key, reason in EXCLUDED_OF_ONE.items()}
            for name, reason in {**EXCLUDED, **EXCLUDED_OF_PAGES, **of_one}.items():
                sys.stdout.write(f"not checked: {name}: {reason}\n")
            sys.stdout.flush()
            report = fuzzer.run(options.cases, options.only)
        engine.dispose()
    sys.stdout.write(report.text() + "\n")
    raise SystemExit(0 if report.is_clean else 1)


if __name__ == "__main__":
    main()
