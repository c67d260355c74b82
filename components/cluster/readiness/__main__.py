"""`python -m components.cluster.readiness`: asks a cluster, before the first run, whether it has what a run needs.

Prints a line for each thing, ✓, ✗ or, where the API does not let you ask, ?; below each ✗ what to do. Ends with 1 where
something is missing. It changes nothing.
"""

import re
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from base.errors import InputError
from components.cli import errors_in_one_line, read_params, step_parser
from components.cluster.api import Api, JobPatience
from components.cluster.job import JobError
from components.cluster.readiness.findings import Finding, ask_service, look
from components.params import ClusterParams
from components.storage.s3 import StorageError, Store

MARKS = {True: "✓", False: "✗", None: "?"}
IN_CLUSTER = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)(\.svc(\.cluster\.local)?)?")
SECONDS = 10  # for an answer


class NotReadyError(InputError):
    """Something that a run needs is missing."""


def find(
    api: Api, cluster: ClusterParams, account: str | None, locations: Sequence[str], mlflow_uri: str | None
) -> Iterator[Finding]:
    """One finding after the other. account: as of `look`. locations: S3, asked from here by the keys that are here.

    Raises JobError where the Kubernetes API cannot be reached.
    """
    yield from look(api, cluster, account)
    for location in locations:
        yield _storage(location)
    if mlflow_uri is not None:
        yield _mlflow(api, mlflow_uri)


def report(findings: Iterable[Finding]) -> None:
    """Prints the findings as they come; raises NotReadyError where something is missing."""
    missing = 0
    for finding in findings:
        print(f"{MARKS[finding.holds]} {finding.what:34}  {finding.found}", flush=True)
        if not finding.holds and finding.remedy:
            print(f"    {finding.remedy}", flush=True)
        missing += finding.holds is False
    if missing:
        raise NotReadyError(f"{missing} of the above are missing (✗). Mend them, and run the same command again.")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the check."""
    parser = step_parser("cluster.readiness", str(__doc__).split(": ", 1)[1])
    parser.add_argument("--namespace", default="kubeflow", metavar="NS", help="of the runs (default: %(default)s)")
    text = "of the steps (default: pipeline-runner or default-editor, whichever is there)"
    parser.add_argument("--service-account", metavar="NAME", help=text)
    text = "--root and --data-remote of submit; asked from here, by the keys that are here"
    parser.add_argument("--locations", nargs="+", default=(), metavar="URL", help=text)
    parser.add_argument("--mlflow-uri", metavar="URL", help="as of submit; a service is asked through Kubernetes")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        cluster = read_params(arguments).cluster
        api = Api(arguments.namespace, replace(JobPatience(), away=0))
        report(find(api, cluster, arguments.service_account, arguments.locations, arguments.mlflow_uri))


def _storage(location: str) -> Finding:
    try:
        Store(location).reach()
    except StorageError as error:
        return Finding("S3", False, str(error))
    return Finding("S3", True, f"{location} can be listed from here")


def _mlflow(api: Api, uri: str) -> Finding:
    """A service of the cluster is asked through the Kubernetes API, any other address from here."""
    way = "asked from here"
    remedy = "kubectl -n dual-hrnet get pods, and the logs of deployment/mlflow; or correct --mlflow-uri."
    try:
        address = urlsplit(uri)
        service = IN_CLUSTER.fullmatch(address.hostname or "")
        if service and api.read(f"/api/v1/namespaces/{service[2]}/services/{service[1]}") is not None:
            way, path = "as a service of the cluster", f"{address.path.rstrip('/')}/version"
            version = ask_service(api, service[1], service[2], address.port or 80, path)
        else:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=SECONDS) as answer:
                version = answer.read(100).decode(errors="replace").strip()
    except JobError as error:
        return Finding("MLflow", False, str(error), remedy)
    except (OSError, ValueError) as error:  # urllib's own are OSErrors
        return Finding("MLflow", False, f"{error}, {way}", remedy)
    if not re.fullmatch(r"\d+\.\d+\S*", version):
        return Finding("MLflow", False, f"answers {version[:40]!r}, expected its version, {way}", remedy)
    return Finding("MLflow", True, f"{version}, {way}")


if __name__ == "__main__":
    main()
