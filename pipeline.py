"""The Kubeflow graph: the steps of dvc.yaml, from a raw version to a registered model, as a cluster runs them.

python pipeline.py compile --out pipeline.yaml      the graph with the parameters of a recipe as its defaults
python pipeline.py run                              the compiled graph on this machine
python pipeline.py submit --host URL                a run in the cluster
python pipeline.py schedule --host URL --cron ...   runs in the cluster again and again
"""

import argparse
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from base.command_line import Parser, whole_number
from base.errors import InputError, errors_in_one_line
from base.files import write_file
from components.fetch import list_files
from components.kubeflow.client import Kubeflow, s3_location
from components.kubeflow.cron import with_seconds
from components.kubeflow.tasks import raw_location
from components.kubeflow.watch import wait
from components.params import Params, load_params
from components.storage.dvc import MD5, Hash, find_version, version_here
from components.storage.locations import LOCATIONS, scratch_for

ROOT = Path(__file__).resolve().parent
IMAGE = "dual-hrnet:0.1.0"
ARTIFACTS = Path("output/artifacts")  # of runs on this machine
SECTIONS = ("prepare", "train", "evaluate", "register", "promote", "tracking", "cluster")


class PipelineError(InputError):
    """A graph that cannot be compiled, run or submitted."""


def define(params: Params, image: str) -> Any:
    """The graph, its defaults taken from `params`; a parameter of the graph for each section of params.yaml."""
    from kfp import dsl

    from components.kubeflow import steps
    from components.kubeflow.sections import sections_of
    from components.kubeflow.steps import configure

    sections = sections_of(params, SECTIONS)
    device = params.cluster.device_resource if params.cluster.devices_per_node else None

    graph: Callable[[Callable[..., None]], Any] = dsl.pipeline(
        name="dual-hrnet",
        description="Building damage from satellite images: a version of the raw data to a registered model.",
    )

    @graph
    def dual_hrnet(
        raw_version: str,
        data_remote: str,
        root: str,
        image: str = image,
        prepare: dict[str, Any] = sections["prepare"],
        train: dict[str, Any] = sections["train"],
        evaluate: dict[str, Any] = sections["evaluate"],
        register: dict[str, Any] = sections["register"],
        promote: dict[str, Any] = sections["promote"],
        tracking: dict[str, Any] = sections["tracking"],
        cluster: dict[str, Any] = sections["cluster"],
        mlflow_uri: str = "",
        s3_endpoint: str = "",
        kubeflow_uri: str = "",
        processes: int = 0,
        auto_promote: bool = False,
        node_selector: dict[str, Any] = sections["cluster"]["node_selector"],
        tolerations: list[Any] = sections["cluster"]["tolerations"],
    ) -> None:
        placement = {"node_selector": node_selector, "tolerations": tolerations}
        set_up = partial(configure, device=device, image=image, placement=placement)
        at_end = steps.finish(tracking=tracking, mlflow_uri=mlflow_uri, kubeflow_uri=kubeflow_uri)
        set_up(at_end, "finish")
        with dsl.ExitHandler(at_end):
            fetched = steps.fetch(raw_version=raw_version, data_remote=data_remote, root=root, s3_endpoint=s3_endpoint)
            set_up(fetched, "fetch")
            with dsl.ParallelFor(fetched.outputs["Output"]) as source:
                prepared = steps.prepare(
                    raw=fetched.outputs["raw"], source=source, root=root, prepare=prepare, s3_endpoint=s3_endpoint
                )
                set_up(prepared, "prepare")
            trained = steps.train(
                parts=dsl.Collected(prepared.outputs["prepared"]),
                root=root,
                prepare=prepare,
                train=train,
                tracking=tracking,
                cluster=cluster,
                image=image,
                processes=processes,
                mlflow_uri=mlflow_uri,
                s3_endpoint=s3_endpoint,
            )
            set_up(trained, "train")
            scored = steps.evaluate(
                # One of its own: the compiler changes what it is given.
                parts=dsl.Collected(prepared.outputs["prepared"]),
                model=trained.outputs["model"],
                root=root,
                evaluate=evaluate,
                mlflow_uri=mlflow_uri,
                s3_endpoint=s3_endpoint,
            )
            set_up(scored, "evaluate")
            registered = steps.register(
                model=trained.outputs["model"],
                evaluation=scored.outputs["location"],
                root=root,
                register=register,
                image=image,
                mlflow_uri=mlflow_uri,
                s3_endpoint=s3_endpoint,
            )
            set_up(registered, "register")
            with dsl.If(auto_promote == True):  # noqa: E712
                promoted = steps.promote(
                    version=registered.output,
                    data=scored.outputs["data"],
                    promote=promote,
                    evaluate=evaluate,
                    mlflow_uri=mlflow_uri,
                    s3_endpoint=s3_endpoint,
                )
                set_up(promoted, "promote")

    return dual_hrnet


