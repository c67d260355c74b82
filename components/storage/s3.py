"""The one door to boto3: objects below an S3 location, listed, fetched, put and deleted, each whole or not at all.

Endpoint, region and credentials come from boto3's own chain: AWS_* variables, profiles, the role of a pod.

Every transfer ends with one HEAD request, which compares size and CRC32 of the local file with those of the object.
boto3 itself verifies a download in one piece, but not one in ranges, and by default an object that was uploaded in
parts carries a checksum of checksums, which says nothing about the whole. Uploads from here therefore ask for a CRC32
of the whole object. Of objects that others uploaded in parts without one, size and ETag are compared.
"""

import base64
import hashlib
import mimetypes
import re
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from base.errors import InputError
from base.patience import News, Patience, here

# A server that has answered before may be away for so many seconds (a restart, a moved pod) before a request is given
# up. boto3's own attempts end after 2 to 4 seconds of refused connections (measured). A server that never answered is
# more likely misnamed than away: these attempts have to do, unless patience was asked for.
PATIENCE, NO_PATIENCE = Patience(away=60, longest_pause=8), Patience(away=0, longest_pause=8)
ATTEMPTS = 4  # boto3's own for each request
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60  # seconds
FILES_AT_ONCE = 8
PARTS_AT_ONCE = 4  # of one file
PART_SIZE = 8 * 2**20  # bytes; larger files go in parts. boto3's default; a scene of 1024 x 1024 pixels has 7.3e6
CHUNK = 2**20  # bytes of a file that are read at a time
DELETE_LIMIT = 1000  # keys in one request, by S3's protocol
TEMPORARY = re.compile(
    r"(^|/)\.[^/]+\.(partial|replaced|import|sync)(/|$)"
)  # names of this project for unfinished work

Result = TypeVar("Result")
OnBytes = Callable[[int], object]


class StorageError(InputError):
    """A location that cannot be read or written; names it, the finding, the expectation and the remedy."""


class DamagedError(Exception):
    """A copy is not what it is a copy of."""


@dataclass(frozen=True)
class Object:
    """An object as S3 lists it; size in bytes, etag with its quotes."""

    key: str
    size: int
    etag: str


