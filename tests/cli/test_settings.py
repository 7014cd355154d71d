"""Tests sources, precedence and validation of settings."""

from pathlib import Path

import pytest

from server.access import ConfigurationError
from server.configs import publishing_config, redis_shares
from server.settings import Settings, env_variable, load_settings, setting_names

# Settings that external programs rely on.
PROMISED = (
    "AUTH__SECRET",
    "AUTH__ALGORITHM",
    "AUTH__PUBLIC_KEY_FILE",
    "AUTH__JWKS_URL",
    "AUTH__ISSUER",
    "AUTH__AUDIENCE",
    "AUTH__MARKET_OPTIONAL",
    "AUTH__TOKEN_IN_QUERY",
    "AUTH__LEEWAY_SECONDS",
    "LIMITS__CONNECTIONS",
    "LIMITS__CONNECTIONS_PER_IP",
    "LIMITS__CONNECTIONS_PER_USER",
    "LIMITS__CONNECTS_PER_SECOND",
    "LIMITS__CONNECTS_PER_SECOND_PER_IP",
    "LIMITS__EVENTS_PER_SECOND",
    "LIMITS__EVENT_BURST",
    "LIMITS__TOPICS_PER_CONNECTION",
    "LIMITS__MESSAGE_BYTES",
    "LIMITS__JOIN_TIMEOUT_SECONDS",
    "DELIVERY__BUFFER_BYTES",
    "HISTORY__MESSAGES",
    "HISTORY__SECONDS",
    "RECOVERY__WINDOW_SECONDS",
    "PING__INTERVAL_SECONDS",
    "PING__TIMEOUT_SECONDS",
    "SESSION__GRACE_SECONDS",
    "SESSION__HISTORY__MESSAGES",
    "SESSION__HISTORY__SECONDS",
    "BROKER__URL",
    "SERVER__HOST",
    "SERVER__PORT",
    "SERVER__ORIGINS",
    "SERVER__TRUSTED_PROXIES",
    "SERVER__TRANSPORTS",
    "SERVER__WORKERS",
    "SERVER__DRAIN_SECONDS",
    "ADMIN__HOST",
    "ADMIN__PORT",
    "FEED__NAME",
)


def test_promised_settings_exist() -> None:
    assert {f"FLOORCAST_{name}" for name in PROMISED} <= {env_variable(n) for n in setting_names()}


def test_sections_have_sections_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text("[session]\nper_user = 1\n[session.history]\nmessages = 1\nseconds = 2\n")
    environ = {"FLOORCAST_SESSION__HISTORY__MESSAGES": "3"}
    flags = {"session.history.bytes": 4, "session.grace_seconds": 5}
    session = load_settings(flags=flags, environ=environ, file=file).session
    assert (session.per_user, session.grace_seconds) == (1, 5)
    history = session.history
    assert (history.messages, history.seconds, history.bytes) == (3, 2, 4)
    assert (Settings().session.history.messages, Settings().session.history.seconds) == (
        10_000,
        30 * 86_400,
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[session.history]\nmessages = -1", r"session\.history\.messages \(file .*\): "),
        (
            "[session.history]\nmesages = 1",
            r"unknown setting session\.history\.mesages .*did you mean session\.history\.messages",
        ),
        ("[session]\nhistory = 5", r"unknown setting session\.history "),
        ("[server.host]\nname = 'x'", r"unknown setting server\.host\.name "),
    ],
)
def test_error_names_a_setting_of_an_inner_section(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=error):
        load_settings(file=file)


def test_flags_override_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text('[server]\nport = 1\nhost = "file"\n[ping]\ninterval_seconds = 3\n')
    settings = load_settings(
        flags={"server.port": 3},
        environ={"FLOORCAST_SERVER__PORT": "2", "FLOORCAST_SERVER__HOST": "env", "PATH": "x"},
        file=file,
    )
    assert settings.server.port == 3
    assert settings.server.host == "env"
    assert settings.ping.interval_seconds == 3
    assert settings.ping.timeout_seconds == Settings().ping.timeout_seconds


def test_variables_of_commands_and_of_the_installation_are_no_settings() -> None:
    environ = {"FLOORCAST_URL": "x", "FLOORCAST_TOKEN": "x", "FLOORCAST_COMPILE": "1"}
    assert load_settings(environ=environ) == Settings()


@pytest.mark.parametrize(
    "text", ["http://a, http://b", '["http://a", "http://b"]', "http://a,http://b,"]
)
def test_environment_lists_are_comma_separated_or_json(text: str) -> None:
    settings = load_settings(environ={"FLOORCAST_SERVER__ORIGINS": text})
    assert settings.server.origins == ("http://a", "http://b")


