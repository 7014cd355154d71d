"""`floorcast check` and the start refuse settings of webhooks that cannot work."""

import pytest

from client_sdk.contract import HookType
from server.access import ConfigurationError
from server.settings import load_settings

URL, SECRET = "https://example.com/hook", "0123456789abcdef"


def environ(**values: str) -> dict[str, str]:
    """The environment with these settings of hooks."""
    return {f"FLOORCAST_HOOKS__{name.upper()}": value for name, value in values.items()}


def test_webhooks_are_off_by_default() -> None:
    hooks = load_settings().hooks
    assert (hooks.url, hooks.authorize_url) == (None, None)
    assert set(hooks.events) == set(HookType)


def test_lists_choose_events_and_actions() -> None:
    lists = {"events": "user.online, feed.stale", "authorize": '["join"]'}
    hooks = load_settings(environ=environ(url=URL, secret=SECRET, **lists)).hooks
    assert hooks.events == (HookType.USER_ONLINE, HookType.FEED_STALE)
    assert hooks.authorize == ("join",)


@pytest.mark.parametrize("name", ["url", "authorize_url"])
@pytest.mark.parametrize(
    "url", ["example.com/hook", "ftp://example.com/", "https://", "file:///etc/passwd", ""]
)
def test_url_must_be_of_http(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match="http:// or https://") as refused:
        load_settings(environ=environ(**{name: url, "secret": SECRET}))
    assert str(refused.value).startswith(f"hooks.{name} (environment)")


@pytest.mark.parametrize("name", ["url", "authorize_url"])
@pytest.mark.parametrize("secret", [{}, {"secret": ""}, {"secret": "0123456789abcde"}])
def test_webhook_needs_a_long_secret(name: str, secret: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="secret: ") as refused:
        load_settings(environ=environ(**{name: URL}, **secret))
    for text in secret.values():
        assert not text or text not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"events": "user.online,user.gone"}, "hooks.events"),
        ({"authorize": "connect,leave"}, "hooks.authorize"),
        ({"authorize_timeout_seconds": "5"}, "hooks.authorize_timeout_seconds"),
        ({"queue": "0"}, "hooks.queue"),
    ],
)
def test_unknown_value_is_refused_by_name(values: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environ=environ(**values))
    assert str(refused.value).startswith(f"{name} (environment)")


def test_shown_settings_hide_secret_and_account() -> None:
    url = "https://me:pass@example.com/hook?key=word"
    shown = str(load_settings(environ=environ(url=url, secret=SECRET)))
    assert "example.com/hook" in shown
    for secret in (SECRET, "pass", "word"):
        assert secret not in shown
