"""Kubeflow with users: the cookie of a browser that is logged in, and answers that are a login page in its place.

In front of Kubeflow stand Istio and oauth2-proxy, with dex or another provider behind them. None of them answers as
Kubeflow's API does. Sources: https://oauth2-proxy.github.io/oauth2-proxy/behaviour, https://dexidp.io/docs, and
https://istio.io/latest/docs/reference/config/security for the words of Istio.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from base.errors import InputError

REMEDY = "Log in: give --token, or --cookie of a browser that is logged in."
PLACES = re.compile(r"/dex/|/oauth2/|/realms/|/saml|\b(log-?in|sign-?in|auth|authorize|sso)\b", re.IGNORECASE)
WORDS = re.compile(r"\blog ?in\b|\bsign ?in\b|oauth2|type=.?password", re.IGNORECASE)
ISTIO = re.compile(r"^\s*(RBAC: access denied|Jwt .*)", re.IGNORECASE)


class LoginError(InputError):
    """A cookie cannot be used."""


def wanted(status: int, headers: Mapping[str, str], body: object) -> str | None:
    """Where or how a login is asked for, None where this is no such answer. Says nothing of what may be secret."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    place = headers.get("Location", headers.get("location", "")).partition("?")[0]
    if 300 <= status < 400:
        return f"leads to {place}" if PLACES.search(place) else None
    if status in (401, 403) and (found := ISTIO.match(text)):
        return f"says: {found[1].strip()}"
    is_page = bool(re.match(r"\s*<(!doctype html|html|head|body)", text, re.IGNORECASE))
    if is_page and (status in (401, 403) or (status == 200 and WORDS.search(text))):
        return "answers with a login page"
    return None


def read_cookie(given: str) -> str:
    """The cookies, NAME=VALUE, that the option --cookie gives, itself or in the file that it names; raises LoginError,
    which does not repeat them.
    """
    if "=" not in given:
        try:
            given = Path(given).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoginError(
                "--cookie: is neither NAME=VALUE nor a file with that. Copy it from the browser."
            ) from error
    if not re.fullmatch(r"[^\s=;]+=[ -~]*", given):
        raise LoginError("--cookie: is no cookie, expected NAME=VALUE. Copy it from the browser again.")
    return given
