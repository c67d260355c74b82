"""The launcher of a TrainJob against a real Kubernetes API server, on which Trainer and JobSet do again what they did
in a recording.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.cluster import owners
from components.cluster.api import Api
from components.cluster.job import Finished, JobError, Owner
from components.cluster.trainjob.backend import TrainJobs
from tests.commands import environment
from tests.components.cluster.test_pytorchjob_launch import RULES as SHARED_RULES
from tests.paths import ROOT
from tests.servers import training_operator
from tests.servers.kube_api import KubeApi, eventually
from tests.servers.kube_proxy import KubeProxy, lines, refuse
from tests.servers.trainer_operator import RULES, TrainerOperator, recording
from tests.servers.training_operator import QUICK, job_in

BACKEND = TrainJobs()
launch = partial(training_operator.launch, backend=BACKEND)


def replay(trainer: TrainerOperator, scenario: str, **how: Any) -> Callable[[], None]:
    """Does again what was recorded, as soon as there is a job."""

    def play() -> None:
        trainer.wait("train-1")
        trainer.replay("train-1", scenario, **how)

    return play


def test_a_job_that_succeeds_is_the_result(trainer: TrainerOperator, capfd: pytest.CaptureFixture[str]) -> None:
    finished = launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-ok"))
    metadata = trainer.get("train-1")["metadata"]
    end = recording("v2-ok")[-1]["trainjob"]["status"]["conditions"][0]["lastTransitionTime"]
    assert finished == Finished("train-1", trainer.namespace, metadata["uid"], metadata["creationTimestamp"], end)
    assert f"{trainer.namespace}/train-1: created" in capfd.readouterr().err


def test_rank_0_ends_the_job_well_while_another_pod_still_runs(trainer: TrainerOperator) -> None:
    launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-success-policy-rank0"))


def test_the_runtime_belongs_to_the_job_and_goes_with_it(trainer: TrainerOperator) -> None:
    """Not to the job's owner, which may be gone before: without a runtime Trainer refuses every change of the job."""
    owner = Owner("argoproj.io/v1alpha1", "Workflow", "run-1", "uid-1")
    launch(job_in(trainer, owner=owner), trainer, replay(trainer, "v2-ok-numproc"))
    trainjob, runtime = trainer.get("train-1"), trainer.get("train-1", "trainingruntimes")
    assert trainjob["metadata"]["ownerReferences"] == [owner.reference()]
    (reference,) = runtime["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("TrainJob", trainjob["metadata"]["uid"])


# Each recorded job that ended: what the launcher says of it; empty for one that succeeded.
OUTCOMES = {
    "kueue-trainjob-evicted": "",
    "kueue-trainjob-failing": "pod train-1-node-0-0-mwjhs ended with exit code 1",
    "kueue-trainjob-first": "",
    "kueue-trainjob-second-waits": "",
    "v2-deadline": "DeadlineExceeded: TrainJob exceeded its active deadline",
    "v2-deadline-again": "DeadlineExceeded: TrainJob exceeded its active deadline",
    "v2-deadline-third": "DeadlineExceeded: TrainJob exceeded its active deadline",
    "v2-exit1-exitcodes": "pod train-1-node-0-0-zr65s ended with exit code 1",
    "v2-exit1-restarts2": "pod train-1-node-0-0-",
    "v2-exit137-exitcodes": "pod train-1-node-0-0-564tb ended with exit code 137",
    "v2-exit143-worker-exitcodes": "pod train-1-node-0-1-",
    "v2-ok-cluster-runtime": "",
    "v2-ok-no-trainer": "",
    "v2-ok-numproc-from-cpu": "",
    "v2-ok-patches": "",
    "v2-ok-plain-policy": "",
    "v2-ok-trainer-empty": "",
    "v2-oom-exitcodes": "pod train-1-node-0-0-",
    "v2-suspend": "",
    "v2-ttl": "",
    "v2-worker-fails-after-rank0": "pod train-1-node-0-1-bx6bx ended with exit code 1",
    "v2-worker-lags": "",
}


@pytest.mark.endurance
@pytest.mark.parametrize("scenario", OUTCOMES)
def test_the_outcome_is_the_recorded_one(trainer: TrainerOperator, scenario: str) -> None:
    job = job_in(trainer, nodes=2, cluster={"deadline_seconds": 600})
    play = replay(trainer, scenario, pause=0.02)
    if OUTCOMES[scenario]:
        with pytest.raises(JobError) as caught:
            launch(job, trainer, play)
        assert str(caught.value).startswith(f"{trainer.namespace}/train-1 failed: {OUTCOMES[scenario]}")
    else:
        assert launch(job, trainer, play).name == "train-1"


def test_the_failing_pod_is_named_with_its_exit_code_and_its_last_lines(
    trainer: TrainerOperator, proxy: KubeProxy
) -> None:
    proxy.fault("GET", "/pods/train-1-node-0-0-zr65s/log", lines("Traceback", "CUDA error"), always=True)
    with pytest.raises(JobError) as caught:
        launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-exit1-exitcodes"), url=proxy.url)
    text = str(caught.value)
    assert text.startswith(f"{trainer.namespace}/train-1 failed: pod train-1-node-0-0-zr65s ended with exit code 1.")
    assert text.endswith("Its last lines:\n    Traceback\n    CUDA error")


def test_restarts_are_told_and_the_last_attempt_is_the_reason(
    trainer: TrainerOperator, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last lines of earlier attempts are read before JobSet deletes their pods."""
    with pytest.raises(JobError, match="node-0-0-564tb ended with exit code 137"):
        launch(job_in(trainer, nodes=2, cluster={"restarts": 2}), trainer, replay(trainer, "v2-exit137-exitcodes"))
    said = capfd.readouterr().err
    for number in (1, 2):
        assert said.count(f"train-1: restart {number}: applying RestartJobSet failure policy action") == 1


def test_a_process_that_was_killed_for_memory_is_told_with_the_remedy(trainer: TrainerOperator) -> None:
    with pytest.raises(JobError, match="OOMKilled"):
        launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-oom-exitcodes"))


def test_a_job_that_hangs_is_deleted_at_the_deadline_with_the_last_lines_of_rank_0(
    trainer: TrainerOperator, proxy: KubeProxy
) -> None:
    proxy.fault("GET", "/pods/train-1-node-0-0-jrlpv/log", lines("step 7"), always=True)
    with pytest.raises(JobError) as caught:
        launch(
            job_in(trainer, nodes=2, cluster={"deadline_seconds": 4}),
            trainer,
            replay(trainer, "v2-ok", last=4),
            url=proxy.url,
        )
    assert "has not ended 4 s after it was launched (cluster.deadline_seconds)" in str(caught.value)
    assert str(caught.value).endswith("Its last lines:\n    step 7")
    assert trainer.names() == []


def test_a_job_that_somebody_deletes_is_an_error(trainer: TrainerOperator) -> None:
    def play() -> None:
        replay(trainer, "v2-delete-background", last=5)()
        trainer.delete("train-1")
        trainer.collect("train-1")

    with pytest.raises(JobError, match=f"{trainer.namespace}/train-1 was deleted while it ran"):
        launch(job_in(trainer, nodes=2), trainer, play)


def test_a_job_waits_for_quota_and_then_runs(trainer: TrainerOperator, capfd: pytest.CaptureFixture[str]) -> None:
    """It waits longer than it may take; that it waits is said once."""
    waits = {"deadline_seconds": 7, "queue": "training"}
    scenario = "kueue-trainjob-second-waits"

    def play() -> None:
        trainer.wait("train-1")
        trainer.replay("train-1", scenario, last=3, pause=3)
        trainer.replay("train-1", scenario, first=3, pause=0.02)

    launch(job_in(trainer, nodes=2, cluster=waits), trainer, play)
    assert trainer.get("train-1")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert capfd.readouterr().err.count("train-1: waits for quota") == 1


def test_a_job_that_trainer_makes_nothing_of_is_told_why(
    trainer: TrainerOperator, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobError, match="JobSet name is too long"):
        launch(job_in(trainer, cluster={"deadline_seconds": 3}), trainer, replay(trainer, "v2-long-name"))
    assert capfd.readouterr().err.count("JobSet name is too long") == 1


def test_a_name_that_is_too_long_creates_nothing(trainer: TrainerOperator) -> None:
    with pytest.raises(JobError, match="Take up to 48 lower-case letters"):
        launch(job_in(trainer, name="t" * 49), trainer, lambda: None)
    assert trainer.names() == trainer.names("trainingruntimes") == []


def start(trainer: TrainerOperator, folder: Path) -> subprocess.Popen[str]:
    """The launcher as a command."""
    recipe = folder / "recipe.yaml"
    recipe.write_text("cluster: {kind: trainjob}\n", encoding="utf-8")
    options = {"--params": ROOT / "params.yaml", "--recipe": recipe, "--name": "train-1", "--image": "i"}
    options |= {"--data": "s3://b/d", "--out": "s3://b/o", "--namespace": trainer.namespace}
    return subprocess.Popen(
        [sys.executable, "-m", "components.pytorchjob", *(str(word) for pair in options.items() for word in pair)],
        env=environment(KUBECONFIG=str(trainer.kube.kubeconfig())),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_launcher_that_was_killed_goes_on_waiting_and_makes_a_runtime_again_that_is_gone(
    trainer: TrainerOperator, tmp_path: Path
) -> None:
    """Without its runtime a job that is suspended never starts: Trainer refuses every change (v2-runtime-gone)."""
    first = start(trainer, tmp_path)
    uid = trainer.wait("train-1")["metadata"]["uid"]
    trainer.replay("train-1", "v2-runtime-gone")
    first.kill()
    first.communicate(timeout=60)
    trainer.delete("train-1", "trainingruntimes")
    second = start(trainer, tmp_path)
    assert second.stderr is not None
    said = second.stderr.readline()
    assert said == f"{trainer.namespace}/train-1: is there already, and is waited for\n"
    eventually(lambda: trainer.names("trainingruntimes") == ["train-1"], "there is no runtime again")
    trainer.replay("train-1", "v2-ok")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out.startswith(f"{trainer.namespace}/train-1 succeeded: ")
    assert trainer.get("train-1")["metadata"]["uid"] == uid
    (owner,) = trainer.get("train-1", "trainingruntimes")["metadata"]["ownerReferences"]
    assert owner["uid"] == uid


def test_a_launcher_that_is_asked_to_stop_deletes_the_job_in_the_background(
    trainer: TrainerOperator, tmp_path: Path
) -> None:
    """In the foreground Trainer would create JobSet and pods once more."""
    process = start(trainer, tmp_path)
    trainer.wait("train-1")
    trainer.replay("train-1", "v2-ok", last=4)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert trainer.names() == []


def test_an_ended_job_is_replaced_when_what_it_made_is_gone(trainer: TrainerOperator) -> None:
    """Deleted in the background its name is free at once, while JobSet and pods still are there."""
    with pytest.raises(JobError):
        launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-exit1-exitcodes"))
    old = trainer.get("train-1")["metadata"]["uid"]

    def play() -> None:
        eventually(lambda: trainer.names() == [], "the ended job is not deleted")
        assert trainer.pods and trainer.jobset
        time.sleep(0.5)
        assert trainer.names() == []
        trainer.collect("train-1")
        trainer.wait("train-1")
        trainer.replay("train-1", "v2-ok")

    assert launch(job_in(trainer, nodes=2), trainer, play).uid != old
    (owner,) = trainer.get("train-1", "trainingruntimes")["metadata"]["ownerReferences"]
    assert owner["uid"] == trainer.get("train-1")["metadata"]["uid"]


def test_what_an_earlier_job_left_and_nobody_collects_is_an_error(trainer: TrainerOperator) -> None:
    with pytest.raises(JobError):
        launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-exit1-exitcodes"))
    with pytest.raises(JobError, match=r"/train-1-node-0-.* is being deleted, and is not gone yet"):
        launch(job_in(trainer, nodes=2), trainer, lambda: None, replace(QUICK, gone=0.3))
    assert trainer.names() == []


def test_a_second_launcher_waits_for_the_job_and_keeps_its_runtime(trainer: TrainerOperator) -> None:
    """The runtime of a launcher that was killed before it could give it to the job belongs to its Workflow."""
    first, second = (Owner("argoproj.io/v1alpha1", "Workflow", f"run-{n}", f"uid-{n}") for n in (1, 2))
    job = job_in(trainer, nodes=2, owner=first)
    api = Api(trainer.namespace, QUICK, trainer.kube.kubeconfig())
    runtime, trainjob = BACKEND.manifests(job)
    api.apply(runtime)
    api.create(trainjob)
    launch(replace(job, owner=second), trainer, replay(trainer, "v2-ok"))
    waiting = trainer.get("train-1")["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in waiting] == ["run-1", "run-2"]
    (owner,) = trainer.get("train-1", "trainingruntimes")["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("TrainJob", trainer.get("train-1")["metadata"]["uid"])


def test_a_runtime_that_trainer_does_not_see_is_waited_for_and_then_named(
    trainer: TrainerOperator, proxy: KubeProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without it every change of a job is denied; one that is made again is seen a moment later."""
    denied = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: Invalid'
    jobs = [replace(job_in(trainer, nodes=2), owner=Owner("v1", "Pod", f"l-{n}", f"uid-{n}")) for n in (1, 2, 3)]
    for method, job, play in (("POST", jobs[0], replay(trainer, "v2-ok")), ("PATCH", jobs[1], lambda: None)):
        proxy.fault(method, "/trainjobs", refuse(403, denied))
        launch(job, trainer, play, url=proxy.url)
    proxy.fault("PATCH", "/trainjobs", refuse(403, denied), always=True)
    with pytest.raises(JobError, match=r"denied the request: spec.runtimeRef.*train-1 is there, but cannot be shared"):
        launch(jobs[2], trainer, lambda: None, replace(QUICK, gone=0.3), url=proxy.url)
    # A run that leaves it to others says so, and goes.
    api = Api(trainer.namespace, QUICK, trainer.kube.kubeconfig(url=proxy.url))
    assert not owners.remove(api, BACKEND, trainer.get("train-1"), "uid-1")
    assert "/train-1: keeps an owner that has ended: Kubernetes at" in capfd.readouterr().err


def test_the_list_of_patches_is_the_queues(trainer: TrainerOperator) -> None:
    """Kueue writes into it what it needs to know its pods by; the launcher changes the job and leaves it."""
    patches = [{"manager": "kueue.x-k8s.io/manager", "trainingRuntimeSpec": {"template": {"spec": {}}}}]

    def play() -> None:
        trainer.wait("train-1")
        place = {**trainer.place(), "name": "train-1"}
        trainer.objects.patch_namespaced_custom_object(**place, body={"spec": {"runtimePatches": patches}})
        trainer.replay("train-1", "v2-ok")

    job = job_in(trainer, nodes=2)
    launch(job, trainer, play)
    launch(replace(job, owner=Owner("v1", "Pod", "launcher", "uid-1")), trainer, lambda: None)
    assert trainer.get("train-1")["spec"]["runtimePatches"] == patches


def test_a_role_with_these_verbs_is_enough(kube: KubeApi, trainer: TrainerOperator) -> None:
    kube.bind("launcher", trainer.namespace, [*SHARED_RULES, *RULES])
    with pytest.raises(JobError, match="failed: pod train-1-node-0-0-zr65s"):
        launch(job_in(trainer, nodes=2), trainer, replay(trainer, "v2-exit1-exitcodes"), user="launcher")

    def play() -> None:
        eventually(lambda: trainer.names() == [], "the ended job is not deleted")
        trainer.collect("train-1")
        trainer.wait("train-1")
        trainer.replay("train-1", "v2-long-name", pause=0.5)
        trainer.replay("train-1", "kueue-trainjob-first")

    launch(job_in(trainer, nodes=2), trainer, play, user="launcher")
    owner = Owner("v1", "Pod", "launcher-2", "uid-2")
    launch(replace(job_in(trainer, nodes=2), owner=owner), trainer, lambda: None, user="launcher")


@pytest.mark.parametrize(
    ("resource", "verb"), [("trainjobs", "create"), ("trainingruntimes", "patch"), ("jobsets", "watch")]
)
def test_a_right_that_is_missing_is_named(kube: KubeApi, trainer: TrainerOperator, resource: str, verb: str) -> None:
    parts = [{**rule, "resources": [one]} for rule in [*SHARED_RULES, *RULES] for one in rule["resources"]]
    fewer = [
        {**rule, "verbs": [each for each in rule["verbs"] if each != verb or rule["resources"] != [resource]]}
        for rule in parts
    ]
    kube.bind("stranger", trainer.namespace, fewer)
    with pytest.raises(JobError) as caught:
        launch(job_in(trainer), trainer, lambda: None, user="stranger")
    assert f'User "stranger" cannot {verb} resource "{resource}"' in str(caught.value)
