"""The connection to MLflow: which store it is, how long its answers are waited for, and its errors in one line.

Without MLFLOW_TRACKING_URI everything goes to `sqlite:///mlflow.db` in the working directory.
"""

import logging
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import mlflow
import mlflow.store.db.utils
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from base.access import denial
from base.errors import InputError
from base.patience import News, Patience, here

LOCAL_STORE = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"  # how addresses of a file begin
TOLD = re.compile(r"\[Errno (\d+)\] ([^:\n]+): '([^'\n]+)'")  # how an OSError of a file reads
# And an error without a number, at the end of what urllib3 says: (Caused by ProtocolError('...', OtherError('WORDS'))).
LAST_CAUSE = re.compile(r"\(Caused by .*'([^']+)'\)+$")
READ_ONLY = "attempt to write a readonly database"  # as SQLite says of a file of another account, too
# MLflow asks a server that is away eight times, which takes four minutes, and a database ten times. Here it asks twice,
# and once; who can wait asks again himself. A server that is there answers these small requests at once.
RETRIES, TIMEOUT, DATABASE_ATTEMPTS = 1, 10, 1  # TIMEOUT in seconds
MLFLOW_RETRIES, MLFLOW_TIMEOUT = MLFLOW_HTTP_REQUEST_MAX_RETRIES.default, MLFLOW_HTTP_REQUEST_TIMEOUT.default
MLFLOW_DATABASE_ATTEMPTS = mlflow.store.db.utils.MAX_RETRY_COUNT
# People see at once that MLflow is away, and run the command again; nobody does that in a cluster.
PATIENCE = Patience(away=0, longest_pause=10)
# Answers of MLflow itself that stay the same however often it is asked. A plain 404 is not among them
# (ENDPOINT_NOT_FOUND): that is how some proxies answer while the server behind them starts.
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "INVALID_STATE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
}
# A new sqlite store reports its every migration, one that cannot be written prints ten lines before they are an
# error of ours, and each download draws bars of its own across ours.
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# The address that MLflow prints at the end of a run has user and password in it, where MLFLOW_TRACKING_URI has.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


class TrackingError(InputError):
    """MLflow has not what was asked for."""


class AwayError(TrackingError):
    """MLflow cannot be reached, or cannot answer at the moment."""


@cache
def client() -> MlflowClient:
    """The client of the store that MLFLOW_TRACKING_URI names, else of the local one.

    Raises TrackingError, which does not repeat the address, for one that cannot be taken apart.
    """
    if not (address := os.environ.get("MLFLOW_TRACKING_URI")):
        mlflow.set_tracking_uri(LOCAL_STORE)
        _make_file(LOCAL_STORE)
    else:
        _make_file(address)
        try:
            _ = urlsplit(address).port
        except ValueError as error:
            raise TrackingError(
                "MLFLOW_TRACKING_URI: its host or port cannot be read, expected SCHEME://[USER:PASSWORD@]HOST[:PORT], "
                f"special characters of the password as %XX. Correct it; without it runs go to {LOCAL_STORE}."
            ) from error
    return MlflowClient()


def _make_file(address: str) -> None:
    """Makes the file of a new SQLite store with the mode that the umask gives; SQLite makes it 0644 at most."""
    if address.startswith(SQLITE):
        with suppress(OSError):  # of which MLflow tells when it opens the file
            Path(address.removeprefix(SQLITE).partition("?")[0]).touch()


def store() -> str:
    """The tracking URI as it may be printed: without user and password, which a database takes as options, too."""
    return re.sub(r"//[^/]*@", "//", str(mlflow.get_tracking_uri()).partition("?")[0])


@contextmanager
def impatience() -> Iterator[None]:
    """Requests of the block are answered, or fail, within seconds."""
    # The defaults, which are this process's own: a variable in the environment would reach its children. One that the
    # user set goes before both.
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.default, MLFLOW_HTTP_REQUEST_TIMEOUT.default = RETRIES, TIMEOUT
    mlflow.store.db.utils.MAX_RETRY_COUNT = DATABASE_ATTEMPTS
    try:
        yield
    finally:
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.default, MLFLOW_HTTP_REQUEST_TIMEOUT.default = MLFLOW_RETRIES, MLFLOW_TIMEOUT
        mlflow.store.db.utils.MAX_RETRY_COUNT = MLFLOW_DATABASE_ATTEMPTS


