"""Step prepare: raw xBD scenes to prepared ones: masks drawn, everything checked, one array a scene and an index."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import PrepareParams
from components.storage.locations import LOCATIONS, Location, local_input, local_output, local_part
from xbd.scenes import NONE, SKIPPED, SOURCES, RawScene, SceneError, SceneRecord

SPLIT_SOURCES = ("train", "tier3")  # what validation and held-out scenes are taken from


def prepare(raw: Location, out: Location, params: PrepareParams, source: str | None = None) -> list[SceneRecord]:
    """Prepares all scenes below `raw` into `out`, which appears at once and complete, or not at all.

    source: only the scenes of this folder, one of train, tier3, test and hold, as one of several data sets that are
    read together; names in `params` that are not among them may then be those of another folder.
    Scenes that an earlier run prepared from the same sources are kept, also those of a run that failed or was killed.
    Returns the index, skipped scenes included.
    Raises SceneError that lists the problems of all scenes, or names a parameter that does not fit the data;
    StorageError.
    """
    from xbd.scenes import is_prepared_file

    reading = local_input(raw) if source is None else local_part(raw, source)
    with local_output(out, replaces=is_prepared_file) as folder, reading as sources:
        return _prepare(sources, folder, params, source)


def _prepare(raw: Path, out: Path, params: PrepareParams, source: str | None) -> list[SceneRecord]:
    from base.errors import errors_name
    from base.files import new_folder
    from xbd.arrays import discard_others, prepare_arrays
    from xbd.scenes import find_raw_scenes, is_prepared_file, write_index

    scenes = find_raw_scenes(raw, SOURCES if source is None else (source,))
    unknown = set(params.exclude) - {scene.scene for scene in scenes}
    if unknown and source is None:
        raise SceneError(f"prepare.exclude: {min(unknown)} is not a scene of {raw}. Correct or remove it.")
    wanted = [scene for scene in scenes if scene.scene not in params.exclude]
    if not wanted:
        raise SceneError(f"prepare.exclude: lists every scene of {raw}, expected one that is left. Remove some.")
    records, problems = [], []
    with new_folder(out, is_prepared_file, resumable=True) as folder, errors_name(folder):
        for scene, outcome in prepare_arrays(wanted, folder, out, params.workers):
            if isinstance(outcome, SceneRecord):
                records.append(replace(outcome, split=choose_split(outcome, params)))
            else:
                problems.append(outcome)
                # The index must not depend on where the raw data lies.
                records.append(_skipped(scene, outcome.removeprefix(f"{raw}/")))
        if problems and params.on_error == "fail":
            more = (
                [f"{len(problems)} of {len(scenes)} scenes cannot be prepared; the others are kept for the next run:"]
                if len(problems) > 1
                else []
            )
            raise SceneError("\n  ".join([*more, *problems]))
        if len(problems) == len(wanted):
            raise SceneError(f"{raw}: no scene is left: {len(problems)} cannot be prepared. First: {problems[0]}")
        if source is None:
            _check_holdout(records, params)
        records += [_skipped(scene, "prepare.exclude") for scene in scenes if scene.scene in params.exclude]
        write_index(folder, records)
        discard_others(folder, records)
    return records


def choose_split(record: SceneRecord, params: PrepareParams) -> str:
    """The split of a scene: test and hold as published; of train and tier3 the held-out disasters, and of the others a
    share, chosen by a hash of the scene's name, so that every machine, also after more scenes came, makes the same
    choice.
    """
    if record.source not in SPLIT_SOURCES:
        return record.source
    if record.disaster in params.holdout_disasters:
        return "out_of_event"
    position = int.from_bytes(hashlib.sha256(record.scene.encode()).digest()[:8]) / 2**64
    return "validation" if position < params.validation_share else "train"


def find_duplicates(records: Sequence[SceneRecord]) -> list[list[SceneRecord]]:
    """Groups of scenes that share an image under different names, by the sha256 of the pre or the post image."""
    groups = defaultdict(list)
    for record in records:
        for image in dict.fromkeys((record.pre_sha256, record.post_sha256)):
            if image != NONE:
                groups[image].append(record)
    # A scene that was copied whole shares both images.
    return [list(group) for group in dict.fromkeys(map(tuple, groups.values())) if len(group) > 1]


def _check_holdout(records: Sequence[SceneRecord], params: PrepareParams) -> None:
    known = {record.disaster for record in records if record.source in SPLIT_SOURCES}
    unknown = sorted(set(params.holdout_disasters) - known)
    if unknown:
        raise SceneError(
            f"prepare.holdout_disasters: {unknown[0]} is no disaster of the {' and '.join(SPLIT_SOURCES)} scenes; "
            f"there are {', '.join(sorted(known))}. Correct or remove it."
        )


def _skipped(scene: RawScene, problem: str) -> SceneRecord:
    """The index line of a scene that has no array."""
    return SceneRecord(
        scene=scene.scene,
        split=SKIPPED,
        source=scene.source,
        disaster=scene.disaster,
        disaster_type="unknown",
        height=0,
        width=0,
        no_damage=0,
        minor_damage=0,
        major_damage=0,
        destroyed=0,
        unclassified=0,
        unsound_polygons=0,
        gsd=float("nan"),
        off_nadir_angle=float("nan"),
        pre_sha256=NONE,
        post_sha256=NONE,
        label_sha256=NONE,
        array_sha256=NONE,
        problem=problem,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("prepare", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--raw", required=True, metavar="LOCATION", help="raw scenes in the xBD layout")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="prepared scenes are written here")
    parser.add_argument("--source", choices=SOURCES, help="prepare the scenes of this folder only")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        records = prepare(arguments.raw, arguments.out, read_params(arguments).prepare, arguments.source)
        _report(records)


def _report(records: list[SceneRecord]) -> None:
    """A line for each split, and warnings of what people should look at."""
    from xbd.names import few
    from xbd.scenes import SPLITS, describe

    for split in SPLITS:
        chosen = [record for record in records if record.split == split]
        if chosen:
            print(f"{split}: {describe(chosen)}")
    unsound = [record for record in records if record.unsound_polygons]
    if unsound:
        count = sum(record.unsound_polygons for record in unsound)
        print(
            f"warning: {count} polygons in {len(unsound)} scenes cross themselves or have no area (first: "
            f"{unsound[0].scene}); drawn as the official tools draw them, counted in the index."
        )
    undrawn = [record for record in records if record.undrawn_buildings]
    if undrawn:
        count = sum(record.undrawn_buildings for record in undrawn)
        scenes = few([f"{record.scene}: {record.undrawn_buildings}" for record in undrawn])
        print(
            f"warning: {count} buildings in {len(undrawn)} scenes lie outside of the image or draw no more than a "
            f"pixel ({scenes}); counted in the index."
        )
    skipped = [record for record in records if record.problem not in (NONE, "prepare.exclude")]
    if skipped:
        print(f"warning: {len(skipped)} scenes were skipped and are in no split (first: {skipped[0].problem})")
    for group in find_duplicates(records):
        splits = sorted({record.split for record in group})
        leak = f", in {' and '.join(splits)}: list all but one under prepare.exclude" if len(splits) > 1 else ""
        print(f"warning: the same image stands in {', '.join(record.scene for record in group)}{leak}")


if __name__ == "__main__":
    main()
