"""The launcher of a PyTorchJob against a real Kubernetes API server; the test plays the operator."""

import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from components.cluster.api import Api
from components.cluster.job import Finished, JobError, Owner
from components.cluster.launcher import _delete_jobs
from components.cluster.pytorchjob.manifest import manifest
from tests.commands import assert_one_line, environment, run_step
from tests.paths import ROOT
from tests.servers.kube_api import KubeApi
from tests.servers.training_operator import NOW, QUICK, Operator, ended, is_deleted, job_in, launch, report_when_there

# All that a launcher needs.
RULES = [
    {
        "apiGroups": ["kubeflow.org"],
        "resources": ["pytorchjobs"],
        "verbs": ["create", "delete", "get", "list", "patch", "watch"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]


def test_a_job_that_succeeds_is_the_result(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    uids = []

    def play() -> None:
        uids.append(operator.wait("train-1")["metadata"]["uid"])
        for conditions in (["Created"], ["Created", "Running"], ["Created", "Running", "Succeeded"]):
            operator.report("train-1", *conditions)

    finished = launch(job_in(operator), operator, play)
    created = operator.get("train-1")["metadata"]["creationTimestamp"]
    assert finished == Finished("train-1", operator.namespace, uids[0], created, NOW)
    assert f"{operator.namespace}/train-1: created" in capfd.readouterr().err


def test_the_server_keeps_every_field_of_the_manifest(operator: Operator) -> None:
    """The schema of the operator's version drops unknown fields silently."""
    job = job_in(operator, nodes=3, cluster={"elastic_min_nodes": 2, "gang_scheduling": True, "secrets": ["s3"]})
    job = replace(job, owner=Owner("v1", "Pod", "launcher", "0a-1b"))
    launch(job, operator, report_when_there(operator, "Succeeded"))
    kept, sent = operator.get("train-1"), manifest(job)
    assert kept["spec"].pop("runPolicy") == sent["spec"].pop("runPolicy") | {"suspend": False}
    assert kept["spec"] == sent["spec"]
    assert {key: kept["metadata"][key] for key in sent["metadata"]} == sent["metadata"]


def test_the_first_pod_that_failed_is_named(operator: Operator) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", "master", 0, **ended(1, "2026-01-02T03:04:09Z"))
        operator.start_pod("train-1", "worker", 0, **ended(0, "2026-01-02T03:04:01Z"))
        operator.start_pod("train-1", "worker", 1, **ended(137, "2026-01-02T03:04:08Z", "OOMKilled"))
        operator.report("train-1", "Created", "Running", "Failed")

    with pytest.raises(JobError) as caught:
        launch(job_in(operator, nodes=3), operator, play)
    expected = f"{operator.namespace}/train-1 failed: pod train-1-worker-1 ended with exit code 137 (OOMKilled); "
    assert str(caught.value).startswith(expected + "the logs of train-1-worker-1 cannot be read: ")


def test_a_failure_without_a_pod_has_the_operators_words(operator: Operator) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.report("train-1", "Created", "Failed", message="Job was active longer than specified deadline")

    with pytest.raises(JobError) as caught:
        launch(job_in(operator), operator, play)
    assert str(caught.value) == f"{operator.namespace}/train-1 failed: Job was active longer than specified deadline"


def test_a_job_that_hangs_is_deleted_after_its_time(operator: Operator) -> None:
    with pytest.raises(JobError, match="has not ended 1 s after it was launched, and was deleted"):
        launch(
            job_in(operator, cluster={"deadline_seconds": 1}),
            operator,
            report_when_there(operator, "Created", "Running"),
        )
    assert is_deleted(operator.get("train-1"))


@pytest.mark.parametrize("how", ["Foreground", "Background"])
def test_a_job_that_others_delete_is_an_error(operator: Operator, how: str) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.delete("train-1", how)

    with pytest.raises(JobError, match=f"{operator.namespace}/train-1 was deleted while it ran"):
        launch(job_in(operator), operator, play)


def test_a_job_that_others_delete_and_create_again_is_an_error(operator: Operator) -> None:
    """Its successor of the same name is not taken for it."""

    def play() -> None:
        job = operator.wait("train-1")
        operator.delete("train-1", "Background")
        fresh = {key: job["metadata"][key] for key in ("name", "annotations")}
        operator.jobs.create_namespaced_custom_object(**operator.place, body=job | {"metadata": fresh})
        operator.report("train-1", "Succeeded")

    with pytest.raises(JobError, match="was deleted while it ran"):
        launch(job_in(operator), operator, play)


def test_the_job_of_another_run_is_left_alone(operator: Operator) -> None:
    launch(job_in(operator), operator, report_when_there(operator, "Running", "Succeeded"))
    before = operator.get("train-1")
    with pytest.raises(JobError) as caught:
        launch(job_in(operator, arguments=["--out", "s3://b/other"]), operator, lambda: None)
    assert str(caught.value) == (
        f"{operator.namespace}/train-1 is the job of another run. Delete it, or choose another name."
    )
    assert operator.get("train-1") == before


def test_a_job_of_this_run_that_succeeded_is_the_result(operator: Operator) -> None:
    first = launch(job_in(operator), operator, report_when_there(operator, "Succeeded"))
    assert launch(job_in(operator), operator, lambda: None) == first


@pytest.mark.parametrize(("end", "labels"), [("Failed", {}), ("Succeeded", {"run": "b"})])
def test_an_ended_job_is_replaced_when_it_failed_or_was_another_runs(
    operator: Operator, end: str, labels: dict[str, str]
) -> None:
    with suppress(JobError):
        launch(job_in(operator), operator, report_when_there(operator, end))
    old = operator.get("train-1")["metadata"]["uid"]

    def play() -> None:
        operator.wait("train-1", is_deleted)
        operator.collect("train-1")
        operator.wait("train-1", lambda job: job["metadata"]["uid"] != old)
        operator.report("train-1", "Succeeded")

    assert launch(job_in(operator, labels=labels), operator, play).uid != old


def test_a_job_that_does_not_go_is_an_error(operator: Operator) -> None:
    with pytest.raises(JobError):
        launch(job_in(operator), operator, report_when_there(operator, "Failed"))
    with pytest.raises(JobError, match="is being deleted, and is not gone yet"):
        launch(job_in(operator), operator, lambda: None, replace(QUICK, gone=0.2))


def test_a_launcher_that_takes_over_owns_the_job(operator: Operator) -> None:
    """Else the job would be deleted with the pod of the launcher before, or with its run."""
    first = job_in(operator, owner=Owner("v1", "Pod", "launcher-1", "uid-1"), labels={"run": "a"})
    operator.jobs.create_namespaced_custom_object(**operator.place, body=manifest(first))

    def play() -> None:
        operator.wait("train-1", lambda job: job["metadata"]["labels"]["run"] == "b")
        operator.report("train-1", "Succeeded")

    launch(replace(first, owner=Owner("v1", "Pod", "launcher-2", "uid-2"), labels={"run": "b"}), operator, play)
    owners = operator.get("train-1")["metadata"]["ownerReferences"]
    assert owners == [{"apiVersion": "v1", "kind": "Pod", "name": "launcher-2", "uid": "uid-2"}]


def test_jobs_of_a_run_that_go_on_are_deleted(operator: Operator) -> None:
    for name, run_of_it in (("ended", "a"), ("going-on", "a"), ("other", "b")):
        job = job_in(operator, name=name, labels={"run": run_of_it})
        operator.jobs.create_namespaced_custom_object(**operator.place, body=manifest(job))
    operator.report("ended", "Succeeded")
    operator.report("going-on", "Running")
    _delete_jobs(Api(operator.namespace, QUICK, operator.kube.kubeconfig()), {"run": "a"})
    assert [name for name in operator.names() if is_deleted(operator.get(name))] == ["going-on"]


def test_a_role_with_these_verbs_is_enough(kube: KubeApi, operator: Operator) -> None:
    kube.bind("launcher", operator.namespace, RULES)
    first = job_in(operator, owner=Owner("v1", "Pod", "launcher-1", "uid-1"))
    with pytest.raises(JobError):
        launch(first, operator, report_when_there(operator, "Failed"), user="launcher")

    def play() -> None:
        old = operator.wait("train-1", is_deleted)["metadata"]["uid"]
        operator.collect("train-1")
        operator.wait("train-1", lambda job: job["metadata"]["uid"] != old)
        operator.report("train-1", "Succeeded")

    launch(first, operator, play, user="launcher")
    launch(replace(first, owner=Owner("v1", "Pod", "launcher-2", "uid-2")), operator, lambda: None, user="launcher")


@pytest.mark.parametrize("verb", ["create", "list", "watch"])
def test_a_verb_that_the_role_lacks_is_named(kube: KubeApi, operator: Operator, verb: str) -> None:
    verbs = [other for other in RULES[0]["verbs"] if other != verb]
    kube.bind("stranger", operator.namespace, [RULES[0] | {"verbs": verbs}, *RULES[1:]])
    with pytest.raises(JobError) as caught:
        launch(job_in(operator), operator, lambda: None, user="stranger")
    words = f'User "stranger" cannot {verb} resource "pytorchjobs" in API group "kubeflow.org"'
    assert words in str(caught.value)
    assert str(caught.value).endswith("(HTTP 403). Give the launcher's service account a role with this verb.")


def command(operator: Operator, **changes: str) -> list[str]:
    options = {"--params": ROOT / "params.yaml", "--name": "train-1", "--image": "i", "--data": "s3://b/d"}
    options |= {"--out": "s3://b/o", "--namespace": operator.namespace, **changes}
    return [str(word) for pair in options.items() for word in pair]


def start(operator: Operator) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "components.pytorchjob", *command(operator)],
        env=environment(KUBECONFIG=str(operator.kube.kubeconfig())),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_launcher_that_was_killed_goes_on_waiting(operator: Operator) -> None:
    first = start(operator)
    uid = operator.wait("train-1")["metadata"]["uid"]
    first.kill()
    first.communicate(timeout=60)
    second = start(operator)
    assert second.stderr is not None
    assert second.stderr.readline() == f"{operator.namespace}/train-1: is there already, and is waited for\n"
    operator.report("train-1", "Created", "Running", "Succeeded")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out.startswith(f"{operator.namespace}/train-1 succeeded: ")
    assert operator.names() == ["train-1"]
    assert operator.get("train-1")["metadata"]["uid"] == uid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_asked_to_stop_deletes_the_job(operator: Operator, number: signal.Signals) -> None:
    process = start(operator)
    operator.wait("train-1")
    operator.report("train-1", "Created", "Running")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert is_deleted(operator.get("train-1"))
    assert f"{number.name}: the training job was deleted. Run the same command to go on." in err
    assert "Traceback" not in err


def test_a_failed_job_ends_the_command_with_its_reason(operator: Operator) -> None:
    process = start(operator)
    operator.wait("train-1")
    operator.report("train-1", "Failed", message="out of luck")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == f"JobError: {operator.namespace}/train-1 failed: out of luck"


def test_a_missing_namespace_is_one_line(operator: Operator, tmp_path: Path) -> None:
    words = command(operator, **{"--namespace": "nowhere"})
    result = run_step("pytorchjob", *words, cwd=tmp_path, KUBECONFIG=str(operator.kube.kubeconfig()))
    assert_one_line(result, "JobError: Kubernetes at https://127.0.0.1:", 'namespaces "nowhere" not found (HTTP 404)')
