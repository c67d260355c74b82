"""A Kubeflow with users: what stands in front of it answers in its own words, and they become one line."""

from pathlib import Path

import pytest

import pipeline
from components.kubeflow.login import wanted
from tests.conftest import exit_line
from tests.servers.kubeflow_server import KubeflowServer

PLACES = ("--root", "s3://b/r", "--data-remote", "s3://b/d", "--raw-version", "0" * 32)
# As their documentation and sources have them, shortened.
DEX = (
    "<!DOCTYPE html>\n<html><head><title>dex</title></head><body><h2>Log in to Your Account</h2>"
    '<form method="post" action="/dex/auth/local/login?state=s3cret"><input type="password"></form></body></html>'
)
OAUTH2_PROXY = (
    '<!DOCTYPE html>\n<html lang="en"><head><title>Sign In</title></head><body>'
    '<form method="GET" action="/oauth2/start"><button>Sign in with OpenID Connect</button></form></body></html>'
)
FORBIDDEN = "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1></body></html>"


def refused(server: KubeflowServer, *more: str) -> str:
    return exit_line(pipeline.main, "submit", "--host", server.url, *PLACES, *more)


@pytest.mark.parametrize(
    ("status", "location", "body", "said"),
    [
        (302, "/dex/auth?client_id=kubeflow&state=s3cret", "", "leads to /dex/auth (HTTP 302)"),
        (
            302,
            "https://k.example.org/oauth2/start?rd=s3cret",
            "",
            "leads to https://k.example.org/oauth2/start (HTTP 302)",
        ),
        (
            302,
            "https://id.example.org/realms/a/protocol/openid-connect/auth?x=s3cret",
            "",
            "/openid-connect/auth (HTTP",
        ),
        (303, "https://accounts.example.org/signin", "", "leads to https://accounts.example.org/signin (HTTP 303)"),
        (200, None, DEX, "answers with a login page (HTTP 200)"),
        (403, None, OAUTH2_PROXY, "answers with a login page (HTTP 403)"),
        (401, None, FORBIDDEN, "answers with a login page (HTTP 401)"),
        (401, None, "Jwt is expired", "says: Jwt is expired (HTTP 401)"),
        (403, None, "RBAC: access denied", "says: RBAC: access denied (HTTP 403)"),
    ],
)
def test_a_login_in_the_way_is_one_line(
    server: KubeflowServer, status: int, location: str | None, body: str, said: str
) -> None:
    server.refusal = (status, body.encode())
    server.headers = {"Location": location} if location else {}
    line = refused(server)
    assert line.startswith(f"KubeflowError: {server.url}: ")
    assert said in line
    assert line.endswith("Log in: give --token, or --cookie of a browser that is logged in.")
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b"<html>maintenance</html>"),
        (404, {}, b"<html>404 page not found</html>"),
        (308, {"Location": "https://kubeflow.example.org/"}, b""),
        (401, {}, b'{"code": 16, "message": "no user"}'),
        (403, {}, b'{"message": "User a may not list"}'),
        (503, {}, b"<html>please sign in later</html>"),
    ],
)
def test_other_answers_are_no_login(status: int, headers: dict[str, str], body: bytes) -> None:
    assert wanted(status, headers, body) is None


def test_a_login_that_ends_while_a_run_is_waited_for_is_no_outage(server: KubeflowServer) -> None:
    def log_out() -> None:
        server.refusal = (200, DEX.encode())

    server.frames = [{"state": "RUNNING"}, log_out, {"state": "RUNNING"}]
    line = refused(server, "--wait")
    assert "answers with a login page (HTTP 200)" in line
    assert "The run goes on: " in line


def test_the_cookie_of_a_browser_is_sent_and_never_said(
    server: KubeflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cookie"
    file.write_text("oauth2_proxy_kubeflow=s3cret; other=1\n")
    for given, sent in (
        ("authservice_session=s3cret", "authservice_session=s3cret"),
        (str(file), file.read_text().strip()),
    ):
        server.asked.clear()
        pipeline.main(["submit", "--host", server.url, *PLACES, "--cookie", given])
        assert {asked.cookie for asked in server.asked} == {sent}
    broken = refused(server, "--cookie", "name=s3cret\nX-Other: 1")
    assert broken.startswith("LoginError: --cookie: is no cookie, expected NAME=VALUE.")
    absent = refused(server, "--cookie", "s3cret")
    assert absent.startswith("LoginError: --cookie: is neither NAME=VALUE nor a file with that.")
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err + broken + absent
