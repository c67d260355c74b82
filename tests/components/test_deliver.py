"""deliver: a map goes to its place as a whole, with an item, and its numbers to one run of MLflow."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from components import deliver
from imagery.give.outputs import FILES
from imagery.shards.plan import LeftOut
from tests.components.storage.s3_objects import put, remote_tree, use_server
from tests.conftest import exit_line, tree, write_params
from tests.imagery.shards.making import make_event, merge, plan_of, predict, small_blocks
from tests.servers.s3_server import S3Server
from tests.stac_items import check_item

__all__ = ["small_blocks"]


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole map of two shards, and a part of it, made without the second."""
    folder = tmp_path_factory.mktemp("maps")
    plan = plan_of(make_event(folder), 2, align="off")
    shards = [predict(plan, number, folder / "shards") for number in range(2)]
    merge(plan, shards, folder / "whole")
    merge(plan, shards[:1], folder / "part", missing=[LeftOut(what="shard-00001", why="it <failed>.")])
    (folder / "digest").write_text(plan.digest)
    return folder


def words(source: Path, out: Path | str, params: Path, *more: str) -> list[str]:
    return ["--params", str(params), "--map", str(source), "--out", str(out), *more]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return write_params(tmp_path / "params.yaml", {"tracking": {"experiment": f"maps of {tmp_path.name}"}})


def runs(params: Path) -> list[tuple[dict[str, str], dict[str, float], str]]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(f"maps of {params.parent.name}")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return [(run.data.tags, run.data.metrics, run.info.status) for run in found]


def test_a_map_is_delivered_whole_with_an_item_and_a_run(maps: Path, params: Path, mlflow_store: str) -> None:
    out = params.parent / "palu"
    for _ in range(2):  # after a pod that was lost behind the work, too
        deliver.main(words(maps / "whole", out, params, "--taken", "2018-10-01T14:00:00+02:00"))
    files = tree(out)
    item = json.loads(files.pop("stac.json"))
    assert files == tree(maps / "whole") and set(files) == set(FILES)
    check_item(item)
    assert (item["id"], item["properties"]["datetime"]) == ("palu", "2018-10-01T12:00:00Z")
    total = json.loads(files["summary.json"])["total"]
    [(tags, metrics, status)] = runs(params)
    assert status == "FINISHED"
    assert {key: metrics[key] for key in total} == total
    assert metrics["buildings_damaged"] == sum(
        total[f"buildings_{key}"] for key in ("minor_damage", "major_damage", "destroyed")
    )
    digest = (maps / "digest").read_text()
    expected = {"state": "complete", "plan": digest, "model": "a model", "network": "a network", "shards": "2"}
    assert {key: tags[key] for key in expected} == expected
    for key in ("state", "plan", "network"):
        assert item["properties"][f"dual-hrnet:{key}"] == expected[key]
    assert tags["delivered_to"] == str(out) and "left_out" not in tags


def test_a_map_that_lacks_something_says_so_everywhere(
    maps: Path, params: Path, mlflow_store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = params.parent / "palu"
    with pytest.raises(SystemExit) as ended:
        deliver.main(words(maps / "part", out, params))
    assert ended.value.code == 3
    assert capsys.readouterr().out.startswith("A partial map of ")
    properties = json.loads((out / "stac.json").read_text())["properties"]
    assert properties["dual-hrnet:state"] == "partial"
    assert properties["dual-hrnet:left_out"] == [{"what": "shard-00001", "why": "it <failed>."}]
    [(tags, metrics, _)] = runs(params)
    assert (tags["state"], tags["left_out"], metrics["left_out"]) == ("partial", "shard-00001", 1)
    deliver.main(words(maps / "whole", out, params))  # when the shard is there
    assert json.loads((out / "stac.json").read_text())["properties"]["dual-hrnet:state"] == "complete"
    assert sorted(tags["state"] for tags, _, _ in runs(params)) == ["complete", "partial"]


def test_a_map_that_does_not_say_where_its_model_was_is_delivered_without(
    maps: Path, params: Path, mlflow_store: str, tmp_path: Path
) -> None:
    earlier, out = Path(shutil.copytree(maps / "whole", tmp_path / "earlier")), tmp_path / "palu"
    summary = json.loads((earlier / "summary.json").read_text(encoding="utf-8"))
    del summary["scene"]["model"]["location"]
    (earlier / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    deliver.main(words(earlier, out, params))
    item = json.loads((out / "stac.json").read_text(encoding="utf-8"))
    check_item(item)
    assert item["properties"]["processing:lineage"].startswith("model not recorded")
    [(tags, _, _)] = runs(params)
    assert "model" not in tags


def test_what_cannot_be_delivered_is_one_line_and_changes_nothing(
    maps: Path, params: Path, mlflow_store: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = exit_line(deliver.main, *words(maps, out, params))
    assert line.startswith(f"DeliveryError: {maps}/summary.json: cannot be read (No such file or directory)")
    line = exit_line(deliver.main, *words(maps / "whole", out, params, "--taken", "yesterday"))
    assert line.startswith("InputError: --taken: found 'yesterday', expected a time by ISO 8601")
    assert not out.exists()
    out.mkdir()
    (out / "thesis.doc").write_text("years")
    line = exit_line(deliver.main, *words(maps / "whole", out, params))
    assert f"{out}/thesis.doc: would be deleted" in line
    assert tree(out) == {"thesis.doc": b"years"}


@pytest.mark.endurance
def test_a_map_goes_from_s3_to_s3(
    maps: Path, params: Path, mlflow_store: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(s3, tmp_path / "cache", monkeypatch)
    for name, content in tree(maps / "whole").items():
        put(s3, f"s3://data/deliver/map/{name}", content)
    deliver.main(words(Path("unused"), "s3://data/deliver/palu", params, "--map", "s3://data/deliver/map"))
    files = remote_tree(s3, "s3://data/deliver/palu")
    item = json.loads(files.pop("stac.json"))
    check_item(item)
    assert files == tree(maps / "whole")
    put(s3, "s3://data/deliver/other/thesis.doc", b"years")
    line = exit_line(deliver.main, *words(maps / "whole", "s3://data/deliver/other", params))
    assert "s3://data/deliver/other/thesis.doc: would be deleted" in line
