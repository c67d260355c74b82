"""Versions of data as DVC stores them, for the tests of fetch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

Arguments = list[str | Path]


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def objects_in(cache: Path) -> set[str]:
    """Hashes of the objects in a DVC cache; each must be what its name says."""
    found = {path.parent.name + path.name: path.read_bytes() for path in cache.glob("files/md5/*/*")}
    for md5, content in found.items():
        assert md5_of(content) == md5.removesuffix(".dir")
    return set(found)


def write_version(contents: dict[str, bytes], folder: Path, put: Any) -> Path:
    """Writes a version by hand as DVC 3 stores it, `put(md5, content)` an object; returns its .dvc file."""
    entries = [{"md5": md5_of(content), "relpath": path} for path, content in sorted(contents.items())]
    manifest = json.dumps(entries, sort_keys=True).encode()
    version = f"{md5_of(manifest)}.dir"
    put(version, manifest)
    for content in contents.values():
        put(md5_of(content), content)
    file = folder / "xbd.dvc"
    file.write_text(yaml.safe_dump({"outs": [{"md5": version, "hash": "md5", "path": "xbd"}]}))
    return file
