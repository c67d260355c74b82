"""Times as people and files give them."""

from datetime import UTC, datetime

from base.errors import InputError


def read_time(option: str, text: str) -> datetime:
    """A time by ISO 8601, without a zone in UTC; raises InputError, which names the option."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option}: found {text!r:.60}, expected a time by ISO 8601, such as 2018-10-13T16:48:00Z. Correct it."
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def rfc3339(time: datetime) -> str:
    """The time to the second in UTC, by RFC 3339."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
