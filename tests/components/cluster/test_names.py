"""Names of the jobs of the pipeline's step `train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.kubeflow import tasks
from components.kubeflow.sections import defaults_of
from components.kubeflow.steps import NEEDS
from components.params import load_params
from tests.paths import ROOT


@dataclass
class Part:
    """An artifact of Kubeflow."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)


def test_another_root_or_image_has_another_job_and_the_same_training_the_same_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's content has both: under one name the second run would find the job of the first, and be refused."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        tasks, "train_in_cluster", lambda name, image, params, data, out, raw_version: asked.append((name, str(out)))
    )
    params = load_params(ROOT / "params.yaml")
    sections = {name: defaults_of(params, NEEDS)[name] for name in ("prepare", "train", "tracking", "cluster")}
    part = Part("", {"source": "train", "version": "1a/train", "location": "s3://data/prepared/1a/train"})
    for root, image in (("s3://a", "i:1"), ("s3://b", "i:1"), ("s3://a", "i:2"), ("s3://a", "i:1")):
        tasks.train([part], root, sections, "", image, Part(str(tmp_path / "model")))
    names, outputs = zip(*asked, strict=True)
    assert names[0] == names[3]
    assert len(set(names)) == 3
    assert [output.removeprefix("s3://b").removeprefix("s3://a") for output in outputs] == [outputs[0][6:]] * 4
    for name in names:
        assert len(name) <= 46  # of every kind of job
