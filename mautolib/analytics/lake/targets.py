"""Where a lake lies: a folder, or a prefix in S3. Both replace a file whole, and say in a sentence what is wrong.

Promise: `write` and `publish` leave the old file or the new one, never a part; what a killed run left behind is out of
readers' sight and removed by the next one. Names are relative to the target and made by `exporting` alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mautolib.contacts.imports import remote
from mautolib.contacts.imports.places import Place, is_remote, place_of
from mautolib.errors import InvalidInput, MautoError, Misconfigured, ProviderUnavailable
from mautolib.settings import Settings

T = TypeVar("T")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})
#: Readers pass over names that begin with a dot.
_STAGING = ".staging"


class Target(Protocol):
    """A place for files."""

    def read(self, name: str) -> bytes | None:
        """The content of a small file, None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file whole."""

    def stage(self) -> Path:
        """A new name on this machine for a file that is to be published."""

    def publish(self, staged: Path, name: str) -> None:
        """Put a staged file in its place, whole; the staged one is gone afterwards."""

    def names(self, table: str) -> set[str]:
        """The Parquet files of a table."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


@contextmanager
def opened(settings: Settings, address: str) -> Iterator[Target]:
    """The target of an address: an absolute folder, or `s3://bucket/prefix`.

    Raises:
        Misconfigured: not such an address, not writable, no credentials, or they are refused.
        InvalidInput: no such bucket.
        ProviderUnavailable: S3 cannot be reached, or the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="mauto-lake-") as scratch:
        yield _bucket(settings, address, Path(scratch)) if is_remote(address) else _folder(address)


def _folder(address: str) -> Target:
    root = Path(address)
    if not root.is_absolute() or "://" in address:
        raise Misconfigured(f"{address!r} is no target of the lake; it takes an absolute folder or s3://bucket/prefix")
    if not root.parent.is_dir():
        raise Misconfigured(f"there is no folder {root.parent}; is the disk mounted?")
    return Folder(root)


def _bucket(settings: Settings, address: str, scratch: Path) -> Target:
    prefix = address.rstrip("/")
    if prefix.count("/") < 3:
        raise Misconfigured(f"{address!r} names no prefix; it takes s3://bucket/prefix")
    try:
        place = place_of(prefix)
    except InvalidInput as error:
        raise Misconfigured(f"{address!r} is no target of the lake: {error}") from error
    return Bucket(remote.client(settings), place, scratch)


class Folder:
    """A folder of this machine or of a network file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0
        with _writing(root):
            shutil.rmtree(root / _STAGING, ignore_errors=True)
            (root / _STAGING).mkdir(parents=True)

    def read(self, name: str) -> bytes | None:
        """The content of a small file, None if there is none."""
        with _writing(self._root / name):
            return (self._root / name).read_bytes() if (self._root / name).exists() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file whole."""
        staged = self.stage()
        with _writing(self._root / name):
            staged.write_bytes(content)
        self.publish(staged, name)

    def stage(self) -> Path:
        """A new name on the same file system."""
        self._count += 1
        return self._root / _STAGING / str(self._count)

    def publish(self, staged: Path, name: str) -> None:
        """Rename a staged file into its place, once it is on the disk."""
        final = self._root / name
        with _writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("rb") as written:
                os.fsync(written.fileno())
            staged.replace(final)

    def names(self, table: str) -> set[str]:
        """The Parquet files of a table."""
        return {path.relative_to(self._root).as_posix() for path in (self._root / table).rglob("*.parquet")}

    def remove(self, name: str) -> None:
        """Remove a file, and the folder of its day."""
        with _writing(self._root / name):
            (self._root / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (self._root / name).parent.rmdir()


class Bucket:
    """A prefix in S3: an object is replaced whole, also one that is uploaded in parts."""

    def __init__(self, client: Any, place: Place, scratch: Path) -> None:
        self._client, self._place, self._scratch = client, place, scratch
        self._count = 0

    def read(self, name: str) -> bytes | None:
        """The content of a small object, None if there is none."""
        try:
            content: bytes = self._client.get_object(**self._where(name))["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None
        except Exception as error:
            raise self._told(error) from error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small object whole."""
        self._asked(lambda: self._client.put_object(**self._where(name), Body=content))

    def stage(self) -> Path:
        """A new name in a folder that goes with this process."""
        self._count += 1
        return self._scratch / str(self._count)

    def publish(self, staged: Path, name: str) -> None:
        """Upload a staged file."""
        from boto3.s3.transfer import TransferConfig

        where = self._where(name)
        how = TransferConfig(use_threads=False)
        self._asked(lambda: self._client.upload_file(str(staged), where["Bucket"], where["Key"], Config=how))
        staged.unlink()

    def names(self, table: str) -> set[str]:
        """The Parquet objects of a table."""
        prefix = f"{self._place.key}/"
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._place.bucket, Prefix=f"{prefix}{table}/"
        )
        keys = self._asked(lambda: [item["Key"] for page in pages for item in page.get("Contents", ())])
        return {key.removeprefix(prefix) for key in keys if key.endswith(".parquet")}

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        self._asked(lambda: self._client.delete_object(**self._where(name)))

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self._place.bucket, "Key": f"{self._place.key}/{name}"}

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        """An error of boto3 as ours; others as they are."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, Exception):
            error = error.__context__
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return self._refusal(error.response.get("Error", {}).get("Code", ""), status)
        return remote.failure(self._place, error) if isinstance(error, BotoCoreError | ValueError) else error

    def _refusal(self, code: str, status: int) -> MautoError:
        if code in remote.BUSY or status >= 500 or status == 429:
            return ProviderUnavailable(f"S3 is busy ({code or status}); the next export goes on")
        if code in remote.MISSING:
            return InvalidInput(f"There is no bucket {self._place.bucket} ({code})", code="not_found")
        return Misconfigured(f"S3 refuses {self._place} ({code or status}): the worker's credentials, their rights to "
                             "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket, MAUTO_S3_REGION and "
                             "MAUTO_S3_ENDPOINT_URL decide")  # fmt: skip


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the file system as ours."""
    try:
        yield
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror or error}"
        raise (ProviderUnavailable(why) if error.errno in _FULL else Misconfigured(why)) from error
