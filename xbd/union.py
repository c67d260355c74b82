"""Several prepared data sets read as one: those that were prepared apart, a folder of raw scenes each."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xbd.scenes import NONE, SCENES, SKIPPED, SPLITS, SceneError, read_index, scene_path, write_index


def unite(parts: Sequence[Path], out: Path) -> None:
    """Makes the empty folder `out` a prepared data set of the scenes of all parts, with links to their arrays.

    Its index, and so its version, is that of the same scenes prepared together.
    Raises SceneError where a part is no prepared data set, or a scene stands in more than one.
    """
    records = [(part, record) for part in parts for record in read_index(part, (*SPLITS, SKIPPED))]
    twice = [scene for scene, count in Counter(record.scene for _, record in records).items() if count > 1]
    if twice:
        where = ", ".join(str(part) for part, record in records if record.scene == min(twice))
        raise SceneError(f"scene {min(twice)}: stands in more than one data set ({where}). Keep one of them.")
    (out / SCENES).mkdir()
    for part, record in records:
        if record.array_sha256 != NONE:
            scene_path(out, record.scene).symlink_to(scene_path(part, record.scene).absolute())
    write_index(out, [record for _, record in records])
