"""The other translator of errors: what Airflow tries again and what it does not."""

from __future__ import annotations

from mautolib import errors


def test_airflow_retries_what_may_pass_and_nothing_else() -> None:
    from mauto_airflow.failures import RETRY_POLICY

    def action(name: str) -> str:
        error = getattr(errors, name)("x")
        return RETRY_POLICY.evaluate(error, 1, 3).action.value

    leaves = {"InvalidInput": "fail", "NotFound": "fail", "InvalidTransition": "fail", "Misconfigured": "fail",
              "ProviderRejected": "fail", "ProviderUnavailable": "retry", "RateLimited": "retry"}  # fmt: skip
    assert {name: action(name) for name in leaves} == leaves
