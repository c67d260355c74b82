"""`pipeline.py submit map` and `schedule map` against a server that plays the API of Kubeflow Pipelines."""

import re

import pytest
import yaml

import pipeline
from base.patience import Patience
from components.kubeflow import watch
from tests.servers.kubeflow_server import KubeflowServer, frame, task

GIVEN = ["--pre", "s3://in/before", "--post", "s3://in/after", "--deliver-to", "s3://out/event", "--root", "s3://runs"]


def test_a_map_is_submitted_watched_and_scheduled(
    server: KubeflowServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its two shards is done before the other, and the third attempt at that is still the task's own."""
    monkeypatch.setattr(watch.wait, "__defaults__", (Patience(away=60, first_pause=0.02, longest_pause=0.02),))
    shards = [task("predict", "SUCCEEDED", number=1), task("predict", "RUNNING", number=2)]
    done = [shards[0], task("predict", "SUCCEEDED", number=2)]
    server.frames = [
        frame("RUNNING", task("plan", "SUCCEEDED"), task("for-loop-1", "RUNNING"), *shards),
        frame("RUNNING", task("plan", "SUCCEEDED"), *done, task("merge", "SUCCEEDED"), task("deliver", "RUNNING")),
        frame("SUCCEEDED", *done, task("merge", "SUCCEEDED"), task("deliver", "SUCCEEDED")),
    ]
    more = ["--shards", "2", "--tile", "512", "--mlflow-uri", "http://mlflow:5000", "--taken", "2018-10-01"]
    pipeline.main(["submit", "map", "--host", server.url, *GIVEN, *more, "--run-name", "palu", "--wait"])
    said = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capsys.readouterr().out.splitlines()]
    assert said[2:] == [
        "plan SUCCEEDED", "predict SUCCEEDED", "predict RUNNING", "run RUNNING",
        "deliver RUNNING", "merge SUCCEEDED", "predict SUCCEEDED", "deliver SUCCEEDED", "run SUCCEEDED",
    ]  # fmt: skip
    [pipeline_body] = server.bodies("POST", "/pipelines")
    assert pipeline_body["name"] == "dual-hrnet-map"
    [run] = server.bodies("POST", "/runs")
    sent = run["runtime_config"]["parameters"]
    assert sent == {
        "pre": ["s3://in/before"], "post": ["s3://in/after"], "deliver_to": "s3://out/event", "root": "s3://runs",
        "shards": 2, "windows": {"tile": 512}, "taken": "2018-10-01", "mlflow_uri": "http://mlflow:5000",
        "mlflow_ui": "", "s3_endpoint": "", "kubeflow_uri": server.url,
    }  # fmt: skip
    inputs = next(yaml.safe_load_all(server.uploads[0]))["root"]["inputDefinitions"]["parameters"]
    assert set(sent) <= set(inputs)
    assert {name for name, known in inputs.items() if not known.get("isOptional")} <= set(sent)

    pipeline.main(["schedule", "map", "--host", server.url, *GIVEN, *more, "--cron", "0 3 * * 1"])
    [made] = server.bodies("POST", "/recurringruns")
    assert made["runtime_config"]["parameters"] == sent and made["display_name"] == "dual-hrnet-map"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert len(server.uploads) == 1  # the same graph is one version
