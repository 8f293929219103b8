"""What Airflow does with an error of mautolib: retry what may pass, fail at once what cannot.

The classes decide (`mautolib/errors.py`), nobody else: a transient error is tried again with growing pauses, an
error of input or configuration fails the task on its first try, anything unknown uses up the task's retries.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from mautolib.errors import DomainError, PermanentError, TransientError

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=DomainError,
            action=RetryAction.FAIL,
            reason="The input is wrong; a retry would end the same way. Mend it and trigger the DAG again.",
        ),
        RetryRule(
            exception=PermanentError,
            action=RetryAction.FAIL,
            reason="A setting or a provider says no; a retry would end the same way.",
        ),
        RetryRule(
            exception=TransientError,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=30),
            reason="A service was busy or away.",
        ),
        RetryRule(
            exception="sqlalchemy.exc.OperationalError",
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=10),
            reason="The database was away.",
        ),
    ]
)
