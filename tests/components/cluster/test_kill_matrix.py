"""Launchers in pods of pipeline runs that are killed, cancelled and evicted, and jobs that are taken from them: how it
ends, and which jobs are left behind. Each launcher is a process with the rights of deploy/launcher and no more.
"""

import signal
import threading
import time
from collections.abc import Callable

import pytest

from components.cluster.api import Api
from components.cluster.owners import goes_on, release
from tests.components.cluster.test_pytorchjob_launch import RULES
from tests.components.cluster.workflows import Run, end_of, serve, until
from tests.servers.kube_api import KubeApi, eventually
from tests.servers.kube_proxy import Act, KubeProxy, Request, lose_answer, refuse
from tests.servers.training_operator import QUICK, Operator, is_deleted

pytestmark = pytest.mark.slow

WAITS, CREATED = "is there already, and is waited for", ": created"


@pytest.fixture(scope="module", autouse=True)
def workflows(kube: KubeApi) -> None:
    serve(kube, "argoproj.io", "v1alpha1", "workflows", "Workflow")


@pytest.fixture
def operator(kube: KubeApi) -> Operator:
    operator = Operator(kube)
    kube.bind("launcher", operator.namespace, RULES)
    return operator


def owners(operator: Operator) -> list[str]:
    return [owner["name"] for owner in operator.get("train-1")["metadata"]["ownerReferences"]]


def left(operator: Operator) -> list[str]:
    """Jobs that nobody deletes."""
    return [name for name in operator.names() if not is_deleted(operator.get(name))]


def kept_waiting(asked: threading.Event) -> Act:
    """The server has not heard of the request when the process that asks is killed."""

    def act(request: Request) -> None:
        asked.set()
        time.sleep(2)  # until it is dead
        request.close_connection = True

    return act


def test_a_launcher_that_is_killed_before_it_creates_the_job(operator: Operator, proxy: KubeProxy) -> None:
    asked = threading.Event()
    proxy.fault("POST", "/pytorchjobs", kept_waiting(asked))
    run = Run(operator, "run-a", proxy.url)
    first = run.start()
    assert asked.wait(60)
    first.kill()
    first.communicate()
    assert operator.names() == []
    second = run.start()
    until(second, CREATED)
    operator.report("train-1", "Running", "Succeeded")
    assert end_of(second)[0] == 0
    assert left(operator) == ["train-1"]


def test_a_launcher_that_is_killed_after_it_created_the_job(operator: Operator, proxy: KubeProxy) -> None:
    """The answer never reached it."""
    proxy.fault("POST", "/pytorchjobs", lose_answer)
    run = Run(operator, "run-a", proxy.url)
    first = run.start()
    uid = operator.wait("train-1")["metadata"]["uid"]
    first.kill()
    first.communicate()
    second = run.start()
    until(second, WAITS)
    operator.report("train-1", "Running", "Succeeded")
    assert end_of(second)[0] == 0
    assert operator.get("train-1")["metadata"]["uid"] == uid
    assert owners(operator) == ["run-a"]


def test_a_launcher_that_is_killed_while_it_waits(operator: Operator) -> None:
    """Restarts that the first one counted, the second one still knows."""
    run = Run(operator, "run-a", restarts=1)
    first = run.start()
    until(first, CREATED)
    operator.report("train-1", "Created", "Running")
    operator.lose_pod("train-1")
    operator.wait("train-1", lambda job: "restarts" in str(job["metadata"]["annotations"].get("dual-hrnet/record")))
    eventually(lambda: '-master-0": 1' in operator.record("train-1"), "the restart is not counted")
    first.kill()
    first.communicate()
    second = run.start()
    until(second, WAITS)
    operator.lose_pod("train-1")
    code, said = end_of(second)
    assert code == 1
    assert "was deleted: it was started again 1 times (cluster.restarts), and would be once more" in said
    assert left(operator) == []


def test_a_launcher_that_is_killed_at_the_end(operator: Operator) -> None:
    run = Run(operator, "run-a")
    first = run.start()
    until(first, CREATED)
    first.kill()
    first.communicate()
    operator.report("train-1", "Running", "Succeeded")
    uid = operator.get("train-1")["metadata"]["uid"]
    assert end_of(run.start())[0] == 0
    assert operator.get("train-1")["metadata"]["uid"] == uid


def test_an_operator_that_is_not_there(operator: Operator) -> None:
    code, said = end_of(Run(operator, "run-a", deadline_seconds=1).start())
    assert code == 1
    assert "it has not ended 1 s after it was launched (cluster.deadline_seconds): no operator has taken it." in said
    assert left(operator) == []


def test_an_api_server_that_is_away_for_a_while(operator: Operator, proxy: KubeProxy) -> None:
    process = Run(operator, "run-a", proxy.url).start()
    until(process, CREATED)
    for method in ("GET", "PATCH", "POST", "DELETE"):
        proxy.fault(method, "", refuse(503, "the server is down"), always=True)
    operator.report("train-1", "Running", "Succeeded")
    # The watch that is open ends, and what ended meanwhile is seen when the server is back.
    time.sleep(40)
    assert process.poll() is None
    proxy.faults.clear()
    code, said = end_of(process)
    assert code == 0, said