@pytest.mark.parametrize(
    ("environ", "file", "message"),
    [
        ({"FLOORCAST_SERVER__PROT": "1"}, "", "FLOORCAST_SERVER__PROT"),
        ({}, "[server]\nprot = 1", "server.prot (file"),
        ({}, "[sever]\nport = 1", "did you mean server.port?"),
        ({}, "port = 1", "unknown setting port"),
        ({}, "[server", "floorcast.toml"),
        ({}, '[server]\nport = "x"', "server.port (file"),
        ({"FLOORCAST_SERVER__PORT": "70000"}, "", "server.port (environment)"),
        ({"FLOORCAST_SERVER__TRANSPORTS": "pigeon"}, "", "server.transports"),
        ({"FLOORCAST_SERVER__ORIGINS": "[1"}, "", "server.origins (environment): not valid JSON"),
        ({"FLOORCAST_SERVER__ORIGINS": '[{"a": 1}]'}, "", "server.origins (environment)"),
        (
            {"FLOORCAST_SERVER__ORIGINS": "https://a, b.example"},
            "",
            "server.origins (environment): 'b.example' can never match",
        ),
        ({"FLOORCAST_SERVER__TRUSTED_PROXIES": "10.0.0.0/8, proxy"}, "", "'proxy'"),
        ({"FLOORCAST_PING__INTERVAL_SECONDS": "inf"}, "", "ping.interval_seconds (environment)"),
        ({"FLOORCAST_SESSION__GRACE_SECONDS": "nan"}, "", "session.grace_seconds (environment)"),
        ({"FLOORCAST_LIMITS__CONNECTIONS": "-1"}, "", "limits.connections"),
        ({"FLOORCAST_BROKER__URL": "amqp://h"}, "", "broker.url (environment): unknown scheme"),
        ({"FLOORCAST_BROKER__URL": "memory://x"}, "", "use one of memory://, redis://"),
        ({"FLOORCAST_BROKER__PREFIX": "a{b}"}, "", "broker.prefix"),
        ({}, '[broker]\nurl = "redis+sentinel://h"', "broker.url (file"),
        ({"FLOORCAST_BROKER__ACKNOWLEDGE": "replicas"}, "", "`replicas` needs a single Redis"),
        (
            {"FLOORCAST_BROKER__ACKNOWLEDGE": "replicas"},
            '[broker]\nurl = "redis+cluster://h"',
            "`replicas` needs a single Redis",
        ),
    ],
)
def test_error_names_the_invalid_setting(
    environ: dict[str, str], file: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "floorcast.toml"
    path.write_text(file)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environ=environ, file=path)
    assert message in str(refused.value)


def test_repr_and_errors_hide_secrets(tmp_path: Path) -> None:
    settings = load_settings(environ={"FLOORCAST_AUTH__SECRET": "s3cret" * 8})
    assert "s3cret" not in repr(settings)
    file = tmp_path / "floorcast.toml"
    file.write_text('[auth]\nsecret = ["s3cret"]\n')
    with pytest.raises(ConfigurationError) as refused:
        load_settings(file=file)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://ann:s3cret@h:1/2", "redis://***@h:1/2"),
        ("redis+sentinel://:s3cret@a,b/m", "redis+sentinel://***@a,b/m"),
        ("unix://ann:s3cret@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis://h:1/2?password=s3cret", "redis://h:1/2?***"),
        ("redis://ann:a@s3cret@h:1", "redis://***@h:1"),
        ("rediss+cluster://a:1,b:2?ssl_keyfile=s3cret", "rediss+cluster://a:1,b:2?***"),
    ],
)
def test_broker_url_hides_the_password(url: str, shown: str) -> None:
    broker = load_settings(environ={"FLOORCAST_BROKER__URL": url}).broker
    assert str(broker.url) == shown
    assert broker.url.get_secret_value() == url
    assert broker.url.in_memory == (url == "memory://")
    assert "s3cret" not in repr(broker)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/s3cret@h",
        "redis://ann:1/s3cret@h",
        "redis://:pa?s3cret@h",
        "redis://:pa#s3cret@h",
        "redis://:[s3cret@h",
        "redis://ann:s3cret",
        "redis://:s3cret\u2100@h",
        "redis+sentinel://:pa/s3cret@a,b/m",
        "redis+cluster://:pa/s3cret@a",
        "amqp://ann:s3cret@h",
        "redis://h?password=s3cr@et",
    ],
)
def test_malformed_broker_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"broker\.url \(environment\)") as refused:
        load_settings(environ={"FLOORCAST_BROKER__URL": url})
    assert "s3cr" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://issuer.example/keys", "https://issuer.example/keys"),
        ("https://ann:s3cret@issuer.example/keys", "https://***@issuer.example/keys"),
        ("https://issuer.example/keys?key=s3cret", "https://issuer.example/keys?***"),
        ("https://ann:1/s3cret@issuer.example/keys", "https://***"),
    ],
)
def test_jwks_url_hides_its_account(url: str, shown: str) -> None:
    auth = load_settings(environ={"FLOORCAST_AUTH__JWKS_URL": url}).auth
    assert str(auth.jwks_url) == shown
    assert "s3cret" not in repr(auth)


def test_topic_is_not_evicted_within_its_history() -> None:
    settings = load_settings(flags={"history.seconds": 900, "shares.silent_seconds": 60})
    assert publishing_config(settings).topics.silent_seconds == 900
    assert redis_shares(settings).silent_seconds == 900
