"""Whom pods trust beside the public authorities: a config map with `ca.crt`, for MLflow or S3 with its own certificate.

The file is in every pod of a run, and the variables of MLflow and S3 name it. A variable that names another file helps
only where the image has that file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.cluster.job import JobError
from components.params import ClusterParams

KEY = "ca.crt"  # of the config map
FOLDER = "/etc/dual-hrnet"
FILE = f"{FOLDER}/{KEY}"
VARIABLES = dict.fromkeys(("MLFLOW_TRACKING_SERVER_CERT_PATH", "AWS_CA_BUNDLE"), FILE)
# And what other libraries read.
ALL = (*VARIABLES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
REMEDY = f"Put the certificates as {KEY} into a config map, and name that in cluster.certificates"


def mount(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume and mount of the config map of that name, as a pod has them."""
    volume = {"name": "certificates", "configMap": {"name": name}}
    return volume, {"name": "certificates", "mountPath": FOLDER, "readOnly": True}


def check_variables(cluster: ClusterParams) -> None:
    """Raises JobError where a variable names the file of a config map that the section does not name."""
    for name in ALL:
        path = cluster.environment.get(name, "")
        if cluster.certificates is None and path.startswith(f"{FOLDER}/"):
            raise JobError(f"cluster.environment.{name}: found {path}, but cluster.certificates is null. {REMEDY}.")


def check_files(environment: Mapping[str, str]) -> None:
    """Raises JobError where a variable of `cluster.environment` names a file that pods do not have.

    Call it in a pod that has their image and volumes.
    """
    for name in ALL:
        path = environment.get(name)
        if path and not Path(path).exists():
            raise JobError(
                f"cluster.environment.{name}: names {path}, which pods of this image do not have. {REMEDY}; the pods "
                f"have it as {FILE} then."
            )
