"""A real S3 server for tests: moto behind HTTP, in a process of its own that can be killed and started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from types import TracebackType
from typing import Any

REGION = "us-east-1"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class S3Server:
    """It keeps its objects in memory: one that is killed and started again has lost everything."""

    def __init__(self, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for whoever started it
        )  # fmt: skip
        until_s = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, "moto's server has ended; is moto[s3] installed?"
                assert time.monotonic() < until_s, "moto's server does not answer"
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def variables(self, key: str = "test-key", secret: str = "test-secret") -> dict[str, str]:
        """What a client's environment needs."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": REGION,
        }  # fmt: skip

    def client(self, service: str = "s3", key: str = "test-key", secret: str = "test-secret") -> Any:
        """Amazon's own client, which shares no code with ours. To be closed."""
        import boto3

        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret
        )

    def make_bucket(self, name: str = "laps") -> None:
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
