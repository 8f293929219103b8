"""Files in S3: `s3://bucket/key`, fetched into storage as a stream before an import reads them.

Promises bounded memory, a bounded size and room left on the disk; that an object is fetched once, whole, or not at
all; and errors that say who has to do what: what may pass is `ProviderUnavailable`, a key that is not there is
`InvalidInput`, a refusal `Misconfigured`. Credentials come by boto3's own chain, the server from the settings alone:
an address never names a host. Called by `running`; nothing here sees a database. The lake export shares `client`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mautolib.contacts.imports.places import Place, place_of
from mautolib.contacts.imports.requests import StoredFile, store_upload
from mautolib.errors import InvalidInput, MautoError, Misconfigured, ProviderUnavailable
from mautolib.settings import Settings

__all__ = ["BUSY", "MISSING", "client", "failure", "fetch"]

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
_BLOCK = 1 << 20
#: Left free on the disk for everybody else.
_ROOM = 256 * 1024 * 1024
_CONNECT_SECONDS, _READ_SECONDS, _TRIES = 5, 60, 3
#: Codes of errors: not there, refused, and what may pass.
MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "404", "NoSuchVersion"})
_REFUSED = frozenset({"AccessDenied", "403", "401", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
                      "InvalidToken", "AllAccessDisabled", "AccountProblem", "AuthorizationHeaderMalformed",
                      "PermanentRedirect", "301"})  # fmt: skip
BUSY = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError",
                   "ServiceUnavailable", "OperationAborted"})  # fmt: skip


def fetch(settings: Settings, uri: str, *, check: Callable[[], None] = lambda: None) -> StoredFile:
    """Write an object into storage under a name of its own.

    Args:
        check: called between blocks; raises to give up.

    Raises:
        InvalidInput: no such object, too large, or not a CSV file (ZIP, Excel).
        Misconfigured: no credentials, or they are refused.
        ProviderUnavailable: S3 cannot be reached or is busy, or the disk is full.
    """
    place = place_of(uri)
    answer = _asked(lambda: client(settings).get_object(Bucket=place.bucket, Key=place.key), place)
    body, size = answer["Body"], int(answer["ContentLength"])
    try:
        if size > settings.max_import_bytes:
            raise InvalidInput(f"{place} has {size} bytes; the largest import has {settings.max_import_bytes}",
                               code="too_large")  # fmt: skip
        _check_room(settings, size)
        stored = _asked(lambda: store_upload(settings, _blocks(body, check)), place)
    finally:
        body.close()
    _LOG.info("%s fetched: %s bytes, SHA-256 %s", place, stored.size, stored.sha256)
    return stored


def _blocks(body: Any, check: Callable[[], None]) -> Iterator[bytes]:
    for block in body.iter_chunks(_BLOCK):
        check()
        yield block


def client(settings: Settings) -> Any:
    """A client of S3 as the settings have it; nothing is asked before the first call."""
    import boto3
    from botocore.config import Config

    own = settings.s3_endpoint_url
    config = Config(
        connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _TRIES, "mode": "standard"}, s3={"addressing_style": "path" if own else "auto"},
    )  # fmt: skip
    # Servers of one's own mostly have no regions, but a signature names one.
    region = settings.s3_region or ("us-east-1" if own else None)
    return boto3.session.Session().client("s3", endpoint_url=own or None, region_name=region, config=config)


def _check_room(settings: Settings, size: int) -> None:
    folder = settings.storage_path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    free = shutil.disk_usage(folder).free
    if size + _ROOM > free:
        raise ProviderUnavailable(f"The disk of the storage folder has {free} bytes left; a file of {size} bytes needs "
                                  f"{_ROOM} more than its size")  # fmt: skip


def _asked(call: Callable[[], T], place: Place) -> T:
    """What S3 answers, its errors as ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise _refusal(place, error.response.get("Error", {}).get("Code", ""), status) from error
    except (BotoCoreError, ValueError) as error:
        raise failure(place, error) from error
    except OSError as error:
        raise ProviderUnavailable(f"{place} could not be written to storage: {error.strerror or error}") from error


def _refusal(place: Place, code: str, status: int) -> MautoError:
    if code in BUSY or status >= 500 or status == 429:
        return ProviderUnavailable(f"S3 is busy ({code or status}); the import of {place} goes on later")
    if code in MISSING:
        return InvalidInput(f"There is no object {place} ({code})", code="unreadable_file")
    if code in _REFUSED or status in (401, 403):
        return Misconfigured(f"S3 refuses {place} ({code}): the worker's credentials, their rights to s3:GetObject, "
                             "MAUTO_S3_REGION and MAUTO_S3_ENDPOINT_URL decide")  # fmt: skip
    return InvalidInput(f"S3 does not give {place}: {code or status}", code="unreadable_file")


def failure(place: Place, error: Exception) -> MautoError:
    """Of boto3 itself: credentials and names are wrong for good, connections and cut answers may pass."""
    from botocore import exceptions as of

    for_good = (of.NoCredentialsError, of.PartialCredentialsError, of.CredentialRetrievalError, of.ProfileNotFound,
                of.NoRegionError, of.ParamValidationError)  # fmt: skip
    # A plain ValueError is about the address of the server.
    if isinstance(error, (*for_good, ValueError)):
        return Misconfigured(f"S3 cannot be asked for {place}: {error}")
    return ProviderUnavailable(f"S3 cannot be reached for {place}: {type(error).__name__}")
