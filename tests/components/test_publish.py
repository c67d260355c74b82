"""Which raw version is the latest: said by who pushed it, asked for by each scheduled run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from base.errors import InputError
from components.kubeflow import tasks
from components.kubeflow.sections import defaults_of
from components.kubeflow.steps import NEEDS
from components.kubeflow.tasks import PROCESSES
from components.params import load_params
from components.publish import main, publish
from components.storage.dvc import DvcFile, FetchError, Hash
from components.storage.latest import read_latest
from tests.conftest import ROOT, assert_one_line, dvc, exit_line, run_step
from tests.servers.s3_server import S3Server

GIVEN = f"{5:032}.dir"


@pytest.fixture(scope="module")
def repository(raw: Path, aws: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with data/xbd, pushed to S3."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    dvc(folder, "init", "--quiet")
    dvc(folder, "remote", "add", "--default", "storage", "s3://dvc/latest")
    shutil.copytree(raw, folder / "data" / "xbd")
    dvc(folder, "add", "data/xbd")
    dvc(folder, "push", **aws)
    return folder


def version(repository: Path) -> str:
    record = yaml.safe_load((repository / "data" / "xbd.dvc").read_text(encoding="utf-8"))
    return str(record["outs"][0]["md5"])


@pytest.fixture
def reachable(aws: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.items():
        monkeypatch.setenv(name, value)


def test_a_run_takes_what_was_published_last(
    repository: Path, reachable: None, s3: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROCESSES, "1")  # no cluster is asked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    main(["--dvc-file", str(repository / "data" / "xbd.dvc"), "--remote", "s3://dvc/latest"])
    assert capsys.readouterr().out == f"latest of s3://dvc/latest: {version(repository)}\n"
    sections = form()
    root = "s3://dvc/latest-runs"
    assert tasks.check("latest", "s3://dvc/latest", root, sections) == (version(repository), "new here", "")
    assert capsys.readouterr().out == f"raw version: {version(repository)}, the latest of s3://dvc/latest: new here\n"
    assert tasks.check(GIVEN, "s3://dvc/latest", root, sections) == (GIVEN, "new here", "")
    key = f"latest-runs/raw/{version(repository).removesuffix('.dir')}/train/labels/a.json"
    s3.client().put_object(Bucket="dvc", Key=key, Body=b"{}")
    found, news, _ = tasks.check("latest", "s3://dvc/latest", root, sections)
    assert found == version(repository) and news.startswith("nothing new: ")


def test_a_version_that_is_not_pushed_does_not_become_the_latest(
    repository: Path, reachable: None, s3: S3Server
) -> None:
    publish(DvcFile(repository / "data" / "xbd.dvc"), "s3://dvc/latest")
    for md5 in (GIVEN, f"{5:032}"):
        with pytest.raises(FetchError, match=rf"{md5} is not whole on s3://dvc/latest. Run `dvc push` first"):
            publish(Hash(md5), "s3://dvc/latest")
    damaged = f"latest/files/md5/{version(repository)[:2]}/{version(repository)[2:]}"
    content = s3.client().get_object(Bucket="dvc", Key=damaged)["Body"].read()
    s3.client().put_object(Bucket="dvc", Key=damaged, Body=content[:-1])
    with pytest.raises(FetchError, match="is not whole"):
        publish(Hash(version(repository)), "s3://dvc/latest")
    s3.client().put_object(Bucket="dvc", Key=damaged, Body=content)
    assert read_latest("s3://dvc/latest") == version(repository)


def test_dvc_sees_nothing_of_it(repository: Path, reachable: None, aws: dict[str, str], s3: S3Server) -> None:
    publish(Hash(version(repository)), "s3://dvc/latest")
    before = s3.client().get_object(Bucket="dvc", Key="latest/latest")["Body"].read()
    assert json.loads(before) == {"raw_version": version(repository)}
    dvc(repository, "gc", "--cloud", "--workspace", "--force", **aws)
    assert "in sync" in dvc(repository, "status", "--cloud", **aws)
    assert s3.client().get_object(Bucket="dvc", Key="latest/latest")["Body"].read() == before


def test_a_folder_is_a_remote_too(repository: Path, tmp_path: Path) -> None:
    cache = repository / ".dvc" / "cache"
    publish(Hash(version(repository)), str(cache))
    assert read_latest(str(cache)) == version(repository)
    assert [path.name for path in cache.iterdir() if path.is_file()] == ["latest"]


def test_no_latest_and_a_damaged_one_say_what_to_run(tmp_path: Path) -> None:
    line = exit_line(main, "--version", GIVEN, "--remote", tmp_path)
    assert line.startswith(f"FetchError: data: raw version {GIVEN} is not whole on {tmp_path}.")
    with pytest.raises(FetchError, match=rf"{tmp_path}/latest: is not there: .* Run `python -m components.publish"):
        read_latest(str(tmp_path))
    for content in ("{", "[]", '{"raw_version": "main"}'):
        (tmp_path / "latest").write_text(content)
        with pytest.raises(FetchError, match=r"names no raw version\. Run `python -m components\.publish"):
            read_latest(str(tmp_path))


def test_a_remote_that_cannot_be_reached_is_one_line(tmp_path: Path, aws: dict[str, str]) -> None:
    wrong = {**aws, "AWS_SECRET_ACCESS_KEY": "wrong"}
    result = run_step("publish", "--version", GIVEN, "--remote", "s3://dvc/latest", cwd=tmp_path, **wrong)
    assert_one_line(result, "s3://dvc/latest/latest: cannot be reached: ", "Check the credentials")


def test_a_form_that_a_later_task_would_refuse_is_refused_first() -> None:
    sections = form()
    sections["train"]["epochs"] = 0.0
    with pytest.raises(InputError, match=r"the parameters of the pipeline: train\.epochs: found 0"):
        tasks.check("latest", "s3://nobody/asks", "s3://nobody/asks", sections)
    sections = form()
    sections["cluster"]["nodes"] = 3.0
    with pytest.raises(InputError, match=r"global_batch_size: 8 is not a multiple of .* x 3 processes"):
        tasks.check("latest", "s3://nobody/asks", "s3://nobody/asks", sections)


def form() -> dict[str, dict[str, object]]:
    """The sections as a run's form has them."""
    shown = defaults_of(load_params(ROOT / "params.yaml"), NEEDS)
    pods = {"steps": shown["step_sizes"], "node_selector": {}, "tolerations": []}
    names = ("prepare", "train", "evaluate", "register", "promote", "tracking")
    return {**{name: shown[name] for name in names}, "cluster": shown["cluster"] | pods}