def _checked(endpoint: str, location: str) -> str:
    """The endpoint, if requests and errors can name it; else a StorageError that does not."""
    try:
        address = urlsplit(endpoint)
        wrong = "a user or a password in it" if "@" in address.netloc else None
        _ = address.port
    except ValueError:
        wrong = "a port that is no number"
    if wrong:
        raise StorageError(
            f"{location}: the address of the S3 server has {wrong}, expected http(s)://HOST[:PORT]. Correct "
            "AWS_ENDPOINT_URL, or endpoint_url of the profile; keys go to AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    return endpoint


class Store:
    """What lies at and below the location `s3://bucket/prefix`. Every method raises StorageError."""

    def __init__(self, uri: str) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from s3transfer.manager import TransferConfig  # type: ignore[import-untyped]

        match = re.fullmatch(r"s3://([A-Za-z0-9._-]{3,255})(?:/+(.*?))?/*", uri, re.DOTALL)
        if match is None:
            raise StorageError(f"{uri}: does not name a bucket, expected s3://BUCKET/PREFIX. Correct the location.")
        self.bucket, self.prefix = match[1], match[2] or ""
        self.uri = self._locate(self.prefix)
        settings = Config(
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=FILES_AT_ONCE * PARTS_AT_ONCE,
        )
        try:
            self.client = boto3.session.Session().client("s3", config=settings)
        except (BotoCoreError, ValueError) as error:
            raise StorageError(
                f"{self.uri}: the settings for S3 cannot be used ({_line(error)}). Correct the AWS_* variables, or the "
                "files that they refer to."
            ) from error
        self.endpoint = _checked(str(self.client.meta.endpoint_url), self.uri)
        self.identity = hashlib.sha256(f"{self.endpoint} {self.uri}".encode()).hexdigest()[:16]
        self._transfers = TransferConfig(PART_SIZE, PART_SIZE, max_request_concurrency=PARTS_AT_ONCE)
        # Users set "when_required" for servers that know no checksums.
        supported = self.client.meta.config.request_checksum_calculation == "when_supported"
        self._whole_checksum = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"} if supported else {}
        self._has_answered, self._news = False, News()

    def reach(self) -> None:
        """Asks for one object below the location, whether there is any or not."""
        self._list(self.prefix, MaxKeys=1)

    def list_objects(self) -> dict[str, Object]:
        """The objects below the location by their names relative to it, by one request for each thousand."""
        start = f"{self.prefix}/" if self.prefix else ""
        found = {}
        for listed in self._list(start):
            name = listed.key.removeprefix(start)
            if not name or name.endswith("/") or TEMPORARY.search(name):  # consoles make objects that stand for folders
                continue
            if {"", ".", ".."} & set(name.split("/")):
                raise StorageError(f"{self._locate(listed.key)}: cannot be the name of a file. Rename or remove it.")
            found[name] = listed
        return found

    def find_objects(self) -> dict[str, Object]:
        """As `list_objects`, or else the one object at the location itself, whose key is the prefix."""
        found = self.list_objects()
        if not found and self.prefix:
            # Of all keys that begin so, the shortest one comes first.
            found = {Path(o.key).name: o for o in self._list(self.prefix, MaxKeys=1) if o.key == self.prefix}
        if not found:
            raise StorageError(
                f"{self.uri}: nothing is there, expected a file, or files below it, at {self.endpoint}. Correct the "
                "location, or run the step that writes it."
            )
        return found

    def fetch(self, wanted: Object, to: Path, on_bytes: OnBytes) -> None:
        """Writes the object to the file `to` and verifies it. on_bytes: is called with bytes moved, and less those
        that were in vain, from several threads.
        """
        from s3transfer.manager import TransferManager

        def attempt() -> None:
            with _Subscriber(on_bytes, wanted) as subscriber:
                with to.open("wb") as file, TransferManager(self.client, self._transfers) as manager:
                    manager.download(self.bucket, wanted.key, file, subscribers=[subscriber]).result()
                self._verify(to, wanted.key, wanted.etag)

        self._patiently(wanted.key, attempt)

    def put(self, path: Path, name: str, on_bytes: OnBytes) -> Object:
        """Writes the file to the object `name` below the location and verifies it. on_bytes: as in `fetch`."""
        from s3transfer.manager import TransferManager

        key = f"{self.prefix}/{name}" if self.prefix else name
        kind, packed = mimetypes.guess_type(name)  # by which browsers show a page instead of offering it as a file
        arguments = {**self._whole_checksum, **({"ContentType": kind} if kind and not packed else {})}

        def attempt() -> Object:
            with _Subscriber(on_bytes) as subscriber:
                with TransferManager(self.client, self._transfers) as manager:
                    manager.upload(str(path), self.bucket, key, arguments, [subscriber]).result()
                return self._verify(path, key)

        return self._patiently(key, attempt)

    def delete(self, objects: Sequence[Object]) -> None:
        """Deletes the objects; those that are gone already are no error."""
        for start in range(0, len(objects), DELETE_LIMIT):
            keys = [{"Key": one.key} for one in objects[start : start + DELETE_LIMIT]]
            request = {"Bucket": self.bucket, "Delete": {"Objects": keys, "Quiet": True}}
            answer = self._patiently(self.prefix, partial(self.client.delete_objects, **request))
            for failed in answer.get("Errors", []):
                finding = f"cannot be deleted ({failed.get('Code')}: {failed.get('Message')})"
                raise StorageError(f"{self._locate(failed['Key'])}: {finding}. Check the permissions there.")

    def _list(self, start: str, **limit: int) -> list[Object]:
        def read_pages() -> list[Object]:
            if limit:
                pages = [self.client.list_objects_v2(Bucket=self.bucket, Prefix=start, **limit)]
            else:
                pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            return [Object(i["Key"], i["Size"], i["ETag"]) for page in pages for i in page.get("Contents", [])]

        return self._patiently(self.prefix, read_pages)

    def _verify(self, path: Path, key: str, etag: str | None = None) -> Object:
        """Compares the file with the object, which still has to be the one of `etag`; returns the object."""
        condition = {} if etag is None else {"IfMatch": etag}
        head = self.client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **condition)
        size, checksum = path.stat().st_size, head.get("ChecksumCRC32")
        if head["ContentLength"] != size:
            raise DamagedError(f"the object has {head['ContentLength']} bytes, the file {size}")
        if checksum is not None and "-" not in checksum and checksum != _crc32(path):  # "-": a checksum of checksums
            raise DamagedError("the object and the file differ in their CRC32")
        return Object(key, size, head["ETag"])

    def _patiently(self, key: str, attempt: Callable[[], Result]) -> Result:
        """The attempt's result; after a failure that may pass, it is repeated with patience."""
        from botocore.exceptions import BotoCoreError, ClientError
        from s3transfer.exceptions import RetriesExceededError  # type: ignore[import-untyped]

        try:
            patience = here(PATIENCE if self._has_answered else NO_PATIENCE)
            result = patience.wait_out(attempt, may_pass, f"S3 at {self.endpoint}", _line, self._news)
        except (BotoCoreError, ClientError, RetriesExceededError, DamagedError) as error:
            message = self._explain(error)
            if message is None:
                raise
            raise StorageError(f"{self._locate(key)}: {message}") from error
        self._has_answered = True
        return result

    def _explain(self, error: Exception) -> str | None:
        """Finding and remedy for an error that the user can mend; None for what only we can have caused."""
        from botocore import exceptions as e
        from botocore.exceptions import ClientError

        if isinstance(error, ClientError):
            code, status = error.response["Error"].get("Code", ""), error.response["ResponseMetadata"]["HTTPStatusCode"]
            answer = f"{self.endpoint} answers {code}: {error.response['Error'].get('Message')}"
            if code == "NoSuchBucket":
                return f"{self.endpoint} has no bucket {self.bucket}. Create it, or correct the location."
            if status in (401, 403) or "Token" in code:
                return f"access is refused ({answer}). Check the credentials, and that they may read and write there."
            if status in (404, 412):
                return f"the object was replaced or removed while it was read ({answer}). Run this again."
            return f"{answer}. Check the location and AWS_ENDPOINT_URL."
        if isinstance(
            error,
            e.NoCredentialsError
            | e.PartialCredentialsError
            | e.CredentialRetrievalError
            | e.TokenRetrievalError
            | e.SSOError
            | e.InvalidConfigError,
        ):
            return (
                f"there are no credentials for {self.endpoint} ({_line(error)}). Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the pod a role."
            )
        if isinstance(error, DamagedError | e.FlexibleChecksumError):
            return f"arrives damaged ({_line(error)}). Check the disks and the network on the way."
        if may_pass(error):
            return f"{self.endpoint} cannot be reached ({_line(error)}). Check AWS_ENDPOINT_URL and the server."
        return None

    def _locate(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}".rstrip("/")