def compile_graph(params: Params, image: str, out: Path) -> None:
    """Writes the graph as YAML, which every client of Kubeflow can submit; raises PipelineError."""
    from kfp import compiler

    if out.suffix not in (".yaml", ".yml"):
        name = out / "pipeline.yaml" if out.is_dir() else out.with_suffix(".yaml")
        found = "is a folder" if out.is_dir() else f"ends in {out.suffix or 'no suffix'}"
        raise PipelineError(f"{out}: {found}, but Kubeflow takes graphs from files that end in .yaml. Give {name}.")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(define(params, image), str(compiled))
        text = compiled.read_text(encoding="utf-8")
    # The comment on top tells the defaults in another order in each process, and the same graph is to be one version.
    write_file(out, re.sub(r"\A(#.*\n)+", "", text))


def run_graph(graph: Path, arguments: Mapping[str, Any], work: Path) -> None:
    """Runs a compiled graph on this machine, task by task in processes of their own; raises PipelineError."""
    import warnings

    from kfp import components, local

    warnings.filterwarnings("ignore", "You may be attemping to run a task that uses custom", RuntimeWarning)
    warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect in the current local runner", UserWarning)
    # The tasks import the steps, wherever their own code is started.
    os.environ.update(PYTHONPATH=str(ROOT))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(work), raise_on_error=True)
    try:
        components.load_component_from_text(_for_this_machine(graph))(**arguments)
    except RuntimeError as error:
        said = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # colours of a terminal
        raise PipelineError(f"{said} Its line stands above; what is done stays below {arguments['root']}.") from error


