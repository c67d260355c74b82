"""What a predicted scene is given out as: rasters and vectors for map programs, and a summary for people."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from scene.blending import BLOCK, NODATA
from scene.buildings import find_buildings
from scene.grid import WGS84
from scene.vectors import NAMES, Feature, frame_of, locate, write_vectors
from xbd.folders import new_folder
from xbd.overview import COLOURS

FILES = ("damage.tif", "confidence.tif", "buildings.gpkg", "buildings.geojson", "summary.csv", "summary.json")


def write_outputs(classes: Path, out: Path, *, cell: float) -> list[Feature]:
    """Writes FILES into the folder `out`, which appears with all of them; what it held of them before is replaced.

    classes: see `scene.inference.predict_scene`. cell: metres of a side of the summary's squares. Returns what was
    found.
    """
    with rasterio.open(classes) as dataset:
        crs, transform = dataset.crs, dataset.transform
    features = locate(find_buildings(classes), crs, transform)
    with new_folder(out, lambda path: str(path) in FILES) as folder:
        _write_raster(classes, 1, folder / "damage.tif")
        _write_raster(classes, 2, folder / "confidence.tif")
        write_vectors(features, folder)
        table = summary(features, cell)
        table.to_csv(folder / "summary.csv", index=False, lineterminator="\n")
        (folder / "summary.json").write_text(json.dumps(_totals(table), indent=2) + "\n", encoding="utf-8")
    return features


def summary(features: Sequence[Feature], cell: float) -> pd.DataFrame:
    """Buildings and square metres of each grade: a row for all, and one for each square of `cell` metres that has any.

    Squares lie in the UTM zone of the scene; west, south, east and north are the degrees of their corners. A building
    is of the square that its centroid lies in.
    """
    frame = frame_of(features)
    rows: list[dict[str, Any]] = [{"area": "all", **_counts(frame)}]
    if len(frame):
        metric = frame.to_crs(frame.estimate_utm_crs())
        centres = metric.centroid
        frame["column"], frame["row"] = np.floor(centres.x / cell), np.floor(centres.y / cell)
        for (row, column), part in frame.groupby(["row", "column"]):
            corners = _corners(column * cell, row * cell, cell, metric.crs)
            rows.append({"area": f"square {int(column)} {int(row)}", **corners, **_counts(part)})
    return pd.DataFrame(rows)


def _corners(left: float, bottom: float, cell: float, crs: Any) -> dict[str, float]:
    import geopandas
    import shapely

    box = geopandas.GeoSeries([shapely.box(left, bottom, left + cell, bottom + cell)], crs=crs).to_crs(WGS84)
    return dict(zip(("west", "south", "east", "north"), box.total_bounds.round(6).tolist(), strict=True))


def _counts(frame: Any) -> dict[str, float]:
    grades = {name: frame[frame["damage"] == name] for name in NAMES}
    return {
        "buildings": len(frame),
        **{f"buildings_{name.replace('-', '_')}": len(part) for name, part in grades.items()},
        "area_m2": round(float(frame["area_m2"].sum()), 1),
        **{
            f"area_m2_{name.replace('-', '_')}": round(float(part["area_m2"].sum()), 1) for name, part in grades.items()
        },
    }


def _totals(table: pd.DataFrame) -> dict[str, Any]:
    """The same as JSON: what is not there is left out."""
    rows = [{key: value for key, value in row.items() if not pd.isna(value)} for row in table.to_dict("records")]
    return {"total": rows[0], "squares": rows[1:]}


def _write_raster(classes: Path, band: int, path: Path) -> None:
    """A band as cloud-optimized GeoTIFF, 255 where no data is: damage in the paper's colours, confidence in percent."""
    plain = path.with_suffix(".partial.tif")
    with rasterio.open(classes) as source:
        profile = source.profile | {"count": 1, "nodata": NODATA, "interleave": "band"}
        with rasterio.open(plain, "w", **profile) as out:
            out.set_band_description(1, "damage grade" if band == 1 else "confidence in percent")
            if band == 1:
                out.write_colormap(
                    1, {value: (*rgb, 0 if value == NODATA else 255) for value, (_, rgb) in COLOURS.items()}
                )
            for y in range(0, source.height, BLOCK):
                for x in range(0, source.width, BLOCK):
                    window = Window(x, y, min(BLOCK, source.width - x), min(BLOCK, source.height - y))
                    values = source.read(band, window=window)
                    if band != 1:
                        seen = source.read(1, window=window) != NODATA
                        values = np.where(seen, np.rint(values / 2.55), NODATA).astype(np.uint8)
                    out.write(values, 1, window=window)
    resampling = "nearest" if band == 1 else "average"
    rasterio.shutil.copy(plain, path, driver="COG", compress="deflate", overview_resampling=resampling)
    plain.unlink()
