"""The graph of a map: images of a disaster to a plan, its shards side by side, and the map of them at its place."""

import argparse
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from base.command_line import Parser, whole_number
from components.kubeflow.client import s3_location
from components.kubeflow.graphs.graph import COMMON, Graph
from components.kubeflow.mapping.settings import to_kubeflow
from components.kubeflow.sections import defaults_of
from components.merge import PARTIAL
from components.params import Params
from components.plan import MOST
from components.storage.locations import local_input
from imagery.options import add_reading, refuse_two, taken
from imagery.settings import ALIGN, CELL, Reading, Windows

ABOUT = """Building damage after a disaster: images from before and after, in shards, to one map.

A map without a file or a shard is "partial", which merge and deliver return, and which stands in the map's summary, in
its stac.json and in MLflow; the run is green all the same."""
SHARDS = 8
OPTIONS = (
    "pre", "post", "model", "deliver_to", "shards", "footprints", "areas", "cell", "align", "features", "views",
    "event", "taken",
)  # fmt: skip
SETTINGS = [field.name for kind in (Reading, Windows) for field in fields(kind)]


class MapGraph(Graph):
    """The graph as pipeline.py knows it."""

    parameters: ClassVar = {
        "pre": "images before the disaster: a list of files, prefixes and STAC collections, s3://BUCKET/PREFIX",
        "post": "images after the disaster, as pre",
        "model": "network, or model of an event: models:/NAME@ALIAS, models:/NAME/VERSION or s3://BUCKET/PREFIX",
        "deliver_to": "where the map goes, empty or with an earlier map: s3://BUCKET/PREFIX",
        "root": "where plan, shards and map are made: s3://BUCKET/PREFIX; what an earlier run left there is taken",
        "shards": "how many parts are predicted side by side",
        "footprints": "vector file of buildings to grade; empty: those that are found",
        "areas": "vector file of areas to sum up by; empty: by squares",
        "cell": "metres of a square's side, where there are no areas",
        "align": "how the shift between the images is corrected: off, global or local",
        "reading": "how images are read: value_range, percentiles, resample_to, bands, nodata; docs/imagery.md",
        "windows": "how they are gone through: tile, overlap, batch, workers; docs/imagery.md",
        "features": "true: keep what the network sees of each building, for judging",
        "views": "1, 4 or 8: mean over flips and quarter turns of each window",
        "event": "when the disaster was, by ISO 8601, which parts items of STAC collections; empty: they are parted",
        "taken": "when the images from after were taken, by ISO 8601, for stac.json; empty: what collections say",
        "image": "of every task, best by its digest",
        **COMMON,
    }
    required = ("pre", "post", "deliver_to", "root")

    @property
    def steps(self) -> Collection[str]:
        """The names of the tasks."""
        from components.kubeflow.mapping.steps import NEEDS

        return NEEDS

    def define(self, params: Params, image: str) -> Any:
        """The graph, its defaults taken from `params`."""
        from kfp import dsl

        from components.kubeflow import form
        from components.kubeflow.graphs.declaring import configure
        from components.kubeflow.mapping import steps

        default, nothing = defaults_of(params, steps.NEEDS), dict[str, Any]()
        graph: Callable[[Callable[..., None]], Any] = dsl.pipeline(
            name="dual-hrnet-map", description=form.describe(ABOUT, self.parameters)
        )

        @graph
        def dual_hrnet_map(
            pre: list[Any],
            post: list[Any],
            deliver_to: str,
            root: str,
            model: str = f"models:/{params.register_.name}@production",
            shards: int = SHARDS,
            footprints: str = "",
            areas: str = "",
            cell: float = CELL,
            align: str = ALIGN,
            reading: dict[str, Any] = nothing,
            windows: dict[str, Any] = nothing,
            features: bool = True,
            views: int = 1,
            event: str = "",
            taken: str = "",
            image: str = image,
            tracking: dict[str, Any] = default["tracking"],
            step_sizes: dict[str, Any] = default["step_sizes"],
            node_selector: dict[str, Any] = default["node_selector"],
            tolerations: list[Any] = default["tolerations"],
            mlflow_uri: str = "",
            mlflow_ui: str = "",
            s3_endpoint: str = "",
            kubeflow_uri: str = "",
        ) -> None:
            pods = {"node_selector": node_selector, "tolerations": tolerations}
            set_up = partial(configure, needs=steps.NEEDS, params=params, image=image, sizes=step_sizes, pods=pods)
            planned = steps.plan(
                model=model,
                pre=pre,
                post=post,
                root=root,
                deliver_to=deliver_to,
                shards=shards,
                reading=reading,
                windows=windows,
                align=align,
                features=features,
                views=views,
                event=event,
                footprints=footprints,
                areas=areas,
                mlflow_uri=mlflow_uri,
                s3_endpoint=s3_endpoint,
            )
            set_up(planned, "plan")
            with dsl.ParallelFor(planned.outputs["Output"], name="each-shard") as number:
                predicted = steps.predict(
                    plan=planned.outputs["plan"],
                    number=number,
                    windows=windows,
                    mlflow_uri=mlflow_uri,
                    s3_endpoint=s3_endpoint,
                )
                set_up(predicted, "predict")
            merged = steps.merge(
                plan=planned.outputs["plan"],
                shards=dsl.Collected(predicted.outputs["shard"]),
                areas=areas,
                cell=cell,
                s3_endpoint=s3_endpoint,
            )
            set_up(merged, "merge")
            delivered = steps.deliver(
                merged=merged.outputs["merged"],
                deliver_to=deliver_to,
                taken=taken,
                tracking=tracking,
                mlflow_uri=mlflow_uri,
                mlflow_ui=mlflow_ui,
                kubeflow_uri=kubeflow_uri,
                s3_endpoint=s3_endpoint,
            )
            set_up(delivered, "deliver")

        return form.sized(dual_hrnet_map, steps.NEEDS)

    def add_options(self, parser: Parser, command: str) -> None:
        """The images, the model, and how a map is made of them."""
        needed = command != "compile"
        text = "GeoTIFFs {} the disaster, folders of them, or collections of STAC items (.json)"
        parser.add_argument("--pre", required=needed, nargs="+", metavar="LOCATION", help=text.format("before"))
        parser.add_argument("--post", required=needed, nargs="+", metavar="LOCATION", help=text.format("after"))
        parser.add_argument("--deliver-to", required=needed, metavar="LOCATION", help="the map goes here, all of it")
        given = parser.add_argument_group("the map", argument_default=argparse.SUPPRESS)
        text = "model directory, or models:/NAME@ALIAS (default: the registered one, @production)"
        given.add_argument("--model", metavar="LOCATION", help=text)
        given.add_argument("--shards", type=whole_number(1, MOST), metavar="N", help=f"parts of the map ({SHARDS})")
        text = "vector file of buildings to grade, not those found"
        given.add_argument("--footprints", metavar="LOCATION", help=text)
        given.add_argument("--areas", metavar="LOCATION", help="vector file of areas to sum up by, and not by squares")
        given.add_argument("--cell", type=float, help=f"metres of the summary's squares ({CELL:g})")
        given.add_argument("--views", type=int, choices=(1, 4, 8), help="as of components.predict (1)")
        given.add_argument("--event", metavar="TIME", help="as of components.plan")
        given.add_argument("--taken", metavar="TIME", help="as of components.deliver")
        add_reading(given)
        given.add_argument("--batch", type=int, help=f"windows at once ({Windows.batch})")
        given.add_argument(
            "--workers",
            type=int,
            help=f"threads that read, processes that list buildings ({Windows.workers})",
        )

    def values(self, params: Params, arguments: argparse.Namespace) -> dict[str, Any]:
        """The images, the model, and how a map is made of them."""
        given = {name: value for name, value in vars(arguments).items() if name in OPTIONS and value is not None}
        settings = {name: value for name, value in vars(arguments).items() if name in SETTINGS}
        refuse_two(given | settings, ("cell", "areas"), ("percentiles", "value_range"))
        if arguments.command != "run":
            _refuse_paths(given)
        for parameter, kind in (("reading", Reading), ("windows", Windows)):
            own = {field.name: settings[field.name] for field in fields(kind) if field.name in settings}
            if own:
                taken(kind, dict(own))  # which refuses what is no setting
                given[parameter] = to_kubeflow(own)
        return given

    def end_here(self, values: Mapping[str, Any], artifacts: Path) -> int:
        """Says whether the map is partial, and ends with the code of components.merge then."""
        from imagery.delivered import read_delivered

        with local_input(values["deliver_to"]) as folder:
            found = read_delivered(folder)
        print(f"{found.said}\nmap: {values['deliver_to']}")
        for each in found.left_out:
            print(f"left out: {each['what']}: {each['why']}")
        return PARTIAL if found.left_out else 0


def _refuse_paths(given: Mapping[str, Any]) -> None:
    """Raises KubeflowError where pods would not see what is given."""
    for name in ("pre", "post", "deliver_to", "model", "footprints", "areas"):
        locations = given.get(name, ())
        for location in [locations] if isinstance(locations, str) else locations:
            if not location.startswith("models:/"):
                s3_location(f"--{name.replace('_', '-')}", location)
