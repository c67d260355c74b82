"""Tasks of a map's graph while processes are killed and S3 is away: the map is that of a quiet day."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from components.kubeflow.mapping import tasks
from components.kubeflow.tasks import task
from components.predict import predict_shard
from imagery.settings import Windows
from imagery.shards import merging
from tests.components.kubeflow.outages import back, listening, s3_away, said
from tests.components.kubeflow.references import Reference
from tests.components.storage.s3_objects import put, remote_tree
from tests.conftest import tree
from tests.imagery.shards.long_images import long_images
from tests.servers.s3_server import S3Server

__all__ = ["listening", "s3_away"]
pytestmark = pytest.mark.endurance
WINDOWS = {"tile": 128, "overlap": 32, "workers": 0}
OPTIONS = {"align": "off", "features": True, "views": 1, "event": None, "footprints": None}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_images(tmp_path_factory.mktemp("images"))


def planned(network: Path, images: Path | str, root: str, shards: int, folder: Path) -> tuple[Reference, list[str]]:
    plan, places = Reference(str(folder / "references" / "plan")), (root, f"{root}/delivered")
    pre, post = [f"{images}/pre"], [f"{images}/post"]
    return plan, tasks.plan(str(network), pre, post, *places, shards, {}, WINDOWS, "", OPTIONS, plan)


def predicted(plan: Reference, number: str, folder: Path) -> Reference:
    shard = Reference(str(folder / "references" / number))
    tasks.predict(plan, number, WINDOWS, shard)
    return shard


def test_a_shard_that_is_killed_twice_goes_on_with_its_windows(
    network: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, numbers = planned(network, images, str(tmp_path / "root"), 1, tmp_path)
    assert numbers == ["0"]
    shards = Path(plan.metadata["location"]).parent / "shards"
    known: list[dict[str, int]] = []

    class Killed(subprocess.Popen[str]):
        """Is killed when it has ten more windows than there were, but for the third time."""

        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            if "components.predict" in given[0]:  # and not what tests start it with
                threading.Thread(target=self.watch).start()

        def watch(self) -> None:
            before = len(known[-1]) if known else 0
            while self.poll() is None and len(known) < 2:
                files = {path.name: path.stat().st_mtime_ns for path in shards.glob(".shard-00000.tiles/tile_*.npz")}
                if len(files) >= before + 10:
                    os.kill(self.pid, signal.SIGKILL)
                    known.append(files)
                    return

    monkeypatch.setattr(subprocess, "Popen", Killed)
    shard = predicted(plan, "0", tmp_path)
    assert "failed" not in shard.metadata
    assert capfd.readouterr().err.count("failed: it was ended by SIGKILL.") == 2
    first, second = known
    assert len(first) >= 10 and {name: second[name] for name in first} == first  # none was made anew
    predict_shard(plan.metadata["location"], 0, tmp_path / "quiet", windows=Windows(workers=0))
    assert tree(shards / "shard-00000") == tree(tmp_path / "quiet" / "shard-00000")
    assert [path.name for path in shards.iterdir()] == ["shard-00000"]
    (shards / "shard-00000" / "means.npy").unlink()
    predicted(plan, "0", tmp_path)
    assert tree(shards / "shard-00000") == tree(tmp_path / "quiet" / "shard-00000")


def test_a_map_waits_for_a_store_that_is_away_when_the_merge_begins_and_in_its_middle(
    network: Path, images: Path, s3_away: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for path in images.rglob("*.tif"):
        put(s3_away, f"s3://data/event/{path.relative_to(images).as_posix()}", path.read_bytes())
    plan, numbers = planned(network, "s3://data/event", "s3://data/maps", 2, tmp_path)
    shards = [predicted(plan, number, tmp_path) for number in numbers]
    place = plan.metadata["location"].removesuffix("/plan.json")
    merged = Reference(str(tmp_path / "merged"))
    assert tasks.merge(plan, shards, "", 500.0, merged) == "complete"
    quiet = remote_tree(s3_away, f"{place}/map")
    capsys.readouterr()

    s3_away.stop()
    thread = back(s3_away.start)
    with task():
        assert tasks.merge(plan, shards, "", 500.0, merged) == "complete"
    thread.join()
    said(capsys, f"S3 at {s3_away.endpoint}")

    merge, threads = merging.merge_shards, list[threading.Thread]()

    def in_the_middle(*given: Any, **more: Any) -> Any:
        made = merge(*given, **more)
        s3_away.stop()
        threads.append(back(s3_away.start))
        return made

    monkeypatch.setattr(merging, "merge_shards", in_the_middle)
    with task():
        assert tasks.merge(plan, shards, "", 500.0, merged) == "complete"
    threads[0].join()
    said(capsys, f"S3 at {s3_away.endpoint}")
    again = remote_tree(s3_away, f"{place}/map")
    assert {name for name in quiet if again[name] != quiet[name]} <= {"buildings.gpkg"}  # which has the time in it
