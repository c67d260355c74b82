"""What a map in shards costs in CPU seconds, S3 requests and bytes: plan, 1, 2 and 4 shards, each a process, and merge.

python -m benchmarks.shard_growth --root s3://BUCKET/PREFIX [--side 2048] [--shards 1 2 4] [--one-process]

A synthetic pair of 8 bits, in four files each, and a tiny network with random weights; two processes at a time, of a
thread each. `--root` may be a folder, and then no request is counted. With --one-process the steps run one after the
other in this one, so that the CPU seconds are without the start of each.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import rasterio
from affine import Affine

from components.storage.locations import join, local_output
from model.dual_hrnet import DualHRNet
from model.inference import save_model

COUNTED = "--counted"
CORNER = Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
SMALL: dict[str, Any] = {
    "width": 4, "stem_width": 8, "stage1_width": 4, "stage1_blocks": 1, "modules": (1, 1, 1), "blocks": 1,
}  # fmt: skip


def make(root: str, side: int) -> None:
    """The images and the network, at a location."""
    generator = np.random.default_rng(0)
    half = side // 2
    with local_output(join(root, "in")) as folder:
        for name, beside in (("before", 0.0), ("after", 0.4)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for left, top in ((0, 0), (half, 0), (0, half), (half, half)):
                small = generator.integers(0, 256, (3, half // 8, half // 8), dtype=np.uint8)
                profile = {
                    "driver": "GTiff", "dtype": "uint8", "count": 3, "width": half, "height": half, "tiled": True,
                    "crs": "EPSG:32633", "transform": CORNER @ Affine.translation(left + beside, top + beside),
                    "compress": "jpeg", "photometric": "ycbcr",
                }  # fmt: skip
                with rasterio.open(folder / name / f"{left}_{top}.tif", "w", **profile) as out:
                    out.write(small.repeat(8, axis=1).repeat(8, axis=2))
        save_model(DualHRNet(**SMALL), folder / "model")


def step(name: str, *arguments: str, here: bool) -> dict[str, Any]:
    """Runs a step on a machine that has nothing of S3 yet, in a process of its own or here; what it cost."""
    with tempfile.TemporaryDirectory() as cache:
        if here:
            os.environ["DUAL_HRNET_CACHE"] = cache
            return counted(name, *arguments)
        environment = {**os.environ, "DUAL_HRNET_CACHE": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.shard_growth", COUNTED, name, *arguments]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def counted(name: str, *arguments: str) -> dict[str, Any]:
    """Runs a step in this process; what it cost: each HTTP request counts, however often it was tried again."""
    from botocore.httpsession import URLLib3Session

    requests, numbers = Counter[str](), Counter[str]()
    send = URLLib3Session.send

    def noted(session: Any, request: Any) -> Any:
        response = send(session, request)
        requests[request.method] += 1
        if request.method == "PUT":
            numbers["up"] += int(request.headers.get("X-Amz-Decoded-Content-Length", request.headers["Content-Length"]))
        if request.method == "GET":
            numbers["down"] += int(response.headers.get("Content-Length", 0))
        return response

    module = importlib.import_module(f"components.{name}")
    cpu = time.process_time()
    with patch.object(URLLib3Session, "send", noted):
        module.main(arguments)
    return {"requests": requests, **numbers, "cpu": time.process_time() - cpu}


def line(what: str, costs: Sequence[dict[str, Any]], wall: float) -> str:
    """A line of the table, of one or several processes."""
    cpu, up, down = (sum(own.get(name, 0) for own in costs) for name in ("cpu", "up", "down"))
    requests = [sum(own["requests"].get(name, 0) for own in costs) for name in ("GET", "HEAD", "PUT")]
    others = sum(sum(own["requests"].values()) for own in costs) - sum(requests)
    counts = " | ".join(str(value) for value in (*requests, others))
    return f"| {what} | {wall:.0f} | {cpu:.1f} | {counts} | {down / 1e6:.1f} | {up / 1e6:.1f} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == [COUNTED]:
        print(json.dumps(counted(*given[1:])))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shard_growth", description=__doc__)
    parser.add_argument("--root", required=True, metavar="LOCATION")
    parser.add_argument("--side", type=int, default=2048, help="pixels of a side of the images")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--one-process", action="store_true")
    a = parser.parse_args(given)
    run = partial(step, here=a.one_process)
    make(a.root, a.side)
    print("| step | wall s | CPU s | GET | HEAD | PUT | others | MB down | MB up |\n|" + "---|" * 9, flush=True)
    images = ["--pre", f"{a.root}/in/before", "--post", f"{a.root}/in/after"]
    for shards in a.shards:
        out = f"{a.root}/{shards}"
        start = time.perf_counter()
        planned = run("plan", "--model", f"{a.root}/in/model", *images, "--out", out, "--shards", str(shards))
        print(line(f"plan of {shards}", [planned], time.perf_counter() - start), flush=True)
        start = time.perf_counter()
        options = ["--plan", f"{out}/plan.json", "--out", f"{out}/shards"]
        with ThreadPoolExecutor(1 if a.one_process else 2) as pool:
            running = [pool.submit(run, "predict", *options, "--shard", str(own)) for own in range(shards)]
            found = [own.result() for own in running]
        print(line(f"predict, {shards} shards", found, time.perf_counter() - start), flush=True)
        start = time.perf_counter()
        merged = run("merge", "--plan", f"{out}/plan.json", "--shards", f"{out}/shards", "--out", f"{out}/map")
        print(line(f"merge of {shards}", [merged], time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
