"""Where steps read prepared scenes: one location, or several that were prepared apart and are read as one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from base.errors import InputError
from components.storage.locations import Location, local_input


@contextmanager
def local_scenes(locations: Location | Sequence[Location]) -> Iterator[Path]:
    """Gives the folder of a prepared data set: of one location, or of the scenes of all of them.

    Raises StorageError, and SceneError where the locations cannot be read as one. InputErrors of the block name the
    locations.
    """
    from xbd.union import unite

    several = [locations] if isinstance(locations, str | Path) else locations
    with ExitStack() as stack:
        parts = [stack.enter_context(local_input(location)) for location in several]
        if len(parts) == 1:
            yield parts[0]
            return
        folder = Path(stack.enter_context(TemporaryDirectory()))
        unite(parts, folder)
        try:
            yield folder
        except InputError as error:
            error.args = (str(error).replace(str(folder), f"[{' '.join(map(str, several))}]"),)
            raise
