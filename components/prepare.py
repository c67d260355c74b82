"""Step prepare: raw xBD scenes to prepared ones: masks drawn, everything checked, one array a scene and an index."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import PrepareParams
from xbd.errors import InputError
from xbd.scenes import RawScene, SceneError, SceneRecord

SPLIT_SOURCES = ("train", "tier3")  # what validation scenes are taken from


def prepare(raw: Path, out: Path, params: PrepareParams) -> list[SceneRecord]:
    """Prepares all scenes below `raw` into `out`, which appears at once and complete, or not at all.

    Returns the index. Every scene is looked at before the first problem ends the step.
    Raises SceneError that lists all problems.
    """
    from tqdm import tqdm

    from xbd.folders import new_folder
    from xbd.scenes import find_raw_scenes, is_prepared_file, prepare_scene, save_scene, write_index

    scenes = find_raw_scenes(raw)
    unknown = set(params.exclude) - {scene.scene for scene in scenes}
    if unknown:
        raise SceneError(f"prepare.exclude: {min(unknown)} is not a scene of {raw}. Correct or remove it.")
    records, problems = [], []
    with new_folder(out, is_prepared_file) as folder:
        for scene in tqdm([s for s in scenes if s.scene not in params.exclude], desc="prepare", disable=None):
            try:
                array, record = prepare_scene(scene, choose_split(scene, params.validation_share))
            except InputError as error:
                problems.append(str(error))
                continue
            save_scene(folder, scene.scene, array)
            records.append(record)
        if problems:
            more = [f"{len(problems)} of {len(scenes)} scenes cannot be prepared:"] if len(problems) > 1 else []
            raise SceneError("\n  ".join([*more, *problems]))
        write_index(folder, records)
    return records


def choose_split(scene: RawScene, validation_share: float) -> str:
    """The split of a scene: test and hold as published; of the others a share, chosen by a hash of the scene's name,
    so that every machine, also after more scenes came, makes the same choice.
    """
    if scene.source not in SPLIT_SOURCES:
        return scene.source
    position = int.from_bytes(hashlib.sha256(scene.scene.encode()).digest()[:8]) / 2**64
    return "validation" if position < validation_share else "train"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("prepare", __doc__)
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="prepared scenes are written here")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        records = prepare(arguments.raw, arguments.out, read_params(arguments).prepare)
        _report(records)


def _report(records: list[SceneRecord]) -> None:
    """A line for each split, and a warning where polygons were not sound."""
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


if __name__ == "__main__":
    main()
