"""What the Kubernetes API answers when it does not do what it is asked, in one line, and whether to ask again."""

import json


def failures() -> tuple[type[Exception], ...]:
    """What requests raise: an answer of the API that is an error, or none."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    return ApiException, HTTPError


def http_status(error: Exception) -> int:
    """The HTTP status; 0 without an answer."""
    return int(getattr(error, "status", None) or 0)


def may_pass(error: Exception) -> bool:
    """Whether the same request may have another answer later."""
    if not http_status(error):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return http_status(error) == 429 or http_status(error) >= 500


def retry_after(error: Exception) -> float:
    """Seconds that the server asked to wait; 0 if it did not."""
    value = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def words(error: Exception) -> str:
    """The API's own words where it answered, else the network's."""
    if not http_status(error):
        return one_line(str(error))
    try:
        message = json.loads(getattr(error, "body", None) or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = getattr(error, "reason", "")
    return f"{one_line(str(message))} (HTTP {http_status(error)})"


def one_line(text: str) -> str:
    """The text as part of a sentence."""
    return " ".join(text.split()).rstrip(".")
