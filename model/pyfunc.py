"""The registered model: rows of encoded image pairs in, encoded masks and a list of buildings out. MLflow loads this
file as code, so that nothing is pickled.
"""

import base64
import binascii
from threading import Lock
from typing import Any

import mlflow
import pandas as pd
import shapely
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property

from base.errors import InputError
from base.grades import KEYS
from base.images import decode_image, encode_png
from model.buildings import GradedBuilding, buildings_of, grade, separate
from model.device import choose_device
from model.inference import Predictor, load_model

PNG = b"\x89PNG\r\n\x1a\n"  # of the formats that Pillow reads, some start other programs
PNG_IN_BASE64 = base64.b64encode(PNG[:6])
MAX_PIXELS = 2048**2  # of an image: the network takes about 0.8 GB for a million pixels
_BUILDING = Object(
    [
        Property("polygons", Array(Array(Array(Array(DataType.double))))),
        Property("grade", DataType.long),
        Property("damage", DataType.string),
        Property("confidence", DataType.double),
        Property("area", DataType.long),
    ]
)
SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.binary, name) for name in ("pre", "post")]),
    Schema(
        [
            *(ColSpec(DataType.binary, name) for name in ("localization", "damage")),
            ColSpec(Array(_BUILDING), "buildings"),
        ]
    ),
)


class DualHRNetModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Columns pre and post (bytes of a PNG) to localization and damage (bytes of a PNG, 0-4) and buildings.

    A building has polygons (as coordinates of a GeoJSON MultiPolygon, in pixels: x to the right, y down), grade (1-4)
    by the vote of its pixels, damage (the grade's name), confidence (0-1) and area (pixels). The damage PNG has each
    pixel's own grade.
    """

    def load_context(self, context: Any) -> None:
        """Loads the model directory that was logged as the artifact "model"."""
        model = load_model(context.artifacts["model"])
        self.predictor = Predictor(model.to(choose_device()))
        # A server calls from many threads; each prediction takes all cores, and its memory, for itself.
        self.turn = Lock()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predicts each row on its own, because the pairs may differ in size.

        Raises MlflowException, which a server answers with status 400, for rows that are not a pair of images.
        """
        if not len(model_input):
            raise _refusal("the request has no row, expected at least one pair of images.")
        rows = []
        for number, (pre, post) in enumerate(zip(model_input["pre"], model_input["post"], strict=True)):
            try:
                rows.append(self._predict_row(number, pre, post))
            except InputError as error:
                raise _refusal(str(error)) from error
        return pd.DataFrame(rows, columns=SIGNATURE.outputs.input_names())

    def _predict_row(self, number: int, pre: Any, post: Any) -> tuple[bytes, bytes, list[dict[str, Any]]]:
        images = []
        for name, content in (("pre", pre), ("post", post)):
            if not isinstance(content, bytes) or not content:
                raise InputError(f"row {number}, {name}: is empty, expected the bytes of a PNG file.")
            if content.startswith(PNG_IN_BASE64):  # which MLflow decodes in dataframe_* alone
                content = _decode(content, f"row {number}, {name}")
            if not content.startswith(PNG):
                found = f"begins with {content[:8]!r}"
                raise InputError(f"row {number}, {name}: {found}, expected the bytes of a PNG file.")
            images.append(decode_image(content, f"row {number}, {name}", MAX_PIXELS))
        if images[0].shape != images[1].shape:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
            raise InputError(f"row {number}: pre and post are {sizes} pixels, expected one size.")
        with self.turn:
            batch = (torch.from_numpy(image.transpose(2, 0, 1).copy())[None] for image in images)
            prediction, probabilities = self.predictor.probabilities(*batch)
        localization, damage = (part[0].cpu().numpy() for part in prediction)
        grading = grade(separate(localization), probabilities.damage[0].cpu().numpy())
        return encode_png(localization), encode_png(damage), [_describe(building) for building in buildings_of(grading)]


def _decode(content: bytes, name: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise InputError(f"{name}: is no base64 ({error}), expected that of a PNG file.") from error


def _describe(building: GradedBuilding) -> dict[str, Any]:
    parts = shapely.geometry.mapping(building.polygon)["coordinates"]
    return {
        "polygons": parts if isinstance(building.polygon, shapely.MultiPolygon) else [parts],
        "grade": building.grade,
        "damage": KEYS[building.grade - 1].replace("_", "-"),
        "confidence": building.confidence,
        "area": building.area,
    }


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(DualHRNetModel())
