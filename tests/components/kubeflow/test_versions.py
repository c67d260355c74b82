"""Which version of the graph, and which of the data, a run and a schedule take."""

import re

import pytest

import pipeline
from tests.conftest import ROOT
from tests.servers.kubeflow_server import KubeflowServer

MD5 = "0123456789abcdef0123456789abcdef.dir"
PLACES = ("--root", "s3://bucket/runs", "--data-remote", "s3://bucket/xbd")


def names(server: KubeflowServer) -> list[str]:
    return [version["display_name"] for version in server.kept["pipeline_versions"]]


def test_a_version_is_called_by_recipe_and_commit_and_known_by_its_content(
    server: KubeflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ["submit", "--host", server.url, *PLACES, "--raw-version", MD5]
    commits = iter([{"git_commit": "a" * 40, "git_dirty": "false"}, {"git_commit": "b" * 40, "git_dirty": "true"}, {}])
    monkeypatch.setattr(pipeline, "source_tags", lambda: next(commits))
    pipeline.main(submit)
    [first] = names(server)
    assert re.fullmatch("usual-a{12}-[0-9a-f]{16}", first)
    pipeline.main(submit)  # of another commit, which changed nothing of the graph
    assert names(server) == [first]
    pipeline.main([*submit, "--recipe", str(ROOT / "recipes" / "paper.yaml")])  # where no commit is known
    assert re.fullmatch("paper-[0-9a-f]{16}", names(server)[1])
    used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in server.kept["runs"]]
    assert used[0] == used[1] != used[2]


def test_code_that_no_commit_has_is_said_in_the_name(server: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "source_tags", lambda: {"git_commit": "c" * 40, "git_dirty": "true"})
    pipeline.main(["submit", "--host", server.url, *PLACES, "--raw-version", MD5])
    assert re.fullmatch("usual-c{12}-dirty-[0-9a-f]{16}", names(server)[0])


def test_a_schedule_takes_the_latest_data_of_each_day_unless_it_is_told_which(server: KubeflowServer) -> None:
    schedule = ["schedule", "--host", server.url, *PLACES, "--cron", "0 3 * * 1"]
    pipeline.main(schedule)
    pipeline.main([*schedule, "--raw-version", MD5, "--name", "fixed"])
    pipeline.main(["submit", "--host", server.url, *PLACES, "--raw-version", "latest"])
    made = [*server.kept["recurringRuns"], *server.kept["runs"]]
    given = [one["runtime_config"]["parameters"]["raw_version"] for one in made]
    assert given == ["latest", MD5, "latest"]


def test_the_pipeline_says_in_the_ui_what_its_fields_are(server: KubeflowServer) -> None:
    pipeline.main(["submit", "--host", server.url, *PLACES, "--raw-version", MD5])
    [body] = server.bodies("POST", "/pipelines")
    assert "- step_sizes: cores and memory" in body["description"]
