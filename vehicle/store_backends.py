"""Where a model store keeps its objects: a folder, or any server that speaks S3.

Both put an object whole or not at all. S3 goes through obstore: one wheel of 15 MB without dependencies, where s3fs
would bring botocore, aiohttp and an event loop's thread of its own. It is imported only when an address asks for it, so
that a car without the extra ``scale`` misses nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from calibration.durable import write_durably
from vehicle.errors import StoreError

T = TypeVar("T")

CONNECT_TIMEOUT_S = 3.0
# Of one request. A checkpoint of 3 MB at 25 kB/s; what hangs for longer is asked anew.
REQUEST_TIMEOUT_S = 120.0
_ENVIRONMENT = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL where it is not Amazon's"


class Backend(Protocol):
    """Objects by name, ``a/b/c``. Each method raises StoreError."""

    def get(self, name: str) -> bytes:
        """The object. Fault ``missing`` where there is none."""

    def put(self, name: str, data: bytes) -> None:
        """Write it, whole or not at all."""

    def list(self, prefix: str) -> list[str]:
        """The names that begin with the folder ``prefix``, ``objects`` for instance."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove them; one that is not there is no error."""

    def abandon(self) -> None:
        """End a request that is under way in another thread, and refuse further ones."""


class FolderBackend:
    """Objects as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError as error:
            raise _missing(f"{self._folder}/{name}") from error
        except OSError as error:
            raise self._refused(error) from error

    def put(self, name: str, data: bytes) -> None:
        target = self._folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)
        except OSError as error:
            raise self._refused(error) from error

    def list(self, prefix: str) -> list[str]:
        try:
            files = [path for path in (self._folder / prefix).rglob("*") if path.is_file()]
        except OSError as error:
            raise self._refused(error) from error
        return [str(path.relative_to(self._folder)) for path in files if not path.name.startswith(".")]

    def delete(self, names: Sequence[str]) -> None:
        try:
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from error

    def abandon(self) -> None:
        """A folder does not keep anybody waiting."""

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            "refused",
            f"the store {self._folder} cannot be used: {error.strerror or error}",
            cause="a full disk, or a folder without permission",
            next_step="make room, or give another --store",
        )


class S3Backend:
    """Objects of a bucket below a prefix, at the endpoint that the environment names."""

    def __init__(self, bucket: str, prefix: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise StoreError(
                "not_installed",
                "an s3:// address needs obstore, which is not installed",
                cause="the base install is the car's; S3 is an extra",
                next_step="pip install 'hotlap[scale]'",
            ) from error
        self._obstore, self._where = obstore, f"s3://{bucket}"
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._work: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._abandoned = False
        options: dict[str, Any] = {"endpoint": self._endpoint} if self._endpoint else {}
        try:
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                client_options={
                    "allow_http": self._endpoint.startswith("http://"),
                    "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                    "timeout": timedelta(seconds=timeout_s),
                },
                retry_config={
                    "max_retries": 3,
                    "retry_timeout": timedelta(seconds=5),
                    "backoff": {
                        "init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 2,
                    },
                },
                **options,
            )  # fmt: skip
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise StoreError(
                "bad_address", f"{self._where}: {_first_line(error)}", next_step=f"check {_ENVIRONMENT}"
            ) from error

    def get(self, name: str) -> bytes:
        async def work() -> bytes:
            answer = await self._obstore.get_async(self._store, name)
            return bytes(await answer.bytes_async())

        return self._ask(work, name)

    def put(self, name: str, data: bytes) -> None:
        # One request: an object in parts that nobody completes would stay in the bucket, unseen and paid for.
        self._ask(lambda: self._obstore.put_async(self._store, name, data, use_multipart=False), name)

    def list(self, prefix: str) -> list[str]:
        async def work() -> list[str]:
            return [str(meta["path"]) async for page in self._obstore.list(self._store, prefix) for meta in page]

        return self._ask(work, prefix)

    def delete(self, names: Sequence[str]) -> None:
        async def work() -> None:
            for name in names:
                await self._obstore.delete_async(self._store, name)

        self._ask(work, names[0] if names else "")

    def abandon(self) -> None:
        self._abandoned = True
        if self._work is not None:
            loop, task = self._work
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:
                pass  # it was over in this moment

    def _ask(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run requests to their end. On a loop of their own, so that `abandon` can end them from another thread."""

        async def work() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._work = asyncio.get_running_loop(), task
            if self._abandoned:
                raise asyncio.CancelledError
            return await make()

        try:
            return asyncio.run(work())
        except asyncio.CancelledError:
            raise StoreError("abandoned", f"{self._where}: not waited for any longer") from None
        except (OSError, self._obstore.exceptions.BaseError) as error:
            raise self._error(error, name) from error
        finally:
            self._work = None

    def _error(self, error: Exception, name: str) -> StoreError:
        """What went wrong, from the words of the server's answer."""
        text = str(error)
        exceptions = self._obstore.exceptions
        server = self._endpoint or "Amazon S3"
        if "NoSuchBucket" in text:
            return StoreError(
                "no_bucket",
                f"there is no bucket {self._where} at {server}",
                cause="a misspelled name, another endpoint or region, or a bucket that nobody made yet",
                next_step=f"aws s3 mb {self._where}, or the same on your server's own page",
            )
        if isinstance(error, FileNotFoundError):
            return _missing(f"{self._where}: {name}")
        denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        # 169.254.169.254 is asked for credentials where the environment has none.
        if isinstance(error, denied) or any(word in text for word in _DENIED):
            return StoreError(
                "denied",
                f"{server} does not let us into {self._where}: {_reason(text)}",
                cause="no credentials, wrong or expired ones, or ones that may not read and write there",
                next_step=f"check {_ENVIRONMENT}",
            )
        if "error sending request" in text or "Server returned" not in text:
            return StoreError(
                "unreachable",
                f"{server} does not answer: {_first_line(error)}",
                cause="the server is down, or AWS_ENDPOINT_URL names another machine or port",
                next_step=f"curl -I {self._endpoint or 'https://s3.amazonaws.com'}",
            )
        return StoreError("refused", f"{server} refuses {self._where}: {_reason(text)}", next_step="see its log")


_DENIED = (
    "169.254.169.254", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken",
    "InvalidClientTokenId", "RequestTimeTooSkewed", "403 Forbidden",
)  # fmt: skip


def _missing(what: str) -> StoreError:
    return StoreError("missing", f"{what} is not there", cause="a wrong address, or it was never published")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


def _reason(text: str) -> str:
    """The server's own code and words, where it gave some: S3 answers ``<Code>A</Code><Message>B</Message>``."""
    if "169.254.169.254" in text:
        return "there are no credentials in the environment"
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    message = text.partition("<Message>")[2].partition("</Message>")[0]
    return f"{code}: {message}"[:300] if code else text.partition("\n")[0][:300]
