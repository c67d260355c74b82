"""The graph of a training: the steps of dvc.yaml, from a raw version to a registered model, as a cluster runs them."""

import argparse
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, ClassVar

from base.command_line import Parser, whole_number
from components.cluster.check import check, warn_of_cluster
from components.fetch import list_files
from components.kubeflow.client import s3_location
from components.kubeflow.graphs.graph import COMMON, Graph
from components.kubeflow.local import PipelineError
from components.kubeflow.sections import defaults_of
from components.kubeflow.tasks import raw_location
from components.params import Params
from components.storage.dvc import MD5, Hash, find_version, version_here
from components.storage.latest import LATEST, read_latest
from components.storage.locations import scratch_for

ABOUT = """Building damage from satellite images: a version of the raw data to a registered model.

Sections (dict) are those of params.yaml, which explains their keys; a key that is not there is null."""


class TrainingGraph(Graph):
    """The graph as pipeline.py knows it."""

    parameters: ClassVar = {
        "raw_version": "DVC's hash of the raw data, as a .dvc file names it; or latest, which components.publish names",
        "data_remote": "the DVC remote that has the raw data: s3://BUCKET/PREFIX",
        "root": "where data, models and scores go: s3://BUCKET/PREFIX",
        "image": "of every task and of the training job, best by its digest",
        "prepare": "section: which scenes are left out or validate",
        "train": "section: network, crops, optimizer, epochs",
        "evaluate": "section: which splits are scored, and how",
        "register": "section: name of the model in MLflow",
        "promote": "section: the gate in front of production",
        "cluster": "section: nodes, GPUs, cores, memory of the training job",
        **COMMON,
        "auto_promote": "true: a model that passes the gate goes to production",
    }
    required = ("raw_version", "data_remote", "root")

    @property
    def steps(self) -> Collection[str]:
        """The names of the tasks."""
        from components.kubeflow.steps import NEEDS

        return NEEDS

    def define(self, params: Params, image: str) -> Any:
        """The graph, its defaults taken from `params`; a parameter of the graph for each section of params.yaml."""
        from kfp import dsl

        from components.kubeflow import form, steps
        from components.kubeflow.graphs.declaring import configure

        default = defaults_of(params, steps.NEEDS)
        graph: Callable[[Callable[..., None]], Any] = dsl.pipeline(
            name="dual-hrnet", description=form.describe(ABOUT, self.parameters)
        )

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
            set_up = partial(configure, needs=steps.NEEDS, params=params, image=image, sizes=step_sizes, pods=pods)
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
                    raw_version=checked.outputs["raw_version"],
                    data_remote=data_remote,
                    root=root,
                    s3_endpoint=s3_endpoint,
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

        return form.sized(dual_hrnet, steps.NEEDS)

    def add_options(self, parser: Parser, command: str) -> None:
        """The version of the data, and where it is."""
        text = "DVC's hash of the raw data, or: latest, what components.publish named last (default: {})"
        parser.add_argument(
            "--raw-version", metavar="MD5", help=text.format("that of data.root; of a schedule: latest")
        )
        parser.add_argument("--auto-promote", action="store_true", help="promote the model if it passes the gate")
        if command != "run":
            parser.add_argument("--data-remote", metavar="URL", help="DVC remote: s3://BUCKET/PREFIX")
            return
        text = "DVC remote (default: %(default)s)"
        parser.add_argument("--data-remote", default=".dvc/cache", metavar="URL", help=text)
        processes = whole_number(1, 1024)
        parser.add_argument("--processes", type=processes, default=1, metavar="N", help="of the training (default: 1)")

    def values(self, params: Params, arguments: argparse.Namespace) -> dict[str, Any]:
        """The version, the remote, and whether the model is promoted."""
        command, remote = arguments.command, arguments.data_remote
        given = {"auto_promote": arguments.auto_promote}
        if command == "run":
            given["data_remote"] = remote
        elif remote is not None or command != "compile":
            given["data_remote"] = s3_location("--data-remote", remote)
        if command != "compile" or arguments.raw_version:
            usual = LATEST if command == "schedule" else None
            given["raw_version"] = _raw_version(params, arguments.raw_version or usual)
        return given

    def check(self, params: Params) -> None:
        """Refuses what no cluster could train."""
        check(params)

    def warn(self, params: Params, namespace: str) -> None:
        """Warns of a cluster without an operator for the training job."""
        warn_of_cluster(params.cluster, namespace)

    def begin_here(self, values: Mapping[str, Any]) -> None:
        """Lists the data, without Kubeflow's log around it."""
        remote, version = values["data_remote"], values["raw_version"]
        if version == LATEST:
            version = read_latest(remote)
        raw = raw_location(values["root"], version)
        list_files(find_version(Hash(version), remote), scratch_for(raw, "cache"))


def _raw_version(params: Params, given: str | None) -> str:
    """The version that was given, else that of the data here; raises PipelineError where it is none."""
    if given and given != LATEST and not MD5.fullmatch(given):
        raise PipelineError(
            f"--raw-version {given}: is not an md5 of DVC. Give the one that a .dvc file names, or {LATEST}."
        )
    return given or version_here(params.data.root).md5
