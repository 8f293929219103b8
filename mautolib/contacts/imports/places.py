"""Addresses in S3: `s3://bucket/key`, of which no part can be taken for a host, a path or another scheme."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mautolib.errors import InvalidInput

__all__ = ["Place", "is_remote", "place_of"]

_SCHEME = "s3://"
#: Names of buckets, of which no part can be taken for a host or a path; an address of four numbers is none.
_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9])){1,61}[a-z0-9]")
_MAX_KEY_OCTETS = 1024


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an object lies."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"


def is_remote(uri: str) -> bool:
    """Whether `uri` is an address rather than a path."""
    return uri.startswith(_SCHEME)


def place_of(uri: str) -> Place:
    """Read `s3://bucket/key`.

    Raises:
        InvalidInput: another scheme, or a name that no bucket or object can have.
    """
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not is_remote(uri):
        raise InvalidInput(f"{uri[:200]!r} is neither a path nor s3://bucket/key", path=("path",))
    if not _BUCKET.fullmatch(bucket):
        raise InvalidInput(f"{bucket[:80]!r} is not the name of a bucket", path=("path",))
    octets = len(key.encode("utf-8", "replace"))
    if not key.isprintable() or not 0 < octets <= _MAX_KEY_OCTETS or key.endswith("/"):
        raise InvalidInput(f"s3://{bucket}/ must be followed by the key of one object", path=("path",))
    return Place(bucket=bucket, key=key)
