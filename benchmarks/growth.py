"""How prepare and the loader grow with the number of scenes: the same scenes again and again under new names.

python -m benchmarks.growth --raw XBD [--scenes 32 320 3200]

Needs 7.3 MB of disk for each scene. Memory is that of all processes together without the pages of mapped files, which
the kernel takes back when it needs them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

SUFFIXES = ("images/{}_pre_disaster.png", "images/{}_post_disaster.png", "labels/{}_post_disaster.json")
PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
LOADER = """
import json, sys, time
from xbd.dataset import SceneCrops
start = time.perf_counter()
crops = SceneCrops(sys.argv[1], crop_size=512)
ready = time.perf_counter() - start
for index in range(8):
    crops[len(crops) + index]
start, cpu = time.perf_counter(), time.process_time()
for index in range(int(sys.argv[2])):
    crops[index]
print(json.dumps([ready, time.perf_counter() - start, time.process_time() - cpu]))
"""


def repeat_scenes(raw: Path, out: Path, count: int) -> None:
    """`count` train scenes below `out`: links to the scenes below `raw`, in turns."""
    labels = sorted(raw.glob("*/labels/*_post_disaster.json"))
    for kind in ("images", "labels"):
        (out / "train" / kind).mkdir(parents=True)
    for number in range(count):
        label = labels[number % len(labels)]
        scene = label.name.removesuffix("_post_disaster.json")
        for suffix in SUFFIXES:
            link = out / "train" / suffix.format(f"{scene.rsplit('_', 1)[0]}_{number:08}")
            link.symlink_to((label.parent.parent / suffix.format(scene)).resolve())


def run(command: Sequence[str | Path]) -> tuple[float, float, str]:
    """Runs a command; wall seconds, peak memory in MB of it and its processes together, and what it printed."""
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output)
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(0.1)
        wall = time.perf_counter() - start
        assert process.returncode == 0
        output.seek(0)
        return wall, peak, output.read()


def _anonymous(process: int) -> float:
    """Memory in MB of a process and those it started; pages that several share count once."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    own = int(rollup.split("Pss_Anon:")[1].split()[0]) / 1e3
    return own + sum(_anonymous(int(child)) for child in children)


def _measure_prepare(folder: Path, raw: Path, count: int) -> str:
    """A line of the first table; the prepared scenes stay in `folder`/prepared."""
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    params["prepare"]["validation_share"] = 0.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    repeat_scenes(raw, folder / "raw", count)
    command: list[str | Path] = [sys.executable, "-m", "components.prepare", "--params", folder / "params.yaml"]
    command += ["--raw", folder / "raw", "--out", folder / "prepared"]
    wall, peak, _ = run(command)
    again, _, _ = run(command)
    index = (folder / "prepared" / "index.csv").stat().st_size
    return f"| {count:,} | {wall:.1f} | {1e3 * wall / count:.0f} | {again:.1f} | {peak:.0f} | {index / count:.0f} |"


def _measure_loader(prepared: Path, count: int) -> str:
    """A line of the second table: a sample of each scene."""
    _, peak, output = run([sys.executable, "-c", LOADER, prepared, str(count)])
    ready, wall, cpu = json.loads(output)
    return f"| {count:,} | {ready:.2f} | {1e3 * wall / count:.1f} | {1e3 * cpu / count:.1f} | {peak:.0f} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--scenes", type=int, nargs="+", default=[32, 320, 3200])
    parser.add_argument("--work", type=Path, metavar="DIR", help="for the prepared scenes")
    arguments = parser.parse_args(argv)
    prepared, loaded = [], []
    for count in arguments.scenes:
        with tempfile.TemporaryDirectory(dir=arguments.work) as name:
            prepared.append(_measure_prepare(Path(name), arguments.raw, count))
            loaded.append(_measure_loader(Path(name) / "prepared", count))
    print("| scenes | prepare s | ms a scene | again s | peak MB | index bytes a scene |\n|" + "---|" * 6)
    print("\n".join(prepared))
    print("\n| scenes | loader ready s | wall ms a sample | CPU ms a sample | peak MB |\n|" + "---|" * 5)
    print("\n".join(loaded))


if __name__ == "__main__":
    main()
