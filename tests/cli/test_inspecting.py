"""`floorcast token inspect` shows the claims, and whether the server accepts the token."""

import json

import pytest

from client_sdk.contract import Scope
from server.access import mint
from server.cli import main
from server.server import SystemClock

SECRET = "a secret that is long enough for all of this"
ENVIRON = {"FLOORCAST_AUTH__SECRET": SECRET}


def token(ttl_seconds: float = 60, secret: str = SECRET) -> str:
    scopes = [Scope.MARKET_READ]
    return mint(secret, subject="ann", scopes=scopes, clock=SystemClock(), ttl_seconds=ttl_seconds)


def test_valid_token_is_shown_and_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "inspect", token()], ENVIRON) == 0
    out = capsys.readouterr().out
    assert out.startswith("signed with HS256\n")
    assert "sub  ann\n" in out
    assert "scope  market:read\n" in out
    assert " UTC (in " in out
    assert out.endswith("accepted by this configuration\n")


@pytest.mark.parametrize(
    ("bad", "code"),
    [(token(ttl_seconds=-60), "auth.expired"), (token(secret="x" * 40), "auth.invalid")],
)
def test_refused_token_shows_why(bad: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "inspect", bad], ENVIRON) == 1
    assert f"({code})" in capsys.readouterr().out.splitlines()[-1]
    assert main(["token", "inspect", bad, "--json"], ENVIRON) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["claims"]["sub"], shown["refused"]["code"]) == ("ann", code)


def test_token_is_shown_without_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "inspect", token()], {}) == 0
    assert "not checked: no key is configured" in capsys.readouterr().out


def test_text_that_is_no_token_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "inspect", "abc"], ENVIRON) == 2
    assert "this is no JWT" in capsys.readouterr().err
