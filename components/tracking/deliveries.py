"""The runs of maps that were delivered: what a map's numbers are, and where it is."""

import hashlib
import json
import time
from collections.abc import Mapping

from mlflow.entities import Metric, RunTag

from components.tracking.connection import client, patiently
from components.tracking.records import File, Record, send
from components.tracking.runs import REMEDY, begin_run

DELIVERY = "delivery"  # tag: what tells a delivery from others
_LONGEST = 5000  # characters of a tag, of MLflow


@patiently(REMEDY)
def record_delivery(
    experiment: str, name: str, tags: Mapping[str, str], numbers: Mapping[str, float], files: Mapping[str, bytes]
) -> str:
    """Records a delivery in a run of the experiment, and returns its id: the run that has the same tags and numbers,
    where there is one from an attempt before. files: small ones that the run keeps.

    Raises TrackingError.
    """
    content = [dict(tags), dict(numbers)]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    run = begin_run(experiment, DELIVERY, key, name)
    now = int(time.time() * 1000)
    records: list[Record] = [
        *(
            RunTag(tag, value if len(value) <= _LONGEST else f"{value[: _LONGEST - 4]} ...")
            for tag, value in tags.items()
        ),
        *(Metric(metric, value, now, 0) for metric, value in numbers.items()),
        *(File(file, value) for file, value in files.items()),
    ]
    send(run, records)
    client().set_terminated(run)
    return run
