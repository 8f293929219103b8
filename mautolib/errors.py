"""Every error the domain raises, and what each means for the caller.

    MautoError
    ├── DomainError                the request is wrong; asking again will not help
    │   ├── NotFound               the thing does not exist (any more)
    │   ├── Conflict               the thing exists, but its state forbids this
    │   │   └── InvalidTransition  a state machine has no such arrow
    │   ├── InvalidInput           a value is not acceptable; says path, line or row
    │   ├── NotAuthenticated       nobody says who is calling, or the proof is not good (any more)
    │   └── NotAllowed             the caller may not do this
    ├── TransientError             the world is busy; the same call may succeed later
    │   ├── RateLimited            told to slow down; carries retry_after_seconds where known
    │   └── ProviderUnavailable    database, mail server or other service cannot be reached
    │       └── NoRoom             a disk of this machine is full
    └── PermanentError             the world said no for good; retrying is useless
        ├── ProviderRejected       a provider refused this very thing
        └── Misconfigured          a setting is missing or weak; says which one

Two translators exist: `api/errors.py` (HTTP) and `plugins/mauto_airflow/failures.py` (retry or fail).
"""

from __future__ import annotations

import errno


class MautoError(Exception):
    """Something in MarketingAutomation-Lite went wrong."""

    #: Stable machine-readable code; shown by the API as `code`.
    code: str = "error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        if code is not None:
            self.code = code


class DomainError(MautoError):
    """The request cannot be carried out as it stands."""

    code = "bad_request"


class NotFound(DomainError):
    """The thing does not exist."""

    code = "not_found"


class Conflict(DomainError):
    """The present state does not allow this."""

    code = "invalid_state"


class InvalidTransition(Conflict):
    """This state has no way to the state asked for."""


class InvalidInput(DomainError):
    """A value is not acceptable.

    Args:
        message: what is wrong and what to do.
        path: where in the input, outermost first, e.g. `("body", "email")`.
        line: physical line of a file, first line 1.
        problems: further problems found in the same look, each `(path, message)`.
    """

    code = "validation_error"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        path: tuple[str | int, ...] = (),
        line: int | None = None,
        problems: tuple[tuple[tuple[str | int, ...], str], ...] = (),
    ) -> None:
        super().__init__(message, code=code)
        self.path = path
        self.line = line
        self.problems = problems


class NotAuthenticated(DomainError):
    """Who is calling is not known."""

    code = "not_authenticated"


class NotAllowed(DomainError):
    """The caller may not do this."""

    code = "forbidden"


class TransientError(MautoError):
    """The world is busy; the same call may succeed later."""

    code = "unavailable"


class RateLimited(TransientError):
    """Too many calls; slow down."""

    code = "rate_limited"

    def __init__(self, message: str = "", *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ProviderUnavailable(TransientError):
    """A service this one depends on cannot be reached."""


class NoRoom(ProviderUnavailable):
    """A disk of this machine is full; nothing was kept of what did not fit."""

    @staticmethod
    def is_why(error: BaseException) -> bool:
        """Whether that is what an error of the operating system says (a quota and a file's limit count too)."""
        return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PermanentError(MautoError):
    """The world said no; trying again is useless."""

    code = "permanent_failure"


class ProviderRejected(PermanentError):
    """A provider refused this for good."""


class Misconfigured(PermanentError):
    """A setting is missing or not acceptable."""

    code = "misconfigured"
