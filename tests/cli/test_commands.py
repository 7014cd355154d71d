"""Tests the commands `token` and `check`."""

from pathlib import Path

import pytest

from client_sdk import __version__
from server.access import AccessConfig, build_verifier
from server.cli import main
from server.compiled import IS_COMPILED
from server.server import SystemClock

SECRET = "a secret that is long enough for all of this"


async def test_token_command_sets_the_claims(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--sub ann --org acme --scope market:read --ttl 60"
    globs = "--symbols BTC* --sessions job:* --users desk-*"
    assert main(["token", *flags.split(), *globs.split()], {"FLOORCAST_AUTH__SECRET": SECRET}) == 0
    token = capsys.readouterr().out.strip()
    clock = SystemClock()
    principal = await build_verifier(AccessConfig(secret=SECRET), clock).verify(token)
    assert (principal.user_id, principal.org) == ("ann", "acme")
    assert principal.scopes == {"market:read"}
    assert principal.symbols == ("BTC*",)
    assert principal.sessions == ("job:*",)
    assert principal.users == ("desk-*",)
    assert 50 < principal.expires_at - clock.time() <= 60


def test_token_command_needs_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--sub", "ann"], {}) == 2
    assert "auth.secret" in capsys.readouterr().err
    environ = {
        "FLOORCAST_AUTH__ALGORITHM": "RS256",
        "FLOORCAST_AUTH__JWKS_URL": "https://issuer.example/keys",
    }
    assert main(["token", "--sub", "ann"], environ) == 2
    assert "set auth.secret" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--sub", ""],
        ["--sub", "x" * 129],
        ["--sub", "ann", "--org", ""],
        *(["--sub", "ann", "--ttl", ttl] for ttl in ("nan", "inf", "-5", "0", "soon")),
        ["--sub", "ann", "--scope", "everything"],
    ],
)
def test_token_command_refuses_invalid_claims(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", *flags], {"FLOORCAST_AUTH__SECRET": SECRET})
    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_check_prints_settings_without_secrets(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text('[server]\nport = 9000\norigins = ["https://app.example"]\n')
    environ = {"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_SERVER__HOST": "::1"}
    assert main(["check", "--config", str(file)], environ) == 0
    out = capsys.readouterr().out
    assert "server.port = 9000" in out
    assert "server.host = ::1" in out
    assert "https://app.example" in out
    assert SECRET not in out


def test_check_prints_no_account_of_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {
        "FLOORCAST_AUTH__ALGORITHM": "RS256",
        "FLOORCAST_AUTH__JWKS_URL": "https://ann:s3cret@issuer.example/keys?key=s3cret",
        "FLOORCAST_BROKER__URL": "redis://h:6379/0?username=ann&password=s3cret",
    }
    assert main(["check"], environ) == 0
    out = capsys.readouterr().out
    assert "auth.jwks_url = https://***@issuer.example/keys?***" in out
    assert "broker.url = redis://h:6379/0?***" in out
    assert "s3cret" not in out


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FLOORCAST_AUTH__SECRET": "short"}, "at least 32 bytes"),
        ({"FLOORCAST_AUTH__ALGORITHM": "none"}, "auth.algorithm"),
        ({"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_NONSENSE": "1"}, "FLOORCAST_NONSENSE"),
        (
            {"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_SERVER__TRUSTED_PROXIES": "proxy"},
            "server.trusted_proxies",
        ),
        (
            {"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_FEED__NAME": "replay:/no/such"},
            "feed.name: ",
        ),
        (
            {"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_FEED__NAME": "pigeon"},
            "unknown feed 'pigeon'",
        ),
        ({"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_SERVER__WORKERS": "2"}, "set broker.url"),
        (
            {
                "FLOORCAST_AUTH__SECRET": SECRET,
                "FLOORCAST_SERVER__ORIGINS": "https://a.example/app",
            },
            "'https://a.example/app' can never match, because it has a path: "
            "write 'https://a.example'",
        ),
    ],
)
def test_check_prints_the_error(
    environ: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"], environ) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"], ["token", "--help"]])
def test_commands_print_their_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command, {})
    assert ended.value.code == 0
    assert "usage: floorcast" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"], {})
    assert ended.value.code == 0
    compiled = ", compiled" if IS_COMPILED else ""
    assert capsys.readouterr().out == f"floorcast {__version__}{compiled}\n"
