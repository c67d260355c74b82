"""The Kubeflow graphs: the training of a model, and the map of a disaster in shards, as a cluster runs them.

python pipeline.py compile --out pipeline.yaml      the graph of a training with the parameters of a recipe as defaults
python pipeline.py run                              the compiled graph on this machine
python pipeline.py submit --host URL                a run in the cluster
python pipeline.py schedule --host URL --cron ...   runs in the cluster again and again
python pipeline.py COMMAND map ...                  the same for the graph of a map
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from base.command_line import Parser
from base.errors import errors_in_one_line
from components.kubeflow.client import Kubeflow, s3_location
from components.kubeflow.cron import with_seconds
from components.kubeflow.graphs.graph import Graph, compile_graph
from components.kubeflow.graphs.mapping import MapGraph
from components.kubeflow.graphs.training import TrainingGraph
from components.kubeflow.local import run_graph
from components.kubeflow.watch import wait
from components.params import Params, add_recipes, load_params
from components.storage.locations import LOCATIONS
from components.tracking.lineage import source_tags

ROOT = Path(__file__).resolve().parent
IMAGE = "dual-hrnet:0.1.0"
ARTIFACTS = Path("output/artifacts")  # of runs on this machine
GRAPHS: dict[str, Graph] = {"training": TrainingGraph(), "map": MapGraph()}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the graphs."""
    given = list(sys.argv[1:] if argv is None else argv)
    name = given.pop(1) if given[1:2] and given[1] in GRAPHS else "training"
    graph, arguments = GRAPHS[name], _parse(given, name)
    with errors_in_one_line():
        params = load_params(arguments.params, *arguments.recipes)
        if arguments.command == "compile":
            _compile(graph, params, arguments)
        elif arguments.command == "run":
            sys.exit(_run(graph, params, arguments))
        else:
            _submit(graph, params, arguments)


def _parse(argv: Sequence[str], name: str) -> argparse.Namespace:
    """The options of a command, those that all graphs have and those of the graph of this name."""
    more = f"COMMAND map has the graph of a map, COMMAND [{' | '.join(GRAPHS)}] --help the options of a graph."
    whole = Parser(prog="python pipeline.py", description=str(__doc__).splitlines()[0], epilog=more)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    usual = Parser(add_help=False)
    usual.add_argument("--params", type=str, default=ROOT / "params.yaml", metavar="FILE", help="params.yaml")
    add_recipes(usual)
    usual.add_argument("--image", default=IMAGE, help="of all tasks, best by its digest (default: %(default)s)")

    places = Parser(add_help=False, parents=[usual])
    places.add_argument("--root", metavar="URL", help="for what the tasks make: s3://BUCKET/PREFIX")
    text = "as pods reach it (default: what the image or the platform says)"
    places.add_argument("--mlflow-uri", type=str, default="", metavar="URL", help=text)
    text = "as browsers reach it (default: as pods do)"
    places.add_argument("--mlflow-ui", type=str, default="", metavar="URL", help=text)
    places.add_argument("--s3-endpoint", type=str, default="", metavar="URL", help="of an S3 server other than AWS")

    def add(command: str, text: str, parent: Parser, epilog: str | None = None) -> Parser:
        prog = f"python pipeline.py {command}" + ("" if name == "training" else f" {name}")
        parser: Parser = commands.add_parser(
            command, prog=prog, parents=[parent], help=text, description=text, epilog=epilog
        )
        GRAPHS[name].add_options(parser, command)
        return parser

    text = "write the graph as YAML, with what is given as defaults of the form in Kubeflow's UI"
    parser = add("compile", text, places)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .yaml")
    parser.add_argument("--kubeflow-uri", type=str, default="", metavar="URL", help="of the UI, for links in MLflow")

    parser = add("run", "run the compiled graph on this machine", usual, LOCATIONS)
    parser.add_argument("--root", default="output/pipeline", metavar="LOCATION", help="for what the tasks make")

    remote = Parser(add_help=False, parents=[places])
    remote.add_argument("--host", required=True, metavar="URL", help="of Kubeflow Pipelines, as before /#/ in its UI")
    text = "of the user (default: in the file that $KF_PIPELINES_SA_TOKEN_PATH names, if any)"
    remote.add_argument("--token", help=text)
    text = "of a browser that is logged in, where there is no token: NAME=VALUE, or a file with it"
    remote.add_argument("--cookie", metavar="COOKIE", help=text)
    remote.add_argument("--namespace", metavar="NS", help="of the user's profile, where there are several users")
    remote.add_argument("--experiment", metavar="E", help="of Kubeflow, made if needed (default: tracking.experiment)")

    parser = add("submit", "start a run in the cluster", remote)
    parser.add_argument("--run-name", metavar="N", help="as the UI shows it (default: the graph's and the time)")
    parser.add_argument("--wait", action="store_true", help="show its tasks until it ends; fail if it fails")

    parser = add("schedule", "start runs in the cluster again and again", remote)
    text = "when: minute, hour, day of the month, month, day of the week, in the cluster's time, such as '0 3 * * 1'"
    parser.add_argument("--cron", type=str, required=True, metavar="FIELDS", help=text)
    parser.add_argument("--name", metavar="N", help="replaces a schedule of this name (default: the graph's)")
    return whole.parse_args(argv)


