"""What it takes to assess a map of many buildings: the command as people call it, in a process of its own.

python -m benchmarks.assessing [--buildings 50000] [--judged 300] [--work DIR]

The map is one of benchmarks.million, with features of the full network that are noise. A judgement is the map's grade,
or, of a fifth of the buildings, any other.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

from base.command_line import whole_number
from benchmarks import million
from benchmarks.labels_as_judge import Truth, write_judgements
from imagery.assessing.judged_map import read_map
from imagery.give.rasters import DAMAGE
from imagery.read.grid import Grid
from imagery.sampling.judged import JUDGEMENTS
from imagery.sampling.judgements_file import JUDGEMENTS_FILE

ERRORS = 0.2


def judge(folder: Path, path: Path, judged: int) -> int:
    """Writes the judgements of a map; returns how many buildings it has."""
    given, generator = read_map(folder), np.random.default_rng(0)
    errs = generator.random(len(given.grades)) < ERRORS
    judgements = np.where(errs, generator.choice(JUDGEMENTS, len(errs)), given.grades)
    with rasterio.open(folder / DAMAGE) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    none = np.zeros(0, np.int64)
    truth = Truth(judgements, np.zeros(0, object), none)
    write_judgements(path, given, grid, truth, judged, 0, "noise")
    return len(errs)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints seconds on the clock and of CPU, and the peak of memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assessing", description=__doc__)
    parser.add_argument("--buildings", type=whole_number(10_000, 10_000_000), default=50_000)
    parser.add_argument("--judged", type=whole_number(0, 10_000), default=300)
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the map and its assessment")
    a = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        work = a.work or Path(temporary)
        if not (work / "map").is_dir():
            million.main(["--buildings", str(a.buildings), "--shards", "4", "--work", str(work)])
        buildings = judge(work / "map", work / JUDGEMENTS_FILE, a.judged)
        given = ["--map", str(work / "map"), "--judgements", str(work / JUDGEMENTS_FILE)]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "components.assess", *given, "--out", str(work / "assessed")],
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"assess ended with {os.waitstatus_to_exitcode(status)}")
        print(
            f"{buildings:,} buildings, {a.judged} judged: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} CPU s, "
            f"peak {used.ru_maxrss / 1e3:.0f} MB"
        )


if __name__ == "__main__":
    main()
