"""`python -m components.pytorchjob`: training as a job in a cluster, of the kind that the section `cluster` names."""

import json
import signal
import sys
from collections.abc import Sequence

from base.errors import Preempted
from components.cli import errors_in_one_line, read_params, step_parser
from components.cluster.check import check
from components.cluster.choose import of_kind
from components.cluster.job import TrainingJob
from components.cluster.launcher import launch, train_arguments
from components.storage.locations import LOCATIONS


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the launcher."""
    import yaml

    parser = step_parser("pytorchjob", __doc__)
    parser.epilog = f"{LOCATIONS} The pods of the job see no paths of this machine."
    parser.add_argument("--name", required=True, help="of the job; another one for each run")
    parser.add_argument("--image", required=True, help="of this project, by its digest")
    parser.add_argument("--data", required=True, nargs="+", metavar="LOCATION", help="prepared scenes")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the model is written to LOCATION/model")
    parser.add_argument("--namespace", default="default", help="of Kubernetes")
    parser.add_argument("--dry-run", action="store_true", help="print the manifests and create nothing")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        params = read_params(arguments)
        check(params)
        job = TrainingJob(
            name=arguments.name,
            namespace=arguments.namespace,
            image=arguments.image,
            arguments=train_arguments(params, arguments.data, arguments.out),
            output=arguments.out,
            cluster=params.cluster,
        )
        if arguments.dry_run:
            backend = of_kind(params.cluster.kind)
            backend.check(job)
            # Through JSON, because YAML would write what is the same in two places as an anchor.
            manifests = [json.loads(json.dumps(manifest)) for manifest in backend.manifests(job)]
            print(yaml.safe_dump_all(manifests, sort_keys=False), end="")
            return
        try:
            finished = launch(job)
        except Preempted as error:
            print(error, file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
    print(f"{finished.namespace}/{finished.name} succeeded: {finished.created} to {finished.ended}")
