"""The Kubeflow graph: the steps of dvc.yaml, from a raw version to a registered model, as a cluster runs them.

python pipeline.py compile --out pipeline.yaml      the graph with the parameters of a recipe as its defaults
python pipeline.py run                              the compiled graph on this machine
python pipeline.py submit --host URL                a run in the cluster
python pipeline.py schedule --host URL --cron ...   runs in the cluster again and again
"""

import argparse
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from base.command_line import Parser, whole_number
from base.errors import errors_in_one_line
from base.files import write_file
from components.cluster.check import check, warn_of_cluster
from components.fetch import list_files
from components.kubeflow.client import Kubeflow, s3_location
from components.kubeflow.cron import with_seconds
from components.kubeflow.local import PipelineError, run_graph
from components.kubeflow.sections import defaults_of
from components.kubeflow.tasks import raw_location
from components.kubeflow.watch import wait
from components.params import Params, add_recipes, load_params
from components.storage.dvc import MD5, Hash, find_version, version_here
from components.storage.latest import LATEST, read_latest
from components.storage.locations import LOCATIONS, scratch_for
from components.tracking.lineage import source_tags

ROOT = Path(__file__).resolve().parent
IMAGE = "dual-hrnet:0.1.0"
ARTIFACTS = Path("output/artifacts")  # of runs on this machine
PLACES = ("data_remote", "root")  # where pods read and write, which nobody else can know


def define(params: Params, image: str) -> Any:
    """The graph, its defaults taken from `params`; a parameter of the graph for each section of params.yaml."""
    from kfp import dsl

    from components.kubeflow import form, steps

    default = defaults_of(params)
    graph: Callable[[Callable[..., None]], Any] = dsl.pipeline(name="dual-hrnet", description=form.DESCRIPTION)

    @graph
    def dual_hrnet(
        raw_version: str,
        data_remote: str,
        root: str,
        image: str = image,
        prepare: dict[str, Any] = default["prepare"],
        train: dict[str, Any] = default["train"],
        evaluate: dict[str, Any] = default["evaluate"],
        register: dict[str, Any] = default["register"],
        promote: dict[str, Any] = default["promote"],
        tracking: dict[str, Any] = default["tracking"],
        cluster: dict[str, Any] = default["cluster"],
        step_sizes: dict[str, Any] = default["step_sizes"],
        node_selector: dict[str, Any] = default["node_selector"],
        tolerations: list[Any] = default["tolerations"],
        mlflow_uri: str = "",
        mlflow_ui: str = "",
        s3_endpoint: str = "",
        kubeflow_uri: str = "",
        auto_promote: bool = False,
    ) -> None:
        pods = {"node_selector": node_selector, "tolerations": tolerations}
        set_up = partial(steps.configure, params=params, image=image, sizes=step_sizes, pods=pods)
        at_end = steps.finish(mlflow_uri=mlflow_uri, kubeflow_uri=kubeflow_uri)
        set_up(at_end, "finish")
        with dsl.ExitHandler(at_end, name="steps"):
            checked = steps.check(
                raw_version=raw_version,
                data_remote=data_remote,
                root=root,
                mlflow_uri=mlflow_uri,
                s3_endpoint=s3_endpoint,
                prepare=prepare,
                train=train,
                evaluate=evaluate,
                register=register,
                promote=promote,
                tracking=tracking,
                cluster=cluster,
                step_sizes=step_sizes,
                **pods,
            )
            set_up(checked, "check")
            fetched = steps.fetch(
                raw_version=checked.outputs["raw_version"], data_remote=data_remote, root=root, s3_endpoint=s3_endpoint
            )
            set_up(fetched, "fetch")
            with dsl.ParallelFor(fetched.outputs["Output"], name="each-source") as source:
                prepared = steps.prepare(
                    raw=fetched.outputs["raw"], source=source, root=root, prepare=prepare, s3_endpoint=s3_endpoint
                )
                set_up(prepared, "prepare")
            trained = steps.train(
                parts=dsl.Collected(prepared.outputs["prepared"]),
                root=root,
                prepare=prepare,
                train=train,
                start_from=checked.outputs["start_from"],
                tracking=tracking,
                cluster=cluster,
                image_pull_secrets=params.cluster.image_pull_secrets,
                certificates=params.cluster.certificates or "",
                image=image,
                mlflow_uri=mlflow_uri,
                s3_endpoint=s3_endpoint,
                **pods,
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
                mlflow_ui=mlflow_ui,
                s3_endpoint=s3_endpoint,
            )
            set_up(registered, "register")
            with dsl.If(auto_promote == True, name="if-auto-promote"):  # noqa: E712
                promoted = steps.promote(
                    version=registered.outputs["Output"],
                    data=scored.outputs["data"],
                    promote=promote,
                    evaluate=evaluate,
                    mlflow_uri=mlflow_uri,
                    s3_endpoint=s3_endpoint,
                )
                set_up(promoted, "promote")

    return form.sized(dual_hrnet)


