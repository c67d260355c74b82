"""The kill matrix: what happens to launchers and jobs, and how the launcher, the training's run in MLflow and the jobs
are then. Each launcher is a process with the rights of deploy/launcher and no more; each run ends with its exit hook.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.components.cluster.kinds import Kind, PyTorchKind, TrainKind
from tests.components.cluster.test_pytorchjob_launch import RULES
from tests.components.cluster.workflows import CREATED, WAITS, WORKFLOWS, Stage
from tests.servers.kube_api import KubeApi, of_any_content
from tests.servers.kube_proxy import Act, KubeProxy, Request, lose_answer, refuse
from tests.servers.trainer_operator import RULES as TRAINER_RULES
from tests.stores import ready_store
from tests.workers.cluster_launcher import prepare

pytestmark = pytest.mark.endurance

OBJECTS = {"pytorchjob": "/pytorchjobs", "trainjob": "/trainjobs"}
STAYS = ["train-1"]


Happens = Callable[[Stage], tuple[int | None, str]]


def kept_waiting(asked: threading.Event) -> Act:
    """The server has not heard of the request when the process that asks is killed."""

    def act(request: Request) -> None:
        asked.set()
        time.sleep(1)  # until it is dead
        request.close_connection = True

    return act


def killed_before_it_creates_the_job(stage: Stage) -> tuple[int | None, str]:
    asked = threading.Event()
    stage.proxy.fault("POST", OBJECTS[stage.kind.name], kept_waiting(asked))
    run = stage.run(through_proxy=True)
    first = run.start()
    assert asked.wait(60)
    first.kill()
    assert stage.kind.left() == []
    second = run.start()
    second.until(CREATED)
    stage.training.begin()
    stage.training.end("FINISHED")
    return second.end()


def killed_after_it_created_the_job(stage: Stage) -> tuple[int | None, str]:
    """The answer never reached it."""
    stage.proxy.fault("POST", OBJECTS[stage.kind.name], lose_answer)
    run = stage.run(through_proxy=True)
    first = run.start()
    uid = stage.kind.wait()["metadata"]["uid"]
    first.kill()
    second = run.start()
    second.until(WAITS)
    stage.training.begin()
    stage.training.end("FINISHED")
    assert stage.kind.wait()["metadata"]["uid"] == uid
    return second.end()


def killed_while_it_waits(stage: Stage) -> tuple[int | None, str]:
    """Restarts that the first one counted, the second one still knows."""
    run, first = stage.begun(restarts=1)
    stage.kind.restart()
    first.until(stage.kind.told)
    first.kill()
    second = run.start()
    second.until(WAITS)
    stage.kind.restart()
    stage.kind.exhaust()
    return second.end()


def killed_at_the_end(stage: Stage) -> tuple[int | None, str]:
    run, first = stage.begun()
    first.kill()
    stage.training.end("FINISHED")
    return run.start().end()


def operator_is_not_there(stage: Stage) -> tuple[int | None, str]:
    return stage.run(deadline_seconds=1).start().end()


def api_server_is_away_for_a_minute(stage: Stage) -> tuple[int | None, str]:
    """Of the launcher's own time: it asks again in parts of a second here."""
    run = stage.run(through_proxy=True)
    launcher = run.start()
    launcher.until(CREATED)
    stage.training.begin()
    for method in ("GET", "PATCH", "POST", "DELETE"):
        stage.proxy.fault(method, "", refuse(503, "the server is down"), always=True)
    stage.training.end("FINISHED")
    launcher.until("the server is down (HTTP 503). Asking again in 0.2 s.")
    stage.proxy.faults.clear()
    return launcher.end()


def job_is_deleted_by_hand(stage: Stage) -> tuple[int | None, str]:
    _, launcher = stage.begun()
    stage.kind.delete()
    return launcher.end()


def node_is_gone(stage: Stage) -> tuple[int | None, str]:
    _, launcher = stage.begun()
    stage.kind.restart()
    launcher.until(stage.kind.told)
    stage.training.end("FINISHED")
    return launcher.end()


