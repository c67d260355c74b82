"""How prepare and the loader grow with the number of scenes: the same scenes again and again under new names.

python -m benchmarks.growth --raw XBD [--scenes 32 320 3200]

Needs 7.3 MB of disk for each scene. Prepare's memory is the sum of its processes' peaks, their code included; the
loader's is without the pages of the scenes, which the kernel takes back when it needs them. Prepare's start-up, as long
as it takes for one scene, is measured by itself and taken off its time a scene.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

SUFFIXES = ("images/{}_pre_disaster.png", "images/{}_post_disaster.png", "labels/{}_post_disaster.json")
MANY = 160  # fewer scenes than this are prepared several times
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
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
own = [line.split() for line in open("/proc/self/status") if line.startswith("RssAnon")]
print(json.dumps([ready, wall, cpu, int(own[0][1]) / 1e3]))
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
    """Runs a command; wall seconds, the sum in MB of the peaks of it and of its processes, and what it printed."""
    start = time.perf_counter()
    peaks: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output)
        while process.poll() is None:
            peaks |= _peaks(process.pid)
            time.sleep(0.02)
        wall = time.perf_counter() - start
        assert process.returncode == 0
        output.seek(0)
        return wall, sum(peaks.values()), output.read()


def _peaks(process: int) -> dict[int, float]:
    """A process and those it started, each with the most memory in MB that it ever held, as the kernel counts it."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        peaks = {process: int(status.split("VmHWM:")[1].split()[0]) / 1e3}
    except (OSError, IndexError):  # it has just ended
        return {}
    for child in children:
        peaks |= _peaks(int(child))
    return peaks


def _prepare_command(folder: Path) -> list[str | Path]:
    """The command that prepares the scenes of `folder`/raw into `folder`/prepared."""
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    params["prepare"]["validation_share"] = 0.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    command: list[str | Path] = [sys.executable, "-m", "components.prepare", "--params", folder / "params.yaml"]
    return [*command, "--raw", folder / "raw", "--out", folder / "prepared"]


def _time_from_nothing(folder: Path, raw: Path, count: int, runs: int) -> tuple[float, float]:
    """Median wall seconds and the highest peak in MB of preparing `count` scenes `runs` times."""
    repeat_scenes(raw, folder / "raw", count)
    command = _prepare_command(folder)
    walls, peaks = [], []
    for _ in range(runs):
        shutil.rmtree(folder / "prepared", ignore_errors=True)
        wall, peak, _ = run(command)
        walls.append(wall)
        peaks.append(peak)
    return statistics.median(walls), max(peaks)


def _measure_prepare(folder: Path, raw: Path, count: int, start_up: float) -> str:
    """A line of the first table; the prepared scenes stay in `folder`/prepared."""
    wall, peak = _time_from_nothing(folder, raw, count, runs=max(1, MANY // count))
    again, _, _ = run(_prepare_command(folder))
    index = (folder / "prepared" / "index.csv").stat().st_size
    each = 1e3 * (wall - start_up) / (count - 1)
    return f"| {count:,} | {wall:.1f} | {each:.1f} | {again:.1f} | {peak:.0f} | {index / count:.0f} |"


def _measure_loader(prepared: Path, count: int) -> str:
    """A line of the second table: a sample of each scene."""
    _, _, output = run([sys.executable, "-c", LOADER, prepared, str(count)])
    ready, wall, cpu, memory = json.loads(output)
    return f"| {count:,} | {ready:.2f} | {1e3 * wall / count:.1f} | {1e3 * cpu / count:.1f} | {memory:.0f} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--scenes", type=int, nargs="+", default=[32, 320, 3200])
    parser.add_argument("--work", type=Path, metavar="DIR", help="for the prepared scenes")
    arguments = parser.parse_args(argv)
    prepared, loaded = [], []
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        start_up, _ = _time_from_nothing(Path(name), arguments.raw, count=1, runs=5)
    for count in arguments.scenes:
        with tempfile.TemporaryDirectory(dir=arguments.work) as name:
            prepared.append(_measure_prepare(Path(name), arguments.raw, count, start_up))
            loaded.append(_measure_loader(Path(name) / "prepared", count))
    print(f"Start-up of prepare with its first scene: {start_up:.2f} s\n")
    print("| scenes | prepare s | ms a further scene | again s | peak MB | index bytes a scene |\n|" + "---|" * 6)
    print("\n".join(prepared))
    print("\n| scenes | loader ready s | wall ms a sample | CPU ms a sample | MB |\n|" + "---|" * 5)
    print("\n".join(loaded))


if __name__ == "__main__":
    main()
