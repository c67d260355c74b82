"""Writes a small sample, prepares it, and prints the hashes of what came out: pixels, labels, files, arrays."""

import hashlib
import sys
from pathlib import Path

from base.images import read_image
from components.prepare import prepare
from tests.tiny import prepare_params
from xbd.sample.synthetic import write_sample

if __name__ == "__main__":
    out = Path(sys.argv[1])
    write_sample(out / "raw", train=4, test=0, size=96, seed=7)
    pixels, labels, files = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for path in sorted((out / "raw").rglob("*.*")):
        files.update(path.read_bytes())
        if path.suffix == ".png":
            pixels.update(read_image(path).tobytes())
        else:
            labels.update(path.read_bytes())
    records = prepare(out / "raw", out / "prepared", prepare_params())
    arrays = hashlib.sha256("".join(sorted(record.array_sha256 for record in records)).encode())
    index = hashlib.sha256((out / "prepared" / "index.csv").read_bytes())
    print(*(one.hexdigest() for one in (pixels, labels, arrays, files, index)))
