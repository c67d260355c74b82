"""Where the network of a prediction comes from, and the model of an event over it: a folder, S3, or the registry."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from base.errors import InputError
from components.events.names import EVENTS, EventError
from components.storage.locations import Location, errors_name_location, local_input
from imagery.adapting.names import MODEL_FILES

if TYPE_CHECKING:
    from imagery.formats.stac import MadeBy
    from imagery.give.event import Event


class Source(NamedTuple):
    """directory: of the network, on this machine; location: where that is, of a registered model the version; address:
    of the directory itself, of a registered model within the version; event: the model of an event that was asked for,
    None where it was the network; fetched: the location that the directory came from, which is that of the event's
    version or folder where the network lies in it.
    """

    directory: Path
    location: str
    address: str
    event: "Event | None"
    fetched: str


@contextmanager
def local_source(model: Location) -> Iterator[Source]:
    """Gives the network of a location or of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, and the
    event's model where one lies there; copies are gone in the end.

    An event's model without a network beside it, as assess leaves one, names the location of its network.
    Raises StorageError, TrackingError, EventModelError, EventError.
    """
    with ExitStack() as stack:
        directory, location, address = stack.enter_context(_local(model))
        is_registered = location.startswith(f"models:/{EVENTS}/")
        if not is_registered and not any((directory / name).exists() for name in MODEL_FILES):
            yield Source(directory, location, address, None, location)
            return
        from imagery.give.event import read_event
        from model.inference import CONFIG, WEIGHTS

        event = read_event(directory, location.removeprefix("models:/") if is_registered else None)
        if is_registered or (directory / CONFIG).exists():
            yield Source(directory, event.base or location, address, event, location)
            return
        try:
            network, location, address = stack.enter_context(_local(event.base or "no location"))
            found = "has no network" if not (network / CONFIG).exists() else ""
        except InputError as error:
            found = str(error)
        if found:
            raise EventError(
                f"{directory / MODEL_FILES[0]}: was learned over the network of {event.base or 'an unknown location'}, "
                f"which cannot be had ({found}). Bring it back, or lay its {CONFIG} and {WEIGHTS} beside this file."
            )
        yield Source(network, location, address, event, location)


def describe_source(model: Location) -> "MadeBy":
    """The model of a map that was made, with its STAC item; one that is gone since has none, which is said."""
    from imagery.formats.stac import MadeBy, read_made_by

    try:
        with local_source(model) as source:
            return read_made_by(source.directory, source.location, source.address)
    except InputError as error:
        print(f"warning: the STAC item links to no model: {error}", file=sys.stderr, flush=True)
        return MadeBy(str(model))


def refuse_another_network(
    place: Location, found: str, expected: str, remedy: str = "Assess a map of the network that is there."
) -> None:
    """Raises EventError where the network at a place is not the expected one. found, expected: what tells networks
    apart, by `imagery.predict.inference.identity_of`.
    """
    if found != expected:
        raise EventError(
            f"{place}: found the network {found[:12]}, expected {expected[:12]}, over which the event's model was "
            f"learned. {remedy}"
        )


@contextmanager
def _local(model: Location) -> Iterator[tuple[Path, str, str]]:
    """A folder on this machine, its location, of a registered model the version, and its own address."""
    if not str(model).startswith("models:/"):
        with local_input(model) as directory:
            yield directory, str(model), str(model).rstrip("/")
        return
    from components.tracking import registry

    uri = registry.exact_uri(str(model))
    with TemporaryDirectory(prefix="model-") as folder:
        directory = registry.download_model(uri, Path(folder))
        with errors_name_location(directory, uri):
            yield directory, uri, "/".join([uri, *directory.relative_to(folder).parts])
