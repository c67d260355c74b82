"""What tests of locations share: objects by a client of their own, the requests of a store, and settings."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from components.storage.s3 import Store
from tests.servers.s3_server import S3Server


def use_server(server: S3Server, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Makes `server` the one that this process's settings, and its children's, name."""
    for name, value in server.environment.items():
        patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)
    patch.setenv("DUAL_HRNET_CACHE", str(cache))


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def remote_tree(server: S3Server, uri: str) -> dict[str, bytes]:
    """All objects below the location, by a client of our own."""
    bucket, prefix = uri.removeprefix("s3://").split("/", 1)
    client = server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key[len(prefix) + 1 :]: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def put(server: S3Server, uri: str, content: bytes) -> None:
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    server.client().put_object(Bucket=bucket, Key=key, Body=content)


def remove(server: S3Server, uri: str) -> None:
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    server.client().delete_object(Bucket=bucket, Key=key)


def requests_of(store: Store) -> list[tuple[str, str]]:
    """A list that grows by (operation, key) with every request of the store."""
    seen: list[tuple[str, str]] = []

    def note(model: object, params: Mapping[str, str], **_: object) -> None:
        seen.append((str(getattr(model, "name", None)), params["url_path"].removeprefix("/")))

    store.client.meta.events.register("before-call.s3", note)
    return seen


def everything(path: Path) -> bool:
    return True
