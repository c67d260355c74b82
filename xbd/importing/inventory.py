"""What a raw data folder holds: pairs, buildings of each grade and disasters of each split, and what is missing."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from base.errors import InputError
from base.grades import SUBTYPES
from base.tables import aligned
from xbd.importing.extraction import layout_path
from xbd.labels import read_buildings
from xbd.names import few
from xbd.scenes import SOURCES

# Source: Gupta et al., "xBD: A Dataset for Assessing Building Damage", and the download page of xview2.org.
PUBLISHED_PAIRS = {"train": 2799, "tier3": 6369, "test": 933, "hold": 933}


@dataclass(frozen=True)
class SplitInventory:
    """One split of a raw data folder.

    pairs: scenes with both images. buildings: number of each subtype in the readable post labels. missing: what is
    missing to the names of the files that lack it. unreadable: errors of post labels that cannot be used.
    """

    split: str
    pairs: int
    disasters: list[str]
    buildings: dict[str, int]
    missing: dict[str, list[str]]
    unreadable: list[str]


def take_inventory(root: Path) -> list[SplitInventory]:
    """Looks at every file of the layout below `root` and reads every post label; splits without any file are left out.

    Raises OSError where a folder cannot be read; a label that cannot be used is part of the result.
    """
    names = {split: {kind: _names(root / split, kind) for kind in ("images", "labels")} for split in SOURCES}
    posts = [
        root / split / "labels" / f"{name}.json"
        for split in SOURCES
        for name in sorted(names[split]["labels"])
        if name.endswith("_post_disaster")
    ]
    # Reading the 11,034 labels of xBD takes one core about 17 s, nearly all of it in parsing polygons.
    with ProcessPoolExecutor() as pool:
        chunk = max(1, math.ceil(len(posts) / 16 / (os.cpu_count() or 1)))
        results = pool.map(_count_buildings, posts, chunksize=chunk)
        counts = dict(zip(posts, tqdm(results, "labels", len(posts), unit="label", disable=None), strict=True))
    return [_inventory(root, split, **names[split], counts=counts) for split in SOURCES if any(names[split].values())]


def describe_inventory(inventory: Sequence[SplitInventory]) -> str:
    """The inventory as a table, the disasters, and a warning for everything that is not as published."""
    rows = [["split", "pairs", *SUBTYPES]]
    rows += [[s.split, str(s.pairs), *map(str, s.buildings.values())] for s in inventory]
    sums = (sum(s.buildings[subtype] for s in inventory) for subtype in SUBTYPES)
    rows += [["all", str(sum(s.pairs for s in inventory)), *map(str, sums)]]
    lines = [aligned(rows)]
    lines += [f"{s.split}: {len(s.disasters)} disasters: {', '.join(s.disasters)}" for s in inventory]
    for split in inventory:
        if split.pairs != PUBLISHED_PAIRS[split.split]:
            lines.append(
                f"warning: {split.split}: {split.pairs} pairs, the official archive has {PUBLISHED_PAIRS[split.split]}."
            )
        for what, names in split.missing.items():
            lines.append(f"warning: {split.split}: {what}: {len(names)} ({few(names)})")
        lines += [f"warning: {error}" for error in split.unreadable]
    return "\n".join(lines)


def _names(split: Path, kind: str) -> set[str]:
    """Names, without the ending, of the split's files of the layout."""
    return {path.stem for path in (split / kind).glob("*") if layout_path(f"{split.name}/{kind}/{path.name}")}


def _inventory(
    root: Path, split: str, images: set[str], labels: set[str], counts: dict[Path, Counter[str] | str]
) -> SplitInventory:
    pre, post = (
        {name.removesuffix(ending) for name in images if name.endswith(ending)}
        for ending in ("_pre_disaster", "_post_disaster")
    )
    missing = {
        "images without a label": images - labels,
        "labels without an image": labels - images,
        "post images without a pre image": {f"{scene}_post_disaster" for scene in post - pre},
        "pre images without a post image": {f"{scene}_pre_disaster" for scene in pre - post},
    }
    found = [count for path, count in counts.items() if path.is_relative_to(root / split)]
    buildings = sum((count for count in found if isinstance(count, Counter)), Counter[str]())
    return SplitInventory(
        split=split,
        pairs=len(pre & post),
        disasters=sorted({name.rsplit("_", 3)[0] for name in images | labels}),
        buildings={grade: buildings[grade] for grade in SUBTYPES},
        missing={what: sorted(names) for what, names in missing.items() if names},
        unreadable=[count for count in found if isinstance(count, str)],
    )


def _count_buildings(label: Path) -> Counter[str] | str:
    """Buildings of each subtype of a post label; the error's text where it cannot be used."""
    subtypes = {grade: subtype for subtype, grade in SUBTYPES.items()}
    try:
        buildings = read_buildings(label)
    except InputError as error:
        return f"{type(error).__name__}: {error}"
    ungraded = [building.uid for building in buildings if building.grade is None]
    if ungraded:
        return f"{label}: building {ungraded[0]} has no subtype, expected a grade in every post label."
    return Counter(subtypes[building.grade] for building in buildings if building.grade is not None)