def _for_this_machine(graph: Path) -> str:
    """The graph for one machine, where what failed fails again, and the pauses between attempts would be waited for.

    Its tasks take the devices that are here, whatever they would ask of a cluster.
    """
    parts = list(yaml.safe_load_all(graph.read_text(encoding="utf-8")))
    whole = parts[0]
    for dag in [whole["root"], *whole["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    for executor in whole["deploymentSpec"]["executors"].values():
        executor["container"].pop("env", None)  # NEEDS_GPU, and nothing else
    return yaml.safe_dump_all(parts, sort_keys=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the graph."""
    arguments = _parse(argv)
    with errors_in_one_line():
        params = load_params(arguments.params, arguments.recipe)
        if arguments.command == "compile":
            compile_graph(params, arguments.image, arguments.out)
            print(f"graph: {arguments.out}")
        elif arguments.command == "run":
            _run(params, arguments)
        else:
            _submit(params, arguments)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    whole = Parser(prog="python pipeline.py", description=str(__doc__).splitlines()[0])
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    usual = Parser(add_help=False)
    usual.add_argument("--params", type=str, default=ROOT / "params.yaml", metavar="FILE", help="params.yaml")
    usual.add_argument("--recipe", type=Path, metavar="FILE", help="overrides of it, such as recipes/paper.yaml")
    usual.add_argument("--image", default=IMAGE, help="of all tasks, best by its digest (default: %(default)s)")
    of_runs = Parser(add_help=False, parents=[usual])
    of_runs.add_argument("--raw-version", metavar="MD5", help="DVC's hash of the raw data (default: that of data.root)")
    of_runs.add_argument("--auto-promote", action="store_true", help="promote the model if it passes the gate")

    text = "write the graph as YAML"
    parser = commands.add_parser("compile", parents=[usual], help=text, description=text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .yaml")

    text = "run the compiled graph on this machine"
    parser = commands.add_parser("run", parents=[of_runs], help=text, description=text, epilog=LOCATIONS)
    parser.add_argument("--root", default="output/pipeline", metavar="LOCATION", help="for data, models and scores")
    parser.add_argument("--data-remote", default=".dvc/cache", metavar="URL", help="DVC remote (default: %(default)s)")
    processes = whole_number(1, 1024)
    parser.add_argument("--processes", type=processes, default=1, metavar="N", help="of the training (default: 1)")

    remote = Parser(add_help=False, parents=[of_runs])
    remote.add_argument("--host", required=True, metavar="URL", help="of Kubeflow Pipelines, as before /#/ in its UI")
    text = "of the user (default: in the file that $KF_PIPELINES_SA_TOKEN_PATH names, if any)"
    remote.add_argument("--token", help=text)
    remote.add_argument("--namespace", metavar="NS", help="of the user's profile, where there are several users")
    remote.add_argument("--experiment", metavar="E", help="of Kubeflow, made if needed (default: tracking.experiment)")
    remote.add_argument("--root", metavar="URL", help="for data, models and scores: s3://BUCKET/PREFIX")
    remote.add_argument("--data-remote", metavar="URL", help="DVC remote: s3://BUCKET/PREFIX")
    text = "as pods reach it (default: the image's)"
    remote.add_argument("--mlflow-uri", type=str, default="", metavar="URL", help=text)
    remote.add_argument("--s3-endpoint", type=str, default="", metavar="URL", help="of an S3 server other than AWS")

    text = "start a run in the cluster"
    parser = commands.add_parser("submit", parents=[remote], help=text, description=text)
    parser.add_argument("--run-name", metavar="N", help="as the UI shows it (default: the graph's and the time)")
    parser.add_argument("--wait", action="store_true", help="show its tasks until it ends; fail if it fails")

    text = "start runs in the cluster again and again"
    parser = commands.add_parser("schedule", parents=[remote], help=text, description=text)
    text = "when: minute, hour, day of the month, month, day of the week, in the cluster's time, such as '0 3 * * 1'"
    parser.add_argument("--cron", required=True, metavar="FIELDS", help=text)
    parser.add_argument("--name", metavar="N", help="replaces a schedule of this name (default: the graph's)")
    return whole.parse_args(argv)


def _run(params: Params, arguments: argparse.Namespace) -> None:
    values = {
        "raw_version": _raw_version(params, arguments),
        "data_remote": arguments.data_remote,
        "root": arguments.root,
        "processes": arguments.processes,
        "auto_promote": arguments.auto_promote,
    }
    raw = raw_location(values["root"], values["raw_version"])
    # What the first task would fail at, here without Kubeflow's log around it.
    list_files(find_version(Hash(values["raw_version"]), values["data_remote"]), scratch_for(raw, "cache"))
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "pipeline.yaml")
        compile_graph(params, arguments.image, graph)
        run_graph(graph, values, ARTIFACTS)
    print(f"scores, report and references of each task: {ARTIFACTS}")


def _submit(params: Params, arguments: argparse.Namespace) -> None:
    values = {
        "raw_version": _raw_version(params, arguments),
        "data_remote": s3_location("--data-remote", arguments.data_remote),
        "root": s3_location("--root", arguments.root),
        "mlflow_uri": arguments.mlflow_uri,
        "s3_endpoint": arguments.s3_endpoint,
        "kubeflow_uri": arguments.host.rstrip("/"),
        "auto_promote": arguments.auto_promote,
    }
    cron = with_seconds(arguments.cron) if arguments.command == "schedule" else None
    kubeflow = Kubeflow(arguments.host, arguments.token, arguments.namespace)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "pipeline.yaml")
        compile_graph(params, arguments.image, graph)
        version = kubeflow.upload(graph)
    experiment = arguments.experiment or params.tracking.experiment
    if cron is not None:
        schedule = kubeflow.schedule(arguments.name or version.name, cron, experiment, version, values)
        print(f"schedule: {kubeflow.schedule_link(schedule)}\nid: {schedule}")
        return
    name = arguments.run_name or f"{version.name} {datetime.now():%Y-%m-%d %H:%M:%S}"
    run = kubeflow.run(name, experiment, version, values)
    print(f"run: {kubeflow.run_link(run)}\nid: {run}", flush=True)
    if arguments.wait:
        from components.kubeflow.steps import NEEDS

        wait(kubeflow, run, NEEDS)


def _raw_version(params: Params, arguments: argparse.Namespace) -> str:
    """The md5 that was given, else the one of the data here; raises PipelineError where the given one is none."""
    given = arguments.raw_version
    if given and not MD5.fullmatch(given):
        raise PipelineError(f"--raw-version {given}: is not an md5 of DVC. Give the one that a .dvc file names.")
    return given or version_here(params.data.root).md5


if __name__ == "__main__":
    main()
