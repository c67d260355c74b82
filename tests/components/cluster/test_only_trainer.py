"""`cluster.kind: auto` where a cluster has Kubeflow Trainer alone, or nothing: refused before data are prepared, and
warned of by whoever starts the run.
"""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config

import pipeline
from components.cluster.api import Api, JobPatience
from components.cluster.check import warn_of_cluster
from components.cluster.readiness.findings import look
from components.kubeflow import tasks
from components.kubeflow.sections import defaults_of
from components.kubeflow.steps import NEEDS
from components.params import load_params
from tests.commands import exit_line
from tests.components.cluster.workflows import WORKFLOWS
from tests.paths import ROOT
from tests.servers.kube_api import KubeApi, definition, of_any_content
from tests.servers.kubeflow_server import KubeflowServer
from tests.servers.trainer_operator import DEFINITIONS

ELASTIC = {"nodes": 4, "elastic_min_nodes": 2}
ELASTIC_LINE = "JobError: cluster.elastic_min_nodes: found 2: a TrainJob goes on with all of its nodes or none."
Check = Callable[..., str]


@pytest.fixture(scope="module")
def kube(kube_server: KubeApi) -> KubeApi:
    kube_server.only()
    return kube_server


def use(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    for module in (config, config.kube_config):  # what the library made of $KUBECONFIG when it was imported
        monkeypatch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))


@pytest.fixture
def check(kube: KubeApi, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The line with which the task `check` refuses a run whose section cluster has these values, in a pod without any
    right beyond those that everybody has.
    """
    use(monkeypatch, kube.kubeconfig("stranger"))
    monkeypatch.setenv("POD_NAMESPACE", kube.new_namespace())
    monkeypatch.setenv("DUAL_HRNET_PATIENCE", "0")

    def check(**cluster: Any) -> str:
        shown = defaults_of(load_params(ROOT / "params.yaml"), NEEDS)
        shown["train"].update(global_batch_size=24.0, device_batch_size=1.0)
        shown["cluster"].update(cluster)
        sections = {name: shown[name] for name in ("prepare", "train", "evaluate", "register", "promote", "tracking")}
        pods = {"steps": shown["step_sizes"], "node_selector": {}, "tolerations": []}

        def run(argv: Sequence[str]) -> None:
            with tasks.task("http://mlflow"):
                tasks.check(f"{5:032}", "nobody/asks", "nobody/asks", {**sections, "cluster": shown["cluster"] | pods})

        return exit_line(run)

    return check


def test_without_an_operator_the_first_task_says_so(check: Check) -> None:
    line = check()
    assert line.startswith("JobError: cluster.kind: auto: the cluster has no PyTorchJob (kubeflow.org/v1) or TrainJob")


def test_submit_warns_of_a_cluster_that_runs_pipelines_and_has_no_operator_and_starts_the_run(
    kube: KubeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, kube.kubeconfig("stranger"))
    monkeypatch.setattr(
        pipeline, "compile_graph", lambda graph, params, image, out: out.write_text("pipelineInfo: {name: g}")
    )
    server = KubeflowServer()
    server.start()
    places = ["--root", "s3://b/runs", "--data-remote", "s3://b/xbd", "--raw-version", f"{5:032}"]
    try:
        pipeline.main(["submit", "--host", server.url, *places])
        assert capsys.readouterr().err == ""  # it may be another cluster than the one of the run
        kube.install(of_any_content(**WORKFLOWS, kind="Workflow"))
        pipeline.main(["submit", "--host", server.url, *places])
        assert capsys.readouterr().err == (
            f"warning: the cluster of your kubeconfig, {kube.url}: cluster.kind: auto: the cluster has no PyTorchJob "
            "(kubeflow.org/v1) or TrainJob (trainer.kubeflow.org/v1alpha1). Install the operator, or name the other "
            "kind.\n"
        )
        assert len(server.bodies("POST", "/runs")) == 2
    finally:
        server.stop()


@pytest.mark.parametrize("kubeconfig", ["of a server that does not answer", "broken", "none"])
def test_submit_says_nothing_where_no_cluster_answers_at_once(
    kube: KubeApi,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kubeconfig: str,
) -> None:
    monkeypatch.setattr("components.cluster.check.SECONDS", 0.5)
    (tmp_path / "broken").write_text("clusters: [", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answers_never = kube.kubeconfig(url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        use(monkeypatch, answers_never if kubeconfig.startswith("of") else tmp_path / kubeconfig)
        before = time.monotonic()
        warn_of_cluster(load_params(ROOT / "params.yaml").cluster, "kubeflow")
    assert time.monotonic() - before < 10  # and not for a minute
    assert capfd.readouterr() == ("", "")


def test_what_the_only_operator_cannot_do_is_refused_by_the_first_task_and_before(
    kube: KubeApi, check: Check, tmp_path: Path
) -> None:
    kube.install(*map(definition, DEFINITIONS))
    assert check(**ELASTIC).startswith(ELASTIC_LINE)
    assert check(gang_scheduling=True).startswith(
        "JobError: cluster.gang_scheduling: found true, without cluster.queue"
    )
    missing = check(environment={"AWS_CA_BUNDLE": str(tmp_path / "ca.crt")})
    assert missing.startswith(
        f"JobError: cluster.environment.AWS_CA_BUNDLE: names {tmp_path}/ca.crt, which pods of this"
    )
    # kube-check asks the same, from a person's machine.
    api = Api("default", replace(JobPatience(), away=0), kube.kubeconfig())
    cluster = load_params(ROOT / "params.yaml").cluster
    refused = [each for each in look(api, cluster.model_copy(update=ELASTIC), None) if each.what.startswith("section")]
    assert [(each.what, each.holds) for each in refused] == [("section cluster as a trainjob", False)]
    assert f"JobError: {refused[0].found}".startswith(ELASTIC_LINE)
    assert not [each for each in look(api, cluster, None) if each.what.startswith("section")]
