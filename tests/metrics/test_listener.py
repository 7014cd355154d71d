"""Where the admin listener listens."""

import pytest

from server.access import ConfigurationError
from server.metrics import Reports
from server.serving import run_admin
from server.settings import Settings, load_settings
from tests.kit.network.ports import free_ports
from tests.kit.server.in_process import SECRET


async def read() -> Reports:
    return {}


def settings(**flags: object) -> Settings:
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(flags={"auth.secret": SECRET, **named}, environ={})


async def test_admin_listener_is_on_loopback_above_the_public_port() -> None:
    [port] = free_ports(1)
    public = port - 1000
    async with run_admin(settings(server__port=public), read) as url:
        assert url == f"http://127.0.0.1:{port}"


async def test_default_port_that_is_taken_turns_metrics_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [port] = free_ports(1)
    public = port - 1000
    async with (
        run_admin(settings(server__port=public), read) as first,
        run_admin(settings(server__port=public), read) as second,
        run_admin(settings(server__port=0), read) as third,
    ):
        assert first is not None
        assert second is None
        assert third is not None
    assert "metrics are off, set admin.port" in caplog.text


async def test_chosen_port_that_is_taken_is_an_error() -> None:
    [port] = free_ports(1)
    async with run_admin(settings(admin__port=port), read):
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with run_admin(settings(admin__port=port), read):
                pass


async def test_highest_public_port_has_its_metrics_below(caplog: pytest.LogCaptureFixture) -> None:
    async with run_admin(settings(server__port=65_535), read) as url:
        assert url == "http://127.0.0.1:64535" or "metrics are off" in caplog.text


async def test_admin_listener_can_be_turned_off() -> None:
    async with run_admin(settings(admin__port=0), read) as url:
        assert url is None
