"""What the files of a scene are called: one rule for import, prepare and predict.

A scene's name is any text that can be printed and does not begin with a dot: xBD's own are `<disaster>_<8 digits>`.
Files that begin with a dot are those of a system, such as the `._` that macOS lays beside each file.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

IMAGE, LABEL, TARGET = ".png", ".json", "_target.png"
MOMENTS = ("pre", "post")
NAMED = 3  # of a list of names in a line for people
SAMPLE = "sample-"  # how the names of the disasters of `xbd.sample` begin, and of no others
_LIKE_A_SCENE = re.compile(r"(pre|post)_disaster\.(png|json|jpe?g|tiff?|webp|jp2|bmp|gif)$", re.IGNORECASE)


class SceneFile(NamedTuple):
    """scene: its name; moment: "pre" or "post"."""

    scene: str
    moment: str


def is_scene_name(name: str) -> bool:
    """Whether a scene can be called so."""
    return bool(name) and name.isprintable() and not name.startswith(".") and "/" not in name and "\\" not in name


def file_name(scene: str, moment: str, ending: str = IMAGE) -> str:
    """The name of a scene's file; ending is one of IMAGE, LABEL and TARGET."""
    return f"{scene}_{moment}_disaster{ending}"


def scene_file(name: str, ending: str = IMAGE) -> SceneFile | None:
    """What a file's name says, None where it is not the name of a scene's file with this ending.

    >>> scene_file("palu-tsunami_00000012_post_disaster.png")
    SceneFile(scene='palu-tsunami_00000012', moment='post')
    """
    for moment in MOMENTS:
        scene = name.removesuffix(file_name("", moment, ending))
        if scene != name and is_scene_name(scene):
            return SceneFile(scene, moment)
    return None


def scene_files(folder: Path, ending: str = IMAGE) -> Iterator[SceneFile]:
    """What the names of a folder's files say, sorted; nothing where there is no folder. Others are passed over."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return (found for found in (scene_file(name, ending) for name in names) if found is not None)


def other_ending(path: Path) -> str | None:
    """What stands beside a file that is missing, by the same name with another ending: the finding and the remedy."""
    if path.parent.is_dir():
        for name in sorted(other.name for other in path.parent.iterdir()):
            if Path(name).stem == path.stem and name != path.name and not name.startswith("."):
                found = Path(name).suffix
                remedy = f"Rename {name}" if found.lower() == path.suffix else f"Convert {name} to {path.suffix}"
                return f"found {found}, expected {path.suffix}. {remedy}."
    return None


def nearly_scene_files(paths: Iterable[str]) -> list[str]:
    """The names of those files that look like an image or a label of a scene, and are none: for their ending, the name
    of their scene, or the folder that they lie in. Sorted; as they can be printed.
    """
    names = {path.rsplit("/", 1)[-1] for path in paths}
    looks = (name for name in names if _LIKE_A_SCENE.search(name) and not name.startswith("."))
    return sorted(name if name.isprintable() else ascii(name) for name in looks)


def few(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{rest}"
