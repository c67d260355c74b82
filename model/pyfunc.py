"""The registered model: rows of encoded image pairs in, encoded masks out. MLflow loads this file as code, so that
nothing is pickled.
"""

from typing import Any

import mlflow
import pandas as pd
import torch

from model.inference import Predictor, load_model
from xbd.images import decode_image, encode_png


class DualHRNetModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Columns pre and post (bytes of an image file) to localization and damage (bytes of a PNG, 0-4)."""

    def load_context(self, context: Any) -> None:
        """Loads the model directory that was logged as the artifact "model"."""
        self.predictor = Predictor(load_model(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predicts each row on its own, because the pairs may differ in size.

        Raises ImageError or ValueError for an image that cannot be decoded, or sizes that differ.
        """
        rows = []
        for number, (pre, post) in enumerate(zip(model_input["pre"], model_input["post"], strict=True)):
            images = (decode_image(content, f"row {number}") for content in (pre, post))
            batch = (torch.from_numpy(image.transpose(2, 0, 1).copy())[None] for image in images)
            localization, damage = self.predictor(*batch)
            rows.append((encode_png(localization[0].numpy()), encode_png(damage[0].numpy())))
        return pd.DataFrame(rows, columns=["localization", "damage"])


mlflow.models.set_model(DualHRNetModel())
