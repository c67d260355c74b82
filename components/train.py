"""Step train: prepared scenes to a model directory, with checkpoints, a history and an MLflow run."""

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from base.errors import Preempted
from components.cli import errors_in_one_line, read_params, step_parser
from components.params import Params
from components.storage.locations import LOCATIONS, Growing, Location, growing_output, join, local_input
from components.storage.prepared import local_scenes
from model.train.one_voice import may_say, one_line_for_all_ranks

if TYPE_CHECKING:
    from model.settings import TrainSettings
    from model.train.distributed import World
    from model.train.start import Start


def train(
    data: Location | Sequence[Location], out: Location, params: Params, *, raw_version: str | None = None
) -> None:
    """Trains with the section `train` of `params` on the scenes of one location or several.

    raw_version: DVC's hash of the raw data behind them, for the model to tell; None finds it where the repository here
    tracks them.
    Writes `out`/model, history.csv, run.json and checkpoints/.
    Under torchrun all processes train together, and the main one writes. A run that was interrupted goes on where its
    last checkpoint stands; see `model.train.training.train`. SIGTERM makes it write one and raise Preempted.
    Raises SceneError, TrainingError, StorageError, WorldError, DeviceError; of `train.start_from` TrackingError,
    ModelError and NetworkError.
    """
    from components.storage.hub import find_pretrained
    from model.device import describe_device
    from model.train.distributed import join_world
    from xbd.scenes import describe, read_index

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pretrained = None if params.train.pretrained is None else find_pretrained(params.train.pretrained)
    if params.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
    # An exchange may take longer than the watch over hanging processes, which knows more to say.
    with join_world(2 * params.train.hang_timeout) as world, ExitStack() as stack:
        # Before the data is fetched: a location that cannot be written to ends the step at once.
        output = stack.enter_context(growing_output(out)) if world.is_main else None
        start: Start | None = None
        if output is not None:
            from components.tracking import connection

            connection.reach()  # before the data is fetched, too
            if params.train.start_from is not None:
                start = _read_start(params.train.start_from, params.train)
        scenes = stack.enter_context(local_scenes(data))
        if params.train.validate_every:
            _check_validation(scenes, world)  # before a run is opened in MLflow
        if output is not None:
            processes = f" in {world.size} processes" if world.size > 1 else ""
            print(f"train on {describe(read_index(scenes, ['train']))}{processes}\n{describe_device(world.device)}")
            raw_version = raw_version or _raw_version(data, params)
            _train_tracked(scenes, output, params, world, pretrained, start, stop, raw_version)
        else:
            _train(scenes, Path(os.devnull), params.train, world, pretrained, None, stop)
    if world.is_main:
        print(f"model: {join(out, 'model')}")


def _read_start(source: str, settings: "TrainSettings") -> "Start":
    """The model of `train.start_from`, by a name that stays: of an alias the version that has it now, of a folder its
    location and the hash of its weights.
    """
    from model.train.start import hash_of, read_start

    if source.startswith("models:/"):
        from components.tracking import registry

        with TemporaryDirectory(prefix="model-") as folder:
            uri = registry.exact_uri(source)
            return read_start(registry.download_model(uri, Path(folder)), uri, settings)
    with local_input(source) as directory:
        start = read_start(directory, source, settings)
        return start._replace(name=f"{source} (sha256 {hash_of(directory)})")


def _check_validation(scenes: Path, world: "World") -> None:
    """Raises InputError where there are no scenes to validate on, and warns where they show no building."""
    from model.train.validation import validation_scenes

    records = validation_scenes(scenes).records
    if world.is_main and not any(r.no_damage + r.minor_damage + r.major_damage + r.destroyed for r in records):
        print(
            "warning: no scene in validation has a graded building, so that each validation scores 0 and cannot tell "
            "the best weights. Raise prepare.validation_share, or set train.validate_every to 0.",
            file=sys.stderr,
        )


def _train_tracked(
    scenes: Path,
    output: Growing,
    params: Params,
    world: "World",
    pretrained: Path | None,
    start: "Start | None",
    stop: threading.Event,
    raw_version: str | None,
) -> None:
    from components.tracking import runs
    from components.tracking.lineage import STARTED_FROM, TRAINED_SCENES
    from components.tracking.recipe import recipe_of
    from model.train.run import identity_of
    from xbd.scenes import prepared_version, read_index

    recipe = recipe_of(params)
    started = {} if start is None else {STARTED_FROM: start.name}
    if start is not None:  # from another version it is another run, by whatever alias
        params = params.model_copy(update={"train": replace(params.train, start_from=start.name)})
    settings = json.dumps(identity_of(params.train), sort_keys=True)
    run = runs.open_run(
        output.folder / "run.json",
        params.tracking.experiment,
        prepared_version(scenes),
        hashlib.sha256(settings.encode()).hexdigest(),
        **started,
    )
    resolved = params.model_dump(mode="json", by_alias=True)
    runs.log_params(run, {"train": resolved["train"], "prepare": resolved["prepare"]})
    runs.log_yaml(run, resolved, "params.yaml")
    content = json.dumps(resolved, sort_keys=True).encode()
    records = read_index(scenes, ["train"])
    tags = {
        "params_hash": hashlib.sha256(content).hexdigest(), "recipe": recipe, TRAINED_SCENES: str(len(records)),
    }  # fmt: skip
    runs.tag_run(run, tags | started | ({} if raw_version is None else {"raw_version": raw_version}))
    try:
        _train(
            scenes,
            output.folder,
            params.train,
            world,
            pretrained,
            start,
            stop,
            on_epoch=lambda record: runs.log_metrics(run, record, int(record["epoch"])),
            on_checkpoint=lambda path: output.upload(),
            raw_version=raw_version,
        )
    except BaseException as error:
        # A preempted pod has 30 s for all that it has to do.
        runs.finish_run(run, status="KILLED" if isinstance(error, Preempted) else "FAILED", patience=10)
        raise
    runs.log_file(run, output.folder / "history.csv")
    runs.finish_run(run)


def _train(
    scenes: Path,
    folder: Path,
    settings: "TrainSettings",
    world: "World",
    pretrained: Path | None,
    start: "Start | None",
    stop: threading.Event,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
    on_checkpoint: Callable[[Path], None] = lambda path: None,
    raw_version: str | None = None,
) -> None:
    from model.train import training

    training.train(
        scenes,
        folder,
        settings,
        world,
        pretrained=pretrained,
        start=start,
        raw_version=raw_version,
        on_epoch=on_epoch,
        on_checkpoint=on_checkpoint,
        should_stop=stop.is_set,
    )


def _raw_version(data: Location | Sequence[Location], params: Params) -> str | None:
    """DVC's hash of the raw data that these scenes were prepared from; None where the repository here does not track
    both.
    """
    from components.storage.dvc import FetchError, version_here

    try:
        for prepared in [data] if isinstance(data, str | Path) else data:
            version_here(str(prepared))
        return version_here(params.data.root).md5
    except FetchError:
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("train", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--data", required=True, nargs="+", metavar="LOCATION", help="prepared scenes")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the model is written to LOCATION/model")
    parser.add_argument("--raw-version", metavar="MD5", help="DVC's hash of the raw data, where no repository tells it")
    arguments = parser.parse_args(argv)
    with one_line_for_all_ranks(), errors_in_one_line():
        try:
            train(arguments.data, arguments.out, read_params(arguments), raw_version=arguments.raw_version)
        except Preempted as error:
            if may_say(str(error)):
                print(error, file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
