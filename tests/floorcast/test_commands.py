"""The command `floorcast` offers the server's commands and those of the client together."""

import gc
import subprocess

import pytest

from floorcast.command import full_parser, main

COMMANDS = (
    *("serve", "init", "token", "check", "contract", "backup", "import"),
    *("tail", "top", "publish", "inspect", "record", "replay", "bench", "completion"),
)


def test_command_alone_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: floorcast")
    assert all(f"\n    {each}" in out for each in COMMANDS)


def test_command_runs_with_the_collector_on() -> None:
    assert main([]) == 0
    assert gc.isenabled()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        full_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: floorcast {command}" in capsys.readouterr().out


def test_completion_is_a_script_that_bash_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "record" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_token_of_the_environment_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOORCAST_URL", "http://localhost:8000")
    monkeypatch.setenv("FLOORCAST_TOKEN", "abc")
    monkeypatch.setenv("FLOORCAST_AUTH__SECRET", "s" * 32)
    assert main(["check"]) == 0
    assert "abc" not in capsys.readouterr().out


def test_wrong_json_is_refused_with_its_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["publish", "PRICE:A", '{"bid":']) == 2
    assert "the data is not valid JSON: Expecting value: line 1" in capsys.readouterr().err
    assert main(["publish", "PRICE:A", "[]"]) == 2
    assert "must be a JSON object" in capsys.readouterr().err


def test_request_is_shown_as_curl_without_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["publish", "PRICE:A", '{"last": "it\'s"}', "--id", "1", "--token", "abc", "--curl"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "abc" not in out
    assert "'Content-Type: application/json'" in out
    shown = subprocess.run(
        ["bash", "-c", 'curl() { printf "%s\\n" "$@"; }; eval "$1"', "-", out],
        env={"FLOORCAST_TOKEN": "the token"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "Authorization: Bearer the token" in shown
    assert '{"messages": [{"topic": "PRICE:A", "data": {"last": "it\'s"}, "id": "1"}]}' in shown
    assert shown[-1] == "http://127.0.0.1:8000/api/v1/publish"