def job_fails(stage: Stage) -> tuple[int | None, str]:
    _, launcher = stage.begun()
    stage.training.end("FAILED")
    return launcher.end()


def run_is_cancelled(stage: Stage) -> tuple[int | None, str]:
    run, launcher = stage.begun()
    run.cancel()
    asked = time.monotonic()
    launcher.ask_to_stop()
    ended = launcher.end()
    assert time.monotonic() - asked < 30
    return ended


def run_is_cancelled_and_its_launcher_killed_at_once(stage: Stage) -> tuple[int | None, str]:
    """The exit hook does what the launcher could not."""
    run, launcher = stage.begun()
    run.cancel()
    launcher.kill()
    assert stage.kind.left() == STAYS
    return launcher.end()


def pod_of_the_launcher_is_evicted(stage: Stage) -> tuple[int | None, str]:
    """Kubernetes takes the pod, and nobody has touched the run: the step is started again."""
    run, first = stage.begun()
    first.ask_to_stop()
    code, said = first.end()
    assert code == 143
    assert "SIGTERM: the launcher ends, and the training job goes on." in said
    second = run.start()
    second.until(WAITS)
    stage.training.end("FINISHED")
    return second.end()


def first_of_two_runs_is_cancelled(stage: Stage) -> tuple[int | None, str]:
    first, one = stage.begun()
    second, other = stage.joined()
    first.cancel()
    one.ask_to_stop()
    code, said = one.end()
    assert code == 143
    assert "SIGTERM: the training job goes on, as another run waits for it." in said
    stage.finish(first, is_good=False)
    assert (first.owns(), second.owns()) == (False, True)
    assert stage.training.stands() == ("RUNNING", "")
    stage.training.end("FINISHED")
    return other.end()


def first_of_two_runs_is_cancelled_and_its_launcher_killed(stage: Stage) -> tuple[int | None, str]:
    first, one = stage.begun()
    second, other = stage.joined()
    first.cancel()
    one.kill()
    stage.finish(first, is_good=False)
    assert (first.owns(), second.owns()) == (False, True)
    assert stage.training.stands() == ("RUNNING", "")
    stage.training.end("FINISHED")
    return other.end()


def first_of_two_runs_is_cancelled_and_the_second_fails(stage: Stage) -> tuple[int | None, str]:
    """The pods were killed, and could not say how they ended: the second run says it, whose id they do not know."""
    first, one = stage.begun()
    _, other = stage.joined()
    first.cancel()
    one.ask_to_stop()
    one.end()
    stage.finish(first, is_good=False)
    stage.kind.fail()
    return other.end()


def second_of_two_runs_is_cancelled(stage: Stage) -> tuple[int | None, str]:
    _, one = stage.begun()
    second, other = stage.joined()
    second.cancel()
    other.ask_to_stop()
    assert other.end()[0] == 143
    stage.finish(second, is_good=False)
    assert stage.training.stands() == ("RUNNING", "")
    stage.training.end("FINISHED")
    ended = one.end()
    stage.runs.reverse()  # the first one ends last
    return ended


def both_of_two_runs_are_cancelled(stage: Stage) -> tuple[int | None, str]:
    first, one = stage.begun()
    second, other = stage.joined()
    first.cancel()
    one.ask_to_stop()
    assert one.end()[0] == 143
    stage.finish(first, is_good=False)
    assert stage.kind.left() == STAYS
    second.cancel()
    other.ask_to_stop()
    return other.end()


PYTORCHJOB, TRAINJOB = ("pytorchjob",), ("trainjob",)
BOTH = (*PYTORCHJOB, *TRAINJOB)


class Row(NamedTuple):
    """code: with which the last launcher ends. said: by it, a pattern. mlflow: status of the training's run there and
    its tag pipeline_status; None where there is no run. left: jobs. kinds: of jobs, both where they differ.
    """

    happens: Happens
    code: int
    said: str
    mlflow: tuple[str, str] | None
    left: list[str]
    kinds: tuple[str, ...] = PYTORCHJOB


