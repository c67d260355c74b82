"""Images out of a collection of STAC items: where each lies, and when and where it was taken, before any is fetched.

Source: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md; a collection of items is a
GeoJSON FeatureCollection of them, as `/search` of a STAC API gives it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from base.access import unreadable
from base.errors import shortly
from base.times import rfc3339
from imagery.settings import RASTERS
from imagery.shards.plan import PlanError

IMAGES = re.compile(r"image/(tiff|geotiff|jp2|vnd\.stac\.geotiff)\b", re.IGNORECASE)
NO_IMAGE = {"thumbnail", "overview", "metadata", "mask", "cloud", "data-mask"}  # roles of assets
VISUAL = "visual"  # role or key of the asset to take where an item has several images
Box = tuple[float, float, float, float]  # west, south, east, north in degrees; west > east across the antimeridian


class Item(NamedTuple):
    """An item with an image. href: as it stands there, relative to the collection's place or whole. begin, end: when it
    was taken.
    """

    name: str
    href: str
    begin: datetime
    end: datetime
    box: Box


def read_items(path: Path) -> list[Item]:
    """The items of a collection, or the one item, of a file, in their order; raises PlanError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content["features"] if content["type"] == "FeatureCollection" else [content]
        if not features:
            raise PlanError(f"{path}: has no items, expected some. Give another collection.")
        return [_item(path, feature) for feature in features]
    except OSError as error:
        raise PlanError(f"{path}: {unreadable(path, error, '. Correct the path.')}") from error
    except PlanError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(
            f"{path}: is no collection of STAC items ({shortly(error)}), expected a GeoJSON FeatureCollection with "
            "assets, bbox and datetime in each feature. Correct it."
        ) from error


class Image(NamedTuple):
    """A file of an image. item: what is known of it, None where nothing is."""

    location: str
    item: Item | None


def choose(
    pre: Sequence[Image], post: Sequence[Image], event: datetime | None
) -> tuple[tuple[list[str], list[str]], dict[str, list[str]] | None]:
    """The locations of the images to take; and when the first and the last were taken, by "before" and "after", where
    that is known of all.

    Of those with items, pre are the ones from before the event, post those from after. What lies where the other image
    shows nothing is not taken, where that is known. Raises PlanError where nothing is left, or where without an event
    pre was not taken before post.
    """
    sides = {"--pre": list(pre), "--post": list(post)}
    if event is not None:
        if not any(image.item for side in sides.values() for image in side):
            raise PlanError("--event: parts the items of collections, found no collection. Leave it out.")
        sides["--pre"] = [image for image in pre if image.item is None or image.item.end < event]
        sides["--post"] = [image for image in post if image.item is None or image.item.begin >= event]
        _refuse_none(sides, f"taken {{}} {event.isoformat()}")
    known = {option: [image.item for image in side if image.item is not None] for option, side in sides.items()}
    if all(known.values()):
        _refuse_mixed_times(*known.values())
    if any(len(items) != len(sides[option]) for option, items in known.items()):
        return ([image.location for image in sides["--pre"]], [image.location for image in sides["--post"]]), None
    both = [
        [image for image in side if image.item is not None and _meets_any(image.item, others)]
        for side, others in zip(sides.values(), reversed(known.values()), strict=True)
    ]
    if not all(both):
        raise PlanError("--pre, --post: have no items that lie in one place. Give two images of the same place.")
    for option, side, taken in zip(sides, sides.values(), both, strict=True):
        if len(taken) < len(side):
            print(f"{option}: {len(taken)} of {len(side)} items lie where the other image does, and are taken")
    times = [
        (min(item.begin for item in own), max(item.end for item in own)) for own in (_items(side) for side in both)
    ]
    spans = [[rfc3339(time) for time in span] for span in times]
    return ([image.location for image in both[0]], [image.location for image in both[1]]), {
        "before": spans[0], "after": spans[1],
    }  # fmt: skip


def _items(images: Sequence[Image]) -> list[Item]:
    return [image.item for image in images if image.item is not None]


def _refuse_none(sides: Mapping[str, Sequence[Image]], what: str) -> None:
    for (option, images), when in zip(sides.items(), ("before", "since"), strict=True):
        if not images:
            raise PlanError(f"{option}: has no image {what.format(when)}. Correct --event, or give more.")


def _refuse_mixed_times(pre: Sequence[Item], post: Sequence[Item]) -> None:
    last, first = max(pre, key=lambda item: item.end), min(post, key=lambda item: item.begin)
    if last.end >= first.begin:
        raise PlanError(
            f"--pre: {last.name} is of {rfc3339(last.end)}, --post: {first.name} of {rfc3339(first.begin)}, expected "
            "all of pre before all of post. Say by --event when the disaster was, which parts them."
        )


def _meets_any(item: Item, others: Sequence[Item]) -> bool:
    return any(_meet(item.box, other.box) for other in others)


def _item(path: Path, feature: Mapping[str, Any]) -> Item:
    name, properties = str(feature["id"]), feature["properties"]
    if properties.get("datetime"):
        times = [properties["datetime"]] * 2
    else:
        times = [properties["start_datetime"], properties["end_datetime"]]
    begin, end = map(_time, times)
    box = [float(value) for value in feature["bbox"]]
    west, south, east, north = box if len(box) == 4 else (*box[:2], *box[3:5])
    return Item(name, _image(path, name, feature["assets"]), begin, end, (west, south, east, north))


def _image(path: Path, name: str, assets: Mapping[str, Mapping[str, Any]]) -> str:
    images = {
        key: asset for key, asset in assets.items()
        if not NO_IMAGE & {key, *asset.get("roles", ())}
        and (IMAGES.match(asset.get("type") or "") or asset["href"].lower().endswith(RASTERS))
    }  # fmt: skip
    visual = [key for key, asset in images.items() if VISUAL in (key, *asset.get("roles", ()))]
    chosen = visual or list(images)
    if len(chosen) != 1:
        found = ", ".join(chosen) or "none"
        raise PlanError(
            f"{path}: item {name}: has the images {found}, expected one, or one called {VISUAL}. Leave the others out, "
            "or give the files themselves."
        )
    return str(images[chosen[0]]["href"])


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _meet(box: Box, other: Box) -> bool:
    return any(
        west < right and left < east and box[1] < other[3] and other[1] < box[3]
        for west, east in _turns(box)
        for left, right in _turns(other)
    )


def _turns(box: Box) -> Iterator[tuple[float, float]]:
    """West and east, in one or in two parts."""
    west, _, east, _ = box
    yield from [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