def _compile(graph: Graph, params: Params, arguments: argparse.Namespace) -> None:
    graph.check(params)
    given = {**_values(graph, params, arguments), "kubeflow_uri": arguments.kubeflow_uri.rstrip("/")}
    compile_graph(graph, params, arguments.image, arguments.out, given)
    print(f"graph: {arguments.out}\nname of the version: {_label(arguments)}")
    if missing := [name for name in graph.required if name not in given]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        print(f"to be filled in for each run: {', '.join(missing)}. Give {options}, and nobody needs to.")
    if arguments.image == IMAGE:
        print(f"image: {IMAGE} stands for yours, which `make image` names by its commit. Give --image.")


def _run(graph: Graph, params: Params, arguments: argparse.Namespace) -> int:
    values = {"root": arguments.root, **graph.values(params, arguments)}
    graph.begin_here(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compile_graph(graph, params, arguments.image, path)
        run_graph(path, values, getattr(arguments, "processes", 1), ARTIFACTS)
    return graph.end_here(values, ARTIFACTS)


def _submit(graph: Graph, params: Params, arguments: argparse.Namespace) -> None:
    graph.check(params)
    values = {"kubeflow_uri": arguments.host.rstrip("/"), **_values(graph, params, arguments)}
    cron = with_seconds(arguments.cron) if arguments.command == "schedule" else None
    kubeflow = Kubeflow(arguments.host, arguments.token, arguments.namespace, arguments.cookie)
    graph.warn(params, arguments.namespace or "kubeflow")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compile_graph(graph, params, arguments.image, path)
        version = kubeflow.upload(path, _label(arguments))
    experiment = arguments.experiment or params.tracking.experiment
    if cron is not None:
        schedule = kubeflow.schedule(arguments.name or version.name, cron, experiment, version, values)
        print(f"schedule: {kubeflow.schedule_link(schedule)}\nid: {schedule}")
        return
    name = arguments.run_name or f"{version.name} {datetime.now():%Y-%m-%d %H:%M:%S}"
    run = kubeflow.run(name, experiment, version, values)
    print(f"run: {kubeflow.run_link(run)}\nid: {run}", flush=True)
    if arguments.wait:
        wait(kubeflow, run, graph.steps)


def _values(graph: Graph, params: Params, arguments: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the graph that the options give."""
    given = {}
    if arguments.root is not None or arguments.command != "compile":
        given["root"] = s3_location("--root", arguments.root)
    rest = ("mlflow_uri", "mlflow_ui", "s3_endpoint")
    return given | {name: getattr(arguments, name) for name in rest} | graph.values(params, arguments)


def _label(arguments: argparse.Namespace) -> str:
    """What people call the graph: its recipes, and the commit here."""
    recipes = [recipe.stem for recipe in arguments.recipes] or ["usual"]
    source = source_tags()
    commit = [source["git_commit"][:12]] if source else []  # as many digits as the tag of an image
    return "-".join([*recipes, *commit, *(["dirty"] if source.get("git_dirty") == "true" else [])])


if __name__ == "__main__":
    main()
