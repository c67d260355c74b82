"""MLflow's local stores, set up beforehand: the migrations of a new one take longer than a step on the tiny data."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.store.db import utils

from components.tracking.connection import LOCAL_STORE


def ready_store(folder: Path) -> str:
    """Sees to a store in `folder`, where a command without MLFLOW_TRACKING_URI looks for it; returns its address."""
    path = folder / LOCAL_STORE.removeprefix("sqlite:///")
    if not path.exists():
        path.write_bytes(_new_store())
    return f"sqlite:///{path}"


@cache
def _new_store() -> bytes:
    """As MLflow itself sets it up, before there is an experiment in it, whose address would name a folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")  # type: ignore[no-untyped-call]
        utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()
        return path.read_bytes()