class _Subscriber:
    """What s3transfer asks about a transfer, and reports of it."""

    def __init__(self, on_bytes: OnBytes, known: Object | None = None) -> None:
        self._on_bytes, self._known, self._moved = on_bytes, known, 0
        self._lock = threading.Lock()

    def __enter__(self) -> "_Subscriber":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.on_progress(-self._moved)

    def on_queued(self, future: Any, **_: Any) -> None:
        """Saves the HEAD request in front of a download, and lets ranges of this version only be combined."""
        if self._known is not None:
            future.meta.provide_transfer_size(self._known.size)
            future.meta.provide_object_etag(self._known.etag)

    def on_progress(self, bytes_transferred: int, **_: Any) -> None:
        with self._lock:
            self._moved += bytes_transferred
            self._on_bytes(bytes_transferred)


def may_pass(error: Exception) -> bool:
    """Whether the same request to an S3 server may succeed later; error: of boto3, or of what is built on it."""
    from botocore import exceptions as e
    from s3transfer.exceptions import RetriesExceededError

    if isinstance(error, e.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status >= 500 or status == 429 or error.response["Error"].get("Code") in ("RequestTimeout", "SlowDown")
    network = e.ConnectionError | e.HTTPClientError | e.IncompleteReadError
    return isinstance(error, network | e.FlexibleChecksumError | RetriesExceededError | DamagedError)


def _crc32(path: Path) -> str:
    """As S3 writes it: four bytes, most significant first, in base64."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _line(error: Exception) -> str:
    """What a library says, in one line."""
    cause = getattr(error, "last_exception", None) or error
    return (str(cause) or type(cause).__name__).splitlines()[0].rstrip(". ")
