"""What a launcher takes from its own pod: who waits for the job, and the steps' credentials, never as plain text."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from components.cluster import certificates
from components.cluster.api import Api
from components.cluster.job import JobError, Owner
from components.cluster.pytorchjob.manifest import manifest
from components.cluster.surroundings import Surroundings, read_surroundings
from components.kubeflow.training import ServersError, use_servers
from tests.servers.training_operator import QUICK, Operator, job_in

Read = Callable[..., Surroundings]


@pytest.fixture
def read(operator: Operator) -> Read:
    """What is read of a pod with these fields of its main container."""

    def read(
        owners: list[dict[str, Any]] | None = None, volumes: list[dict[str, Any]] | None = None, **container: Any
    ) -> Surroundings:
        wait = {"name": "wait", "image": "i", "env": [{"name": "AWS_REGION", "value": "of-argo"}]}
        content = {
            "metadata": {"name": "step", "ownerReferences": owners or []},
            "spec": {"containers": [wait, {"name": "main", "image": "i", **container}], "volumes": volumes or []},
        }
        operator.core.create_namespaced_pod(operator.namespace, content)
        return read_surroundings(Api(operator.namespace, QUICK, operator.kube.kubeconfig()), "step")

    return read


def secret(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


def test_a_step_of_a_pipeline_owns_by_its_workflow(read: Read) -> None:
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-a", "uid": "0a-1b"}
    assert read([{**workflow, "controller": True, "blockOwnerDeletion": True}]).owner == Owner(
        "argoproj.io/v1alpha1", "Workflow", "run-a", "0a-1b"
    )


def test_any_other_pod_owns_by_itself(operator: Operator, read: Read) -> None:
    found = read([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "0a"}]).owner
    pod = operator.core.read_namespaced_pod("step", operator.namespace)
    assert found == Owner("v1", "Pod", "step", pod.metadata.uid)


def test_what_a_platform_injected_is_given_on_and_nothing_else(read: Read) -> None:
    found = read(
        env=[
            {"name": "MLFLOW_WORKSPACE", "value": "team-a"},
            {"name": "MLFLOW_RUN_ID", "value": "0123"},
            {"name": "AWS_DEFAULT_REGION", "value": "eu-north-1"},
            {"name": "MLFLOW_TRACKING_TOKEN", "valueFrom": secret("platform", "token")},
            # Which every job has anyway.
            {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": secret("dual-hrnet-s3", "AWS_SECRET_ACCESS_KEY")},
            # The launcher's own, and not the training's.
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/steps"},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/token"},
            {"name": "ARGO_TEMPLATE", "value": "{}"},
        ],
        envFrom=[{"secretRef": {"name": "dual-hrnet-mlflow"}}, {"configMapRef": {"name": "servers"}}],
    )
    assert found.environment == {
        "MLFLOW_WORKSPACE": "team-a",
        "MLFLOW_RUN_ID": "0123",
        "AWS_DEFAULT_REGION": "eu-north-1",
    }
    assert found.references == [{"name": "MLFLOW_TRACKING_TOKEN", "valueFrom": secret("platform", "token")}]
    assert found.env_from == [{"configMapRef": {"name": "servers"}}]


def test_a_file_of_the_image_is_named_to_the_training_and_one_of_a_volume_is_warned_of(
    read: Read, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a Kubeflow Pipelines with certificates of its own has it, and as ours has."""
    found = read(
        env=[
            {"name": "AWS_CA_BUNDLE", "value": "/kfp/certs/ca.crt"},
            {"name": "REQUESTS_CA_BUNDLE", "value": "/opt/ca.pem"},
            {"name": "MLFLOW_TRACKING_SERVER_CERT_PATH", "value": certificates.FILE},
            {"name": "SSL_CERT_FILE", "value": "/etc/ssl/certs/ca-certificates.crt"},
        ],
        volumeMounts=[
            {"name": "kfp", "mountPath": "/kfp/certs"}, {"name": "ours", "mountPath": certificates.FOLDER},
            {"name": "kfp", "mountPath": "/opt/ca.pem", "subPath": "ca.pem"},
        ],
        volumes=[{"name": "kfp", "configMap": {"name": "kfp-ca"}}, {"name": "ours", "configMap": {"name": "ca"}}],
    )  # fmt: skip
    assert found.environment == {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
    assert capfd.readouterr().err == "".join(
        f"warning: {name} lies in the config map kfp-ca of this pod, which the training's pods do not have. Put the "
        "certificates as ca.crt into a config map, and name that in cluster.certificates.\n"
        for name in ("AWS_CA_BUNDLE: /kfp/certs/ca.crt", "REQUESTS_CA_BUNDLE: /opt/ca.pem")
    )


def test_a_secret_in_plain_text_reaches_no_manifest_and_no_log(
    operator: Operator, read: Read, capfd: pytest.CaptureFixture[str]
) -> None:
    found = read(
        env=[
            {"name": "AWS_SECRET_ACCESS_KEY", "value": "hush"},
            {"name": "MLFLOW_TRACKING_URI", "value": "https://me:hush@mlflow"},
        ]
    )
    job = job_in(operator, environment=found.environment, references=found.references, env_from=found.env_from)
    assert "hush" not in json.dumps(manifest(job))
    said = capfd.readouterr().err
    assert "warning: AWS_SECRET_ACCESS_KEY is plain text in this pod, and is not given to the training." in said
    assert "warning: MLFLOW_TRACKING_URI is plain text in this pod" in said
    assert "hush" not in said


def test_a_job_has_what_its_launcher_has_and_its_own_values_win(operator: Operator) -> None:
    references = [{"name": "MLFLOW_TRACKING_TOKEN", "valueFrom": secret("platform", "token")}]
    references += [{"name": "NCCL_DEBUG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]
    settings = {"environment": {"NCCL_DEBUG": "INFO"}, "secrets": ["mine"]}
    job = job_in(operator, references=references, env_from=[{"configMapRef": {"name": "servers"}}], cluster=settings)
    spec = manifest(job)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    by_name = {entry["name"]: entry for entry in spec["env"]}
    assert len(by_name) == len(spec["env"])
    assert by_name["MLFLOW_TRACKING_TOKEN"] == references[0]
    assert by_name["NCCL_DEBUG"] == {"name": "NCCL_DEBUG", "value": "INFO"}
    assert spec["envFrom"][2:] == [{"configMapRef": {"name": "servers"}}, {"secretRef": {"name": "mine"}}]
    operator.create(job)  # the API server takes it


def test_a_run_of_another_mlflow_is_no_other_content(operator: Operator) -> None:
    first, second = (job_in(operator, environment={"MLFLOW_RUN_ID": run}) for run in ("a", "b"))
    assert first.content() == second.content() != job_in(operator, environment={"MLFLOW_WORKSPACE": "a"}).content()


def test_a_pod_that_is_not_there_is_named(operator: Operator) -> None:
    with pytest.raises(JobError, match=r"/none: the launcher's own pod is not there. Is POD_NAMESPACE right\?"):
        read_surroundings(Api(operator.namespace, QUICK, operator.kube.kubeconfig()), "none")


@pytest.mark.parametrize(
    ("platforms", "given", "fits"),
    [
        ("http://platform", "", True),
        ("http://platform", "http://platform", True),
        ("http://platform", "http://mine", False),
        (None, "http://mine", False),
    ],
)
def test_a_platforms_mlflow_run_is_used_with_its_own_server_only(
    monkeypatch: pytest.MonkeyPatch, platforms: str | None, given: str, fits: bool
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if platforms is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", platforms)
    if fits:
        use_servers(given, "")
    else:
        with pytest.raises(ServersError, match="mlflow_uri: found http://mine, but MLFLOW_RUN_ID 0123 is a run of "):
            use_servers(given, "")
    monkeypatch.delenv("MLFLOW_RUN_ID")
    use_servers(given, "")