def compile_graph(params: Params, image: str, out: Path, defaults: Mapping[str, Any] | None = None) -> None:
    """Writes the graph as YAML, which every client of Kubeflow can submit; raises PipelineError.

    defaults: of parameters of the graph that are no section.
    """
    from kfp import compiler

    from components.kubeflow.form import fill_in

    if out.suffix not in (".yaml", ".yml"):
        name = out / "pipeline.yaml" if out.is_dir() else out.with_suffix(".yaml")
        found = "is a folder" if out.is_dir() else f"ends in {out.suffix or 'no suffix'}"
        raise PipelineError(f"{out}: {found}, but Kubeflow takes graphs from files that end in .yaml. Give {name}.")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(fill_in(define(params, image), defaults or {}), str(compiled))
        text = compiled.read_text(encoding="utf-8")
    # The comment on top tells the defaults in another order in each process, and the same graph is to be one version.
    write_file(out, re.sub(r"\A(#.*\n)+", "", text))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the graph."""
    arguments = _parse(argv)
    with errors_in_one_line():
        params = load_params(arguments.params, *arguments.recipes)
        if arguments.command == "compile":
            _compile(params, arguments)
        elif arguments.command == "run":
            _run(params, arguments)
        else:
            _submit(params, arguments)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    whole = Parser(prog="python pipeline.py", description=str(__doc__).splitlines()[0])
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    usual = Parser(add_help=False)
    usual.add_argument("--params", type=str, default=ROOT / "params.yaml", metavar="FILE", help="params.yaml")
    add_recipes(usual)
    usual.add_argument("--image", default=IMAGE, help="of all tasks, best by its digest (default: %(default)s)")
    text = "DVC's hash of the raw data, or: latest, what components.publish named last (default: {})"
    usual.add_argument("--raw-version", metavar="MD5", help=text.format("that of data.root; of a schedule: latest"))
    usual.add_argument("--auto-promote", action="store_true", help="promote the model if it passes the gate")

    places = Parser(add_help=False, parents=[usual])
    places.add_argument("--root", metavar="URL", help="for data, models and scores: s3://BUCKET/PREFIX")
    places.add_argument("--data-remote", metavar="URL", help="DVC remote: s3://BUCKET/PREFIX")
    text = "as pods reach it (default: what the image or the platform says)"
    places.add_argument("--mlflow-uri", type=str, default="", metavar="URL", help=text)
    text = "as browsers reach it (default: as pods do)"
    places.add_argument("--mlflow-ui", type=str, default="", metavar="URL", help=text)
    places.add_argument("--s3-endpoint", type=str, default="", metavar="URL", help="of an S3 server other than AWS")

    text = "write the graph as YAML, with what is given as defaults of the form in Kubeflow's UI"
    parser = commands.add_parser("compile", parents=[places], help=text, description=text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .yaml")
    parser.add_argument("--kubeflow-uri", type=str, default="", metavar="URL", help="of the UI, for links in MLflow")

    text = "run the compiled graph on this machine"
    parser = commands.add_parser("run", parents=[usual], help=text, description=text, epilog=LOCATIONS)
    parser.add_argument("--root", default="output/pipeline", metavar="LOCATION", help="for data, models and scores")
    parser.add_argument("--data-remote", default=".dvc/cache", metavar="URL", help="DVC remote (default: %(default)s)")
    processes = whole_number(1, 1024)
    parser.add_argument("--processes", type=processes, default=1, metavar="N", help="of the training (default: 1)")

    remote = Parser(add_help=False, parents=[places])
    remote.add_argument("--host", required=True, metavar="URL", help="of Kubeflow Pipelines, as before /#/ in its UI")
    text = "of the user (default: in the file that $KF_PIPELINES_SA_TOKEN_PATH names, if any)"
    remote.add_argument("--token", help=text)
    text = "of a browser that is logged in, where there is no token: NAME=VALUE, or a file with it"
    remote.add_argument("--cookie", metavar="COOKIE", help=text)
    remote.add_argument("--namespace", metavar="NS", help="of the user's profile, where there are several users")
    remote.add_argument("--experiment", metavar="E", help="of Kubeflow, made if needed (default: tracking.experiment)")

    text = "start a run in the cluster"
    parser = commands.add_parser("submit", parents=[remote], help=text, description=text)
    parser.add_argument("--run-name", metavar="N", help="as the UI shows it (default: the graph's and the time)")
    parser.add_argument("--wait", action="store_true", help="show its tasks until it ends; fail if it fails")

    text = "start runs in the cluster again and again"
    parser = commands.add_parser("schedule", parents=[remote], help=text, description=text)
    text = "when: minute, hour, day of the month, month, day of the week, in the cluster's time, such as '0 3 * * 1'"
    parser.add_argument("--cron", type=str, required=True, metavar="FIELDS", help=text)
    parser.add_argument("--name", metavar="N", help="replaces a schedule of this name (default: the graph's)")
    return whole.parse_args(argv)


def _compile(params: Params, arguments: argparse.Namespace) -> None:
    check(params)
    given = {**_values(arguments), "kubeflow_uri": arguments.kubeflow_uri.rstrip("/")}
    if arguments.raw_version:
        given["raw_version"] = _raw_version(params, arguments)
    compile_graph(params, arguments.image, arguments.out, given)
    print(f"graph: {arguments.out}\nname of the version: {_label(arguments)}")
    if missing := [name for name in ("raw_version", *PLACES) if name not in given]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        print(f"to be filled in for each run: {', '.join(missing)}. Give {options}, and nobody needs to.")
    if arguments.image == IMAGE:
        print(f"image: {IMAGE} stands for yours, which `make image` names by its commit. Give --image.")


def _run(params: Params, arguments: argparse.Namespace) -> None:
    values = {
        "raw_version": _raw_version(params, arguments),
        "data_remote": arguments.data_remote,
        "root": arguments.root,
        "auto_promote": arguments.auto_promote,
    }
    remote, version = arguments.data_remote, values["raw_version"]
    if version == LATEST:
        version = read_latest(remote)
    # What the first task would fail at, here without Kubeflow's log around it.
    raw = raw_location(arguments.root, version)
    list_files(find_version(Hash(version), remote), scratch_for(raw, "cache"))
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "pipeline.yaml")
        compile_graph(params, arguments.image, graph)
        run_graph(graph, values, arguments.processes, ARTIFACTS)
    print(f"scores, report and references of each task: {ARTIFACTS}")


def _submit(params: Params, arguments: argparse.Namespace) -> None:
    check(params)
    for name in PLACES:
        s3_location(f"--{name.replace('_', '-')}", getattr(arguments, name))
    is_schedule = arguments.command == "schedule"
    values = {
        "raw_version": _raw_version(params, arguments, LATEST if is_schedule else None),
        "kubeflow_uri": arguments.host.rstrip("/"),
        **_values(arguments),
    }
    cron = with_seconds(arguments.cron) if is_schedule else None
    kubeflow = Kubeflow(arguments.host, arguments.token, arguments.namespace, arguments.cookie)
    warn_of_cluster(params.cluster, arguments.namespace or "kubeflow")
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "pipeline.yaml")
        compile_graph(params, arguments.image, graph)
        version = kubeflow.upload(graph, _label(arguments))
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


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the graph that the options give, but the raw version."""
    given = {name: getattr(arguments, name) for name in PLACES if getattr(arguments, name) is not None}
    places = {name: s3_location(f"--{name.replace('_', '-')}", value) for name, value in given.items()}
    rest = ("mlflow_uri", "mlflow_ui", "s3_endpoint", "auto_promote")
    return places | {name: getattr(arguments, name) for name in rest}


def _raw_version(params: Params, arguments: argparse.Namespace, usual: str | None = None) -> str:
    """The version that was given, else `usual`, else that of the data here; raises PipelineError where it is none."""
    given = arguments.raw_version or usual
    if given and given != LATEST and not MD5.fullmatch(given):
        raise PipelineError(
            f"--raw-version {given}: is not an md5 of DVC. Give the one that a .dvc file names, or {LATEST}."
        )
    return given or version_here(params.data.root).md5


def _label(arguments: argparse.Namespace) -> str:
    """What people call the graph: its recipes, and the commit here."""
    recipes = [recipe.stem for recipe in arguments.recipes] or ["usual"]
    source = source_tags()
    commit = [source["git_commit"][:12]] if source else []  # as many digits as the tag of an image
    return "-".join([*recipes, *commit, *(["dirty"] if source.get("git_dirty") == "true" else [])])


if __name__ == "__main__":
    main()
