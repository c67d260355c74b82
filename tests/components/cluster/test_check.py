"""What a training job is refused for before it has pods."""

from pathlib import Path
from typing import Any

import pytest

from base.errors import InputError
from components.cluster.check import check
from components.cluster.command import main
from components.params import load_params
from tests.commands import exit_line
from tests.paths import ROOT
from tests.tiny import write_params


@pytest.mark.parametrize("recipes", [[], *([path] for path in sorted((ROOT / "recipes").glob("*.yaml")))], ids=str)
def test_the_defaults_and_every_recipe_can_train(recipes: list[Path]) -> None:
    check(load_params(ROOT / "params.yaml", *recipes))


TRAIN = {"global_batch_size": 8, "device_batch_size": 8}


@pytest.mark.parametrize(
    ("cluster", "finding"),
    [
        # As a real cluster said only when two pods were scheduled and the data copied.
        ({"nodes": 2}, "global_batch_size: 8 is not a multiple of train.device_batch_size 8 x 2 processes"),
        ({"devices_per_node": 2}, "8 is not a multiple of train.device_batch_size 8 x 2 processes"),
        ({"nodes": 2}, "(cluster.nodes: 2, with 1 processes each"),
        ({"priority": "urgent"}, "cluster.priority: found 'urgent' without a queue"),
        ({"topology": "rack"}, "cluster.topology: found 'rack' without a queue"),
        ({"kind": "trainjob", "gang_scheduling": True}, "cluster.gang_scheduling: found true, without cluster.queue"),
        ({"kind": "trainjob", "environment": {"PET_NNODES": "2"}}, "cluster.environment.PET_NNODES: Kubeflow Trainer"),
        (
            {"environment": {"AWS_CA_BUNDLE": "/etc/dual-hrnet/ca.crt"}},
            "cluster.environment.AWS_CA_BUNDLE: found /etc",
        ),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "hush"}}, "cluster.environment.AWS_SECRET_ACCESS_KEY: holds"),
        ({"environment": {"mlflow_tracking_token": "hush"}}, "cluster.environment.mlflow_tracking_token: holds"),
        ({"environment": {"MLFLOW_TRACKING_URI": "https://me:hush@mlflow"}}, "MLFLOW_TRACKING_URI: holds a password"),
    ],
    ids=str,
)
def test_what_would_fail_in_the_pods_is_refused_before(tmp_path: Path, cluster: dict[str, Any], finding: str) -> None:
    path = write_params(tmp_path / "params.yaml", {"train": TRAIN, "cluster": cluster})
    with pytest.raises(InputError) as caught:
        check(load_params(path))
    assert finding in str(caught.value)
    assert "hush" not in str(caught.value)
    words = ["--name", "a", "--image", "i", "--data", "s3://b/d", "--out", "s3://b/o", "--dry-run"]
    assert finding in exit_line(main, "--params", path, *words)


def test_an_elastic_job_must_fit_every_number_of_nodes(tmp_path: Path) -> None:
    elastic = {"nodes": 4, "elastic_min_nodes": 2}
    train = {"global_batch_size": 32, "device_batch_size": 1}
    with pytest.raises(InputError, match=r"32 is not a multiple of .* 3 processes.*cluster.nodes: 3"):
        check(load_params(write_params(tmp_path / "params.yaml", {"train": train, "cluster": elastic})))
    train["global_batch_size"] = 24
    check(load_params(write_params(tmp_path / "params.yaml", {"train": train, "cluster": elastic})))


@pytest.mark.parametrize("name", ["AWS_WEB_IDENTITY_TOKEN_FILE", "NCCL_DEBUG", "MLFLOW_TRACKING_SERVER_CERT_PATH"])
def test_what_only_sounds_like_a_secret_is_taken(tmp_path: Path, name: str) -> None:
    settings = {"train": TRAIN, "cluster": {"environment": {name: "/var/run/it", "URL": "http://host:80/a@b"}}}
    check(load_params(write_params(tmp_path / "params.yaml", settings)))


def test_a_pipeline_that_would_spoil_the_samples_is_refused(tmp_path: Path) -> None:
    light = {"__class_fullname__": "RandomGamma", "p": 0.5}
    geometry = {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": [light]}}
    augmentation = {"geometry": geometry, "photometry": "none"}
    params = load_params(write_params(tmp_path / "params.yaml", {"train": {"augmentation": augmentation}}))
    with pytest.raises(InputError, match=r"^train\.augmentation\.geometry: found RandomGamma, which changes light"):
        check(params)