def test_a_job_that_is_deleted_by_hand(operator: Operator) -> None:
    process = Run(operator, "run-a").start()
    until(process, CREATED)
    operator.delete("train-1", "Background")
    code, said = end_of(process)
    assert (code, left(operator)) == (1, [])
    assert "train-1 was deleted while it ran. Run the same command to go on with the training." in said


def test_a_node_that_is_gone(operator: Operator) -> None:
    """Its pod goes without having ended, and another one takes its place."""
    process = Run(operator, "run-a").start()
    until(process, CREATED)
    operator.report("train-1", "Created", "Running")
    operator.lose_pod("train-1")
    until(process, "pod train-1-master-0 was started again, 1 of 3 times")
    operator.report("train-1", "Created", "Running", "Succeeded")
    assert end_of(process)[0] == 0
    assert left(operator) == ["train-1"]


def cancelled(run: Run) -> None:
    run.cancel()


def evicted(run: Run) -> None:
    """Kubernetes takes the pod, and nobody has touched the run."""


@pytest.mark.parametrize(
    ("happens", "stays", "words"),
    [
        (cancelled, [], "SIGTERM: the training job was deleted. Run the same command to go on."),
        (evicted, ["train-1"], "SIGTERM: the launcher ends, and the training job goes on."),
    ],
    ids=["the run is cancelled", "the pod is evicted"],
)
def test_a_launcher_that_is_asked_to_stop(
    operator: Operator, happens: Callable[[Run], None], stays: list[str], words: str
) -> None:
    run = Run(operator, "run-a")
    process = run.start()
    until(process, CREATED)
    operator.report("train-1", "Created", "Running")
    happens(run)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, said = end_of(process)
    assert time.monotonic() - asked < 30
    assert (code, left(operator)) == (143, stays), said
    assert words in said
    if stays:
        uid = operator.get("train-1")["metadata"]["uid"]
        second = run.start()
        until(second, WAITS)
        operator.report("train-1", "Created", "Running", "Succeeded")
        assert end_of(second)[0] == 0
        assert operator.get("train-1")["metadata"]["uid"] == uid


def test_a_cancelled_run_whose_launcher_is_killed_at_once(operator: Operator) -> None:
    """The exit hook does what the launcher could not."""
    run = Run(operator, "run-a")
    process = run.start()
    until(process, CREATED)
    run.cancel()
    process.kill()
    process.communicate()
    assert left(operator) == ["train-1"]
    release(Api(operator.namespace, QUICK, operator.kube.kubeconfig("launcher")), "run-a")
    assert left(operator) == []


@pytest.mark.parametrize("how", ["its launcher is asked to stop", "its launcher is killed at once"])
def test_two_runs_with_one_job_of_which_the_first_is_cancelled(operator: Operator, how: str) -> None:
    first, second = Run(operator, "run-a"), Run(operator, "run-b")
    one = first.start()
    until(one, CREATED)
    operator.report("train-1", "Created", "Running")
    other = second.start()
    until(other, WAITS)
    assert owners(operator) == ["run-a", "run-b"]
    first.cancel()
    if "killed" in how:
        one.kill()
        one.communicate()
        release(Api(operator.namespace, QUICK, operator.kube.kubeconfig("launcher")), "run-a")
    else:
        one.send_signal(signal.SIGTERM)
        code, said = end_of(one)
        assert code == 143
        assert "SIGTERM: the training job goes on, as another run waits for it." in said
    assert (left(operator), owners(operator)) == (["train-1"], ["run-b"])
    # Its pods carry the id of the first run, whose exit hook leaves their training in MLflow alone.
    api = Api(operator.namespace, QUICK, operator.kube.kubeconfig("launcher"))
    assert (goes_on(api, "id-of-run-a"), goes_on(api, "id-of-run-b")) == (True, False)
    operator.report("train-1", "Created", "Running", "Succeeded")
    assert end_of(other)[0] == 0
    assert not goes_on(api, "id-of-run-a")
    # What ended keeps its logs: a run that ends later does not delete it.
    release(Api(operator.namespace, QUICK, operator.kube.kubeconfig("launcher")), "run-b")
    assert left(operator) == ["train-1"]


def test_two_runs_with_one_job_that_are_both_cancelled(operator: Operator) -> None:
    runs = [Run(operator, name) for name in ("run-a", "run-b")]
    processes = [runs[0].start()]
    until(processes[0], CREATED)
    processes.append(runs[1].start())
    until(processes[1], WAITS)
    for run, process, stays in zip(runs, processes, (["train-1"], []), strict=True):
        run.cancel()
        process.send_signal(signal.SIGTERM)
        assert end_of(process)[0] == 143
        assert left(operator) == stays
