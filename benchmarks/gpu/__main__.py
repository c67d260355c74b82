"""What a GPU computes, and how fast, in under six minutes: one table, and the same as JSON.

python -m benchmarks.gpu [--out FILE] [--tiny]

Needs torch (2.11 to 2.13), numpy, OpenCV, pydantic, safetensors and tqdm, nothing else of requirements.txt. Without a
GPU, --tiny runs the same with a small network.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from base.errors import errors_in_one_line
from base.files import refuse_no_folder, write_file
from benchmarks.gpu.correctness import Check, check
from benchmarks.gpu.speed import Row, bf16_rate, feeding, inference, training
from benchmarks.gpu.subject import SMALL, Scale

SECONDS = 330  # after which no further measurement is begun


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; exits with 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the numbers there, as JSON")
    parser.add_argument("--tiny", action="store_true", help="a small network and small images, also without a GPU")
    arguments = parser.parse_args(argv)
    if arguments.out is not None:
        with errors_in_one_line():  # before minutes of work
            refuse_no_folder(arguments.out.parent)
    cuda = torch.cuda.is_available()
    if not cuda and not arguments.tiny:
        sys.exit(f"No GPU that torch {torch.__version__} can use was found. Take --tiny to run this on the CPU.")
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    tiny: dict[str, Any] = {
        "network": SMALL, "crop": 64, "image": 128, "batches": (2, 4), "workers": (0, 2), "rate": 256,
        "seconds": 0.1,
    }  # fmt: skip
    scale = Scale(device, **tiny) if arguments.tiny else Scale(device)
    start = time.perf_counter()
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    machine = f"{name}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{machine}\n")
    checks = list(check(scale))
    print(f"{table_of_checks(checks)}\n")
    tflops = bf16_rate(scale)
    print(f"matrix product: {tflops:.3g} TFLOP/s in {'bfloat16' if cuda else 'float32'}\n")
    rows: list[Row] = []
    for measure in (*training(scale, tflops), *inference(scale, tflops), *feeding(scale)):
        if time.perf_counter() - start > SECONDS:
            rows.append(Row("what follows", note=f"not measured: {SECONDS} s were over"))
            break
        rows.append(measure())
    print(table_of_rows(rows))
    seconds = time.perf_counter() - start
    print(f"\n{seconds:.0f} s in all")
    if arguments.out is not None:
        found = {"machine": machine, "seconds": seconds, "matrix_product_tflops": tflops, "tiny": arguments.tiny}
        parts = {"checks": [asdict(each) for each in checks], "speed": [asdict(row) for row in rows]}
        with errors_in_one_line():
            write_file(arguments.out, json.dumps(found | parts, indent=2) + "\n")
    if not all(each.holds for each in checks):
        sys.exit("A check does not hold: see the first table.")


def table_of_checks(checks: Sequence[Check]) -> str:
    """Markdown."""
    lines = ["| check | largest difference, relative | bound | |", "|---|---|---|---|"]
    for each in checks:
        found = "not on this device" if each.difference is None else f"{each.difference:.1e}"
        lines.append(f"| {each.name} | {found} | {each.bound:.0e} | {'holds' if each.holds else '**differs**'} |")
    return "\n".join(lines)


def table_of_rows(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| work | pairs a second | peak GB | share of the matrix product's rate | waited for data |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.note or f"{row.rate:.3g}",
            "" if row.memory is None else f"{row.memory:.1f}",
            "" if row.share is None else f"{100 * row.share:.0f} %",
            "" if row.waited is None else f"{100 * row.waited:.0f} %",
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