@contextmanager
def asking(remedy: str = "") -> Iterator[None]:
    """Turns what MLflow raises in the block into an error in one line.

    remedy: what to do about an answer that stays the same. Raises TrackingError for such an answer, AwayError where
    asking later may help.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, PermissionError) as error:
        if refused := refusal(error):
            raise TrackingError(refused) from error
        if is_final(error):
            raise TrackingError(f"{store()}: {reason(error)}. {remedy}".rstrip()) from error
        raise AwayError(f"{store()}: MLflow does not answer there ({reason(error)}). {_advice()}") from error


def patiently(remedy: str = "", is_quick: bool = True) -> Callable[[Callable[Given, Answer]], Callable[Given, Answer]]:
    """A function that asks MLflow, and can be called again without harm, is called again while MLflow is away, if
    patience was asked for.

    remedy: as of `asking`. is_quick: its requests are answered within seconds; else MLflow's own patience comes first.
    The function raises what `asking` raises.
    """

    def decorate(ask: Callable[Given, Answer]) -> Callable[Given, Answer]:
        @wraps(ask)
        def patient(*given: Given.args, **named: Given.kwargs) -> Answer:
            def attempt() -> Answer:
                with asking(remedy), impatience() if is_quick else nullcontext():
                    return ask(*given, **named)

            return here(PATIENCE).wait_out(
                attempt,
                lambda error: isinstance(error, AwayError),
                f"MLflow at {store()}",
                lambda error: reason(error.__cause__ or error),
                News(),
            )

        return patient

    return decorate


@patiently()
def reach() -> None:
    """Asks the store a small question; raises AwayError where it is away, before something long."""
    client().search_experiments(max_results=1)


def is_final(error: Exception) -> bool:
    """Whether asking again would bring the same error: an answer of MLflow, a database that is not supported, or a file
    that belongs to another account.
    """
    code = getattr(error, "error_code", None)
    return isinstance(error, ImportError | ArgumentError) or code in FINAL or bool(refusal(error))


def refusal(error: BaseException) -> str:
    """Which file or folder of the store this account may not read or write, and the remedy; empty for other errors."""
    for cause in _causes(error):
        if isinstance(cause, PermissionError) and isinstance(cause.filename, str):
            path = Path(cause.filename)
            found = denial(path) or denial(path, writing=True)
            return f"{path}: {found or f'{cause.strerror}. Have its rights changed.'}"
        if isinstance(cause, DBAPIError) and READ_ONLY in str(cause.orig):
            path = Path(store().removeprefix(SQLITE))
            found = denial(path, writing=True)
            remedy = "or set MLFLOW_TRACKING_URI to a store of your own"
            return f"{path}: cannot be written ({cause.orig}). It {found or 'lies on a read-only disk'}, {remedy}."
    return ""


def reason(error: BaseException) -> str:
    """What went wrong, in a few words: MLflow wraps an error of a disk, a network or a database four times, each time
    in a longer text, of which the first line need not say it.
    """
    text = str(error).removeprefix(f"{getattr(error, 'error_code', None)}: ")
    for cause in _causes(error):
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if "IncompleteRead(" in str(cause):  # of the server's answer, as where it is killed while it sends
            return "the answer broke off"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, DBAPIError):
            text = str(cause.orig)
            break
    if told := LAST_CAUSE.search(text):
        return told[1]
    first = next(iter(text.splitlines()), type(error).__name__)
    return textwrap.shorten(first, 200, placeholder=" ...").rstrip(".")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it, also what MLflow tells of only in the text of its own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        if told := TOLD.search(str(cause)):
            yield OSError(int(told[1]), told[2], told[3])
        cause = cause.__cause__ or cause.__context__


def _advice() -> str:
    if store() != LOCAL_STORE:
        return f"Start its server or correct MLFLOW_TRACKING_URI; without it runs go to {LOCAL_STORE}."
    return (
        f"This is the file mlflow.db in {os.getcwd()}, which is taken without MLFLOW_TRACKING_URI. Set that to the "
        "address of a server, or work in a folder that can be written to."
    )
