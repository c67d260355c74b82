"""`pipeline.py submit` and `schedule` against a server that plays the API of Kubeflow Pipelines."""

import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from components.kubeflow.client import KubeflowError
from components.kubeflow.cron import with_seconds
from components.kubeflow.graphs import graph as graph_module
from components.kubeflow.graphs.graph import Graph
from components.params import Params
from tests.conftest import ROOT, environment, exit_line
from tests.servers.kubeflow_server import Asked, KubeflowServer
from tests.servers.ports import free_port

MD5 = "0123456789abcdef0123456789abcdef.dir"
PLACES = ("--root", "s3://bucket/runs", "--data-remote", "s3://bucket/xbd", "--raw-version", MD5)
NO_KUBEFLOW = "answers, but not as Kubeflow Pipelines does. Give as --host the address of Kubeflow Pipelines"


@pytest.fixture(scope="module")
def graphs() -> dict[str, bytes]:
    """What was compiled, by parameters and image."""
    return {}


@pytest.fixture
def compiled_once(graphs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each graph is compiled the first time only, which takes seconds."""

    def compile_graph(graph: Graph, params: Params, image: str, out: Path) -> None:
        key = f"{image} {params.model_dump_json()}"
        if key not in graphs:
            graph_module.compile_graph(graph, params, image, out)
            graphs[key] = out.read_bytes()
        out.write_bytes(graphs[key])

    monkeypatch.setattr(pipeline, "compile_graph", compile_graph)


def submit(server: KubeflowServer, *more: str, command: str = "submit") -> None:
    pipeline.main([command, "--host", server.url, *PLACES, *more])


def refused(server: KubeflowServer, *more: str, command: str = "submit") -> str:
    return exit_line(pipeline.main, command, "--host", server.url, *PLACES, *more)


def test_a_run_has_the_graph_and_the_arguments(
    server: KubeflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--image", "example.org/damage@sha256:1", "--recipe", str(ROOT / "recipes" / "paper.yaml"))
    submit(server, *more, "--run-name", "first", "--mlflow-uri", "http://mlflow:5000", "--auto-promote")
    out = capsys.readouterr().out
    pipeline.main(["compile", *more, "--out", str(tmp_path / "graph.yaml")])
    graph = (tmp_path / "graph.yaml").read_bytes()
    assert server.uploads == [graph]
    name = next(yaml.safe_load_all(graph))["pipelineInfo"]["name"]
    [body] = server.bodies("POST", "/pipelines")
    assert (body["name"], body["display_name"]) == (name, name)
    [made], [version] = server.kept["pipelines"], server.kept["pipeline_versions"]
    assert re.fullmatch(rf"paper-\S+-{hashlib.sha256(graph).hexdigest()[:16]}", version["display_name"])
    assert version["pipeline_id"] == made["pipeline_id"]
    [experiment] = server.kept["experiments"]
    assert experiment["display_name"] == yaml.safe_load((ROOT / "params.yaml").read_text())["tracking"]["experiment"]
    assert server.bodies("POST", "/runs") == [
        {
            "display_name": "first",
            "experiment_id": experiment["experiment_id"],
            "pipeline_version_reference": {
                "pipeline_id": made["pipeline_id"],
                "pipeline_version_id": version["pipeline_version_id"],
            },
            "runtime_config": {
                "parameters": {
                    "raw_version": MD5,
                    "data_remote": "s3://bucket/xbd",
                    "root": "s3://bucket/runs",
                    "mlflow_uri": "http://mlflow:5000",
                    "mlflow_ui": "",
                    "s3_endpoint": "",
                    "kubeflow_uri": server.url,
                    "auto_promote": True,
                }
            },
        }
    ]
    [run] = server.kept["runs"]
    assert out == f"run: {server.url}/#/runs/details/{run['run_id']}\nid: {run['run_id']}\n"


@pytest.mark.usefixtures("compiled_once")
def test_the_graph_takes_the_arguments_that_are_sent(server: KubeflowServer) -> None:
    submit(server)
    inputs = next(yaml.safe_load_all(server.uploads[0]))["root"]["inputDefinitions"]["parameters"]
    sent = server.kept["runs"][0]["runtime_config"]["parameters"]
    assert set(sent) <= set(inputs)
    assert {name for name, known in inputs.items() if not known.get("isOptional")} <= set(sent)


@pytest.mark.usefixtures("compiled_once")
def test_the_data_version_is_that_of_the_working_directory(
    server: KubeflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(yaml.safe_load((ROOT / "params.yaml").read_text())["data"]["root"])
    (tmp_path / root).parent.mkdir(parents=True)
    record = {"outs": [{"md5": f"{7:032}.dir", "hash": "md5", "path": root.name}]}
    (tmp_path / f"{root}.dvc").write_text(yaml.safe_dump(record), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    pipeline.main(["submit", "--host", server.url, *PLACES[:4]])
    assert server.kept["runs"][0]["runtime_config"]["parameters"]["raw_version"] == f"{7:032}.dir"


def test_the_same_graph_is_one_version_and_another_graph_is_another(server: KubeflowServer) -> None:
    submit(server, "--experiment", "one")
    submit(server, "--experiment", "one", "--auto-promote")
    submit(server, "--experiment", "two", "--image", "other")
    counts = {kind: len(rows) for kind, rows in server.kept.items()}
    assert counts == {"pipelines": 1, "pipeline_versions": 2, "experiments": 2, "runs": 3, "recurringRuns": 0}
    used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in server.kept["runs"]]
    assert used[0] == used[1] != used[2]
    names = [run["display_name"] for run in server.kept["runs"]]
    assert all(re.fullmatch(r"dual-hrnet \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", name) for name in names), names


@pytest.mark.usefixtures("compiled_once")
def test_what_a_neighbour_makes_at_the_same_time_is_used(
    server: KubeflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = server.answer

    def hurried(asked: Asked) -> tuple[int, dict[str, Any] | str]:
        if asked.method == "POST" and not asked.path.endswith("/runs"):
            alone(asked)
        return alone(asked)

    monkeypatch.setattr(server, "answer", hurried)
    submit(server)
    assert [len(rows) for rows in server.kept.values()] == [1, 1, 1, 1, 0]


@pytest.mark.usefixtures("compiled_once")
def test_users_have_namespaces(server: KubeflowServer) -> None:
    server.multi_user = True
    assert refused(server).endswith("has several users. Give --namespace, the one of your profile.")
    for _ in range(2):
        submit(server, "--namespace", "team")
    assert [row["namespace"] for kind in ("pipelines", "experiments") for row in server.kept[kind]] == ["team"] * 2
    listed = [asked for asked in server.asked if asked.path.endswith(("/pipelines", "/experiments"))]
    assert {asked.query["namespace"] for asked in listed if asked.method == "GET"} == {"team"}


@pytest.mark.usefixtures("compiled_once")
def test_the_token_is_sent_and_never_said(
    server: KubeflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.token = "s3cret"
    submit(server, "--token", "s3cret")
    line = refused(server, "--token", "wr0ng")
    assert "Request header error: there is no user (HTTP 401). Give --token, or renew it." in line
    assert "(HTTP 401)" in refused(server)
    broken = refused(server, "--token", "s3cret\nX-Other: 1")
    assert broken.startswith("KubeflowError: --token: is no token")
    said = capsys.readouterr()
    assert not re.search("s3cret|wr0ng", said.out + said.err + line + broken)
    file = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    assert f"{file}: is no file with a token. Correct $KF_PIPELINES_SA_TOKEN_PATH" in refused(server)
    file.write_text("s3cret\n")
    submit(server)
    assert len(server.kept["runs"]) == 2


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"code": 16, "message": "no user"}, "no user (HTTP 401). Give --token, or renew it."),
        (403, {"message": "User a\nmay not list"}, "User a may not list (HTTP 403). Ask for a role in this namespace"),
        (404, "<html>404 page not found</html>", "Not Found (HTTP 404). Give as --host the address of Kubeflow"),
        (500, {"error_message": "the database is away."}, "the database is away (HTTP 500). Is the API server well?"),
        (503, b"\xff\xfe", "(HTTP 503). Is the API server well?"),
        (200, "<html>Welcome</html>", NO_KUBEFLOW),
        (200, ["healthy"], NO_KUBEFLOW),
        (200, {"apiServerReady": False}, "the UI answers, and the API server behind it does not"),
        (302, "", "leads to https://login.example.org/auth (HTTP 302). Log in: give --token, or --cookie of a browser"),
    ],
)
def test_an_answer_that_is_none_is_one_line(server: KubeflowServer, status: int, body: object, expected: str) -> None:
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    server.refusal = (status, content)
    server.headers = {"Location": "https://login.example.org/auth?state=private"} if status == 302 else {}
    line = refused(server)
    assert line.startswith(f"KubeflowError: {server.url}: ")
    assert expected in line
    assert "private" not in line


def test_a_host_that_is_not_there_is_one_line(server: KubeflowServer) -> None:
    hosts = {
        f"http://127.0.0.1:{free_port()}": "Connection refused. Is the address right?",
        "http://nobody.invalid": "Failed to resolve 'nobody.invalid'",
        server.url.replace("http:", "https:"): "cannot be reached: SSLError",
        "localhost:8080": "is no address, expected http://NAME or https://NAME",
    }
    for host, expected in hosts.items():
        assert expected in exit_line(pipeline.main, "submit", "--host", host, *PLACES)


def test_a_host_that_never_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.kubeflow.client.TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        line = exit_line(pipeline.main, "submit", "--host", host, *PLACES)
    assert line.startswith(f"KubeflowError: {host}: cannot be reached: ")
    assert line.endswith("Read timed out. (read timeout=0.2). Is the address right?")


def test_what_lies_in_the_home_of_the_user_does_not_matter(server: KubeflowServer, tmp_path: Path) -> None:
    files = {".config/kfp/context.json": '{"namespace": "other", "client_auth', ".kube/config": "no YAML: ["}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    server.multi_user = True
    command = [sys.executable, "pipeline.py", "submit", "--host", server.url, *PLACES, "--namespace", "kubeflow"]
    google = {"KF_PIPELINES_IAP_OAUTH2_CLIENT_ID": "a", "KF_PIPELINES_ENDPOINT": "http://nobody.invalid"}
    env = environment(HOME=str(tmp_path), **google)
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 2
    assert {asked.authorization for asked in server.asked} == {None}
    assert [row["namespace"] for kind in ("pipelines", "experiments") for row in server.kept[kind]] == ["kubeflow"] * 2
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: content for name, content in found.items() if name.startswith((".config", ".kube"))} == files


@pytest.mark.parametrize("option", ["--root", "--data-remote"])
def test_pods_see_no_paths(server: KubeflowServer, option: str) -> None:
    line = refused(server, option, "output/pipeline")
    assert line == (
        f"KubeflowError: {option} output/pipeline: is no place that pods see, expected s3://BUCKET/PREFIX. Give one."
    )
    given = [word for index, word in enumerate(PLACES) if option not in (word, PLACES[index - 1])]
    line = exit_line(pipeline.main, "submit", "--host", server.url, *given)
    assert line == f"KubeflowError: {option}: is missing. Give s3://BUCKET/PREFIX."
    assert server.asked == []


def test_a_data_version_that_is_none_is_one_line(server: KubeflowServer) -> None:
    assert "--raw-version main: is not an md5 of DVC" in refused(server, "--raw-version", "main")
    assert server.asked == []


@pytest.mark.usefixtures("compiled_once")
def test_a_schedule_takes_the_place_of_the_one_of_its_name(
    server: KubeflowServer, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(server, "--cron", "0 3 * * 1", command="schedule")
    [first] = server.kept["recurringRuns"]
    sent = server.bodies("POST", "/recurringruns")[0]
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (sent["mode"], sent["max_concurrency"], sent["no_catchup"]) == ("ENABLE", 1, True)
    assert sent["display_name"] == "dual-hrnet"
    submit(server, "--run-name", "for comparison")
    alike = ("experiment_id", "pipeline_version_reference", "runtime_config")
    assert {key: sent[key] for key in alike} == {key: server.kept["runs"][0][key] for key in alike}
    submit(server, "--cron", "30 4 * * *", "--name", "other", command="schedule")
    capsys.readouterr()
    submit(server, "--cron", "0 5 * * *", command="schedule")
    other, second = server.kept["recurringRuns"]
    assert (other["display_name"], second["display_name"]) == ("other", "dual-hrnet")
    assert second["recurring_run_id"] != first["recurring_run_id"]
    identity = second["recurring_run_id"]
    assert capsys.readouterr().out == f"schedule: {server.url}/#/recurringrun/details/{identity}\nid: {identity}\n"


@pytest.mark.parametrize("cron", ["*/15 0-6,22 1,15 * MON-FRI", "0 3 * jan 0", "5/10 * * 12 6"])
def test_the_usual_cron_gets_seconds(cron: str) -> None:
    assert with_seconds(cron) == f"0 {cron}"


def wrong_cron(field: str, found: str, expected: str) -> Callable[[str], str]:
    return lambda cron: f"--cron {cron!r}: {field} is {found!r}, expected *, {expected}, A-B, A,B or */N. Correct it."


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("60 3 * * 1", wrong_cron("minute", "60", "0-59")),
        ("0 24 * * 1", wrong_cron("hour", "24", "0-23")),
        ("0 3 0 * 1", wrong_cron("day of the month", "0", "1-31")),
        ("0 3 * 13 1", wrong_cron("month", "13", "1-12 or JAN-DEC")),
        ("0 3 * * 7", wrong_cron("day of the week", "7", "0-6 or SUN-SAT")),
        ("0 9-3 * * 1", wrong_cron("hour", "9-3", "0-23")),
        ("*/0 3 * * 1", wrong_cron("minute", "*/0", "0-59")),
        ("0 3 * * 1,", wrong_cron("day of the week", "1,", "0-6 or SUN-SAT")),
        ("0 noon * * 1", wrong_cron("hour", "noon", "0-23")),
    ],
)
def test_a_cron_that_is_none_is_told_by_its_field(cron: str, expected: Callable[[str], str]) -> None:
    with pytest.raises(KubeflowError) as caught:
        with_seconds(cron)
    assert str(caught.value) == expected(cron)


@pytest.mark.parametrize(("cron", "number"), [("0 0 3 * * 1", 6), ("@daily", 1), ("", 0)])
def test_a_cron_of_other_fields_is_told_what_is_expected(server: KubeflowServer, cron: str, number: int) -> None:
    line = refused(server, "--cron", cron, command="schedule")
    assert f"has {number} fields, expected the 5 of minute, hour, day of the month, month, day of the week." in line
    assert server.asked == []


@pytest.mark.parametrize("command", ["submit", "schedule"])
def test_help_answers_without_the_sdk(command: str) -> None:
    code = f"""
import sys, pipeline
try:
    pipeline.main([{command!r}, "--help"])
finally:
    print(*{{"kfp", "kfp_server_api", "kubernetes", "torch", "mlflow", "dvc"}} & set(sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "\n")
    assert f"usage: python pipeline.py {command}" in result.stdout
