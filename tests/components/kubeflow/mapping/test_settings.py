"""Reading and windows as a form of Kubeflow gives them, where numbers are floats and null is a word."""

from typing import Any

import pytest

from base.errors import InputError
from components.kubeflow.mapping.settings import settings_of, to_kubeflow
from imagery.settings import Reading, Windows


def test_settings_come_back_as_they_were_given() -> None:
    given = {"bands": (None, (3, 2, 1)), "nodata": (0.0,), "resample_to": 0.5}
    sent = to_kubeflow(given)
    assert sent == {"bands": ["null", [3, 2, 1]], "nodata": [0.0], "resample_to": 0.5}
    assert settings_of(Reading, "reading", sent) == Reading(bands=[None, (3, 2, 1)], nodata=[0.0], resample_to=0.5)
    assert settings_of(Windows, "windows", {"tile": 512.0, "workers": 0.0}) == Windows(tile=512, workers=0)
    assert settings_of(Windows, "windows", {}) == Windows()


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (Windows, {"tlie": 512}, r"^x\.tlie: is no setting, expected one of tile, overlap, batch, workers"),
        (Windows, {"tile": "large"}, r"^x\.tile: found 'large'"),
        (Windows, {"tile": 100}, r"--tile, --overlap: found 100 and 256, expected multiples of 32"),
        (Reading, {"bands": "3,2,1"}, r"^x\.bands: found '3,2,1'"),
        (Reading, {"value_range": [1]}, r"^x\.value_range"),
    ],
)
def test_what_is_no_setting_is_one_line(kind: Any, given: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        settings_of(kind, "x", given)
    assert "\n" not in str(caught.value)