GOOD, BAD, ENDED = ("FINISHED", "SUCCEEDED"), ("FAILED", "FAILED"), ("KILLED", "CANCELED")
TOO_OFTEN = r"was deleted: it was started again 1 times \(cluster.restarts\), and would be once more"
NOT_TAKEN = r"has not ended 1 s after it was launched \(cluster.deadline_seconds\): no operator has taken it\."
BY_HAND = r"train-1 was deleted while it ran\. Run the same command to go on with the training\."
GONE = r"SIGTERM: the training job was deleted\. Run the same command to go on\."
MATRIX = (
    #   what happens                                            exit, words         MLflow  jobs left
    Row(killed_before_it_creates_the_job,                       0, CREATED,         GOOD,   STAYS, BOTH),
    Row(killed_after_it_created_the_job,                        0, WAITS,           GOOD,   STAYS, BOTH),
    Row(killed_while_it_waits,                                  1, TOO_OFTEN,       BAD,    [],    PYTORCHJOB),
    Row(killed_while_it_waits,                                  1, "ReachedMaxRes", BAD,    STAYS, TRAINJOB),
    Row(killed_at_the_end,                                      0, "",              GOOD,   STAYS),
    Row(operator_is_not_there,                                  1, NOT_TAKEN,       None,   []),
    Row(api_server_is_away_for_a_minute,                        0, "answers again", GOOD,   STAYS),
    Row(job_is_deleted_by_hand,                                 1, BY_HAND,         BAD,    [],    BOTH),
    Row(node_is_gone,                                           0, "1 of 3 times",  GOOD,   STAYS, PYTORCHJOB),
    Row(node_is_gone,                                           0, "restart 1",     GOOD,   STAYS, TRAINJOB),
    Row(job_fails,                                              1, "train-1 failed", BAD,   STAYS, BOTH),
    Row(run_is_cancelled,                                       143, GONE,          ENDED,  [],    BOTH),
    Row(run_is_cancelled_and_its_launcher_killed_at_once,       -9, "",             ENDED,  []),
    Row(pod_of_the_launcher_is_evicted,                         0, WAITS,           GOOD,   STAYS),
    Row(first_of_two_runs_is_cancelled,                         0, WAITS,           GOOD,   STAYS),
    Row(first_of_two_runs_is_cancelled_and_its_launcher_killed, 0, WAITS,           GOOD,   STAYS),
    Row(first_of_two_runs_is_cancelled_and_the_second_fails,    1, "train-1 failed", BAD,   STAYS),
    Row(second_of_two_runs_is_cancelled,                        0, CREATED,         GOOD,   STAYS),
    Row(both_of_two_runs_are_cancelled,                         143, GONE,          ENDED,  []),
)  # fmt: skip
CASES = [pytest.param(row, kind, id=f"{kind}: {row.happens.__name__}") for row in MATRIX for kind in row.kinds]


@pytest.fixture(scope="module")
def argo(kube: KubeApi) -> KubeApi:
    prepare()
    kube.install(of_any_content(**WORKFLOWS, kind="Workflow"))
    return kube


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ready_store(tmp_path_factory.mktemp("mlflow"))


@pytest.mark.parametrize(("row", "kind"), CASES)
def test_the_kill_matrix(
    row: Row, kind: str, argo: KubeApi, proxy: KubeProxy, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: Kind = PyTorchKind(argo) if kind == "pytorchjob" else TrainKind(argo)
    argo.bind("launcher", played.namespace, [*RULES, *TRAINER_RULES])
    stage = Stage(played, proxy, store, tmp_path, monkeypatch)
    code, said = row.happens(stage)
    assert code == row.code, said
    assert re.search(row.said, said), said
    last = stage.runs[-1]
    stage.finish(last, is_good=code == 0)
    assert stage.training.stands() == row.mlflow
    assert stage.kind.left() == row.left
    if row.mlflow is not None:
        assert last.id in stage.training.mlflow.get_run(stage.training.id).data.tags["pipeline_run"].split()
