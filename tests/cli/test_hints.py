"""`floorcast check` gives hints about what is likely not meant."""

import pytest

from server.cli.hints import find_hints
from server.cli.main import main
from server.settings import load_settings
from tests.kit.network.ports import free_ports
from tests.kit.redis.servers import RedisServer

SECRET = "3f9a1c27b8d04e56a1b2c3d4e5f60718"
HOOK = {"hooks.secret": SECRET}


def hints(**flags: object) -> list[str]:
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return find_hints(load_settings(flags={"auth.secret": SECRET, **named}, environ={}))


def test_sound_configuration_gets_no_hint() -> None:
    assert hints() == []
    behind_a_proxy = {"server__host": "0.0.0.0", "server__trusted_proxies": ("10.0.0.0/8",)}
    assert hints(**behind_a_proxy) == []
    assert hints(hooks__url="http://127.0.0.1/hook", hooks__secret=SECRET) == []


@pytest.mark.parametrize(
    ("flags", "setting", "fix"),
    [
        ({"auth.secret": "a" * 32}, "auth.secret", "openssl rand"),
        ({"hooks.secret": "secretsecretsecret"}, "hooks.secret", "openssl rand"),
        ({"auth.token_in_query": True}, "auth.token_in_query", "`auth`"),
        ({"server.origins": ("*",)}, "server.origins", "list your own"),
        ({"admin.host": "0.0.0.0"}, "admin.host", "127.0.0.1"),
        ({"server.host": "::"}, "server.host", "TLS"),
        ({"server.trusted_proxies": ("0.0.0.0/0",)}, "server.trusted_proxies", "your proxies"),
        ({"hooks.url": "http://a.example", **HOOK}, "hooks.url", "https"),
        ({"hooks.authorize_url": "http://a.example", **HOOK}, "hooks.authorize_url", "https"),
    ],
)
def test_hint_names_the_setting_and_the_fix(
    flags: dict[str, object], setting: str, fix: str
) -> None:
    settings = load_settings(flags={"auth.secret": SECRET, **flags}, environ={})
    [hint] = find_hints(settings)
    assert hint.startswith(f"{setting}: ")
    assert fix in hint


def test_public_server_should_not_invent_its_market() -> None:
    found = hints(
        server__host="::",
        server__trusted_proxies=("10.0.0.1",),
        feed__name="simulated",
        auth__market_optional=True,
    )
    assert [each.partition(":")[0] for each in found] == ["auth.market_optional", "feed.name"]


def test_redis_that_loses_data_gets_hints(shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = hints(broker__url=shared_redis.url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")
    assert "allkeys-lru" in found[0]
    assert "appendonly" in found[1]


def test_redis_that_does_not_answer_gets_a_hint() -> None:
    [port] = free_ports(1)
    [hint] = hints(broker__url=f"redis://127.0.0.1:{port}")
    assert "no Redis answers" in hint


def test_hints_leave_the_settings_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"FLOORCAST_AUTH__SECRET": SECRET, "FLOORCAST_SERVER__ORIGINS": "*"}
    assert main(["check"], environ) == 0
    printed = capsys.readouterr()
    assert "hint" not in printed.out
    assert printed.err.startswith("hint: server.origins: ")
