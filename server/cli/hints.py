"""What in a valid configuration is likely not meant: what, where, and the fix."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from server.brokers import Address
from server.configs import is_shared
from server.settings import HookUrl, Settings
from server.transport.origins import ANY, is_local_name, is_loopback

# Text that a person has typed has fewer different characters than a random secret.
_MIN_DIFFERENT_CHARACTERS = 12
_SIMULATED = "simulated"
_REDIS_SECONDS = 2.0


def find_hints(settings: Settings) -> list[str]:
    """Hints about these settings; each begins with the name of a setting."""
    return [
        *_secret_hints(settings),
        *_network_hints(settings),
        *_hook_hints(settings),
        *_redis_hints(settings),
    ]


def _secret_hints(settings: Settings) -> Iterator[str]:
    for name, secret in (
        ("auth.secret", settings.auth.secret),
        ("hooks.secret", settings.hooks.secret),
    ):
        if secret is not None and len(set(secret.get_secret_value())) < _MIN_DIFFERENT_CHARACTERS:
            yield f"{name}: it is easy to guess: take the output of `openssl rand -hex 32`"
    if settings.auth.token_in_query:
        yield "auth.token_in_query: proxies log tokens in URLs: let clients send them in `auth`"


def _network_hints(settings: Settings) -> Iterator[str]:
    server = settings.server
    if ANY in server.origins:
        yield (
            "server.origins: '*' lets every page in the world connect with the tokens of its "
            "visitors: list your own origins"
        )
    if not _is_local(settings.admin.host) and settings.admin.port != 0:
        yield (
            "admin.host: /metrics asks for no token, and other machines reach it: allow only your "
            "Prometheus in the firewall, or use 127.0.0.1"
        )
    if any(
        ipaddress.ip_network(each, strict=False).prefixlen == 0 for each in server.trusted_proxies
    ):
        yield (
            "server.trusted_proxies: every client can choose its address, past all limits: name "
            "the networks of your proxies"
        )
    if _is_local(server.host):
        return
    if not server.trusted_proxies:
        yield (
            "server.host: other machines connect without TLS, and tokens can be read on the way: "
            "put a proxy with TLS in front, and name it in server.trusted_proxies"
        )
    if settings.auth.market_optional:
        yield "auth.market_optional: everybody who reaches the server may read the market"
    if _SIMULATED in settings.feed.names:
        yield "feed.name: `simulated` publishes invented prices: choose a real feed, or none"


def _is_local(host: str) -> bool:
    return is_loopback(host) or is_local_name(host)


def _hook_hints(settings: Settings) -> Iterator[str]:
    hooks = settings.hooks
    urls: tuple[tuple[str, HookUrl | None], ...] = (
        ("hooks.url", hooks.url),
        ("hooks.authorize_url", hooks.authorize_url),
    )
    for name, url in urls:
        parts = urlsplit("" if url is None else url.get_secret_value())
        if parts.scheme == "http" and not is_local_name(parts.hostname or ""):
            yield f"{name}: events and claims are sent without TLS: use https://"


def _redis_hints(settings: Settings) -> Iterator[str]:
    url = settings.broker.url.get_secret_value()
    if not is_shared(settings) or not url.startswith(("redis://", "rediss://", "unix://")):
        return
    # Redis's driver takes a tenth of a second to import.
    import redis

    client = redis.Redis.from_url(
        Address.parse(url).url, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS
    )
    try:
        with client:
            client.ping()
            memory, persistence = client.info("memory"), client.info("persistence")
    except redis.ResponseError:
        yield "broker.url: its account may not use INFO: nothing more of Redis can be checked"
    except redis.RedisError:
        yield "broker.url: no Redis answers there now: the server would not start"
    else:
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            yield (
                f"broker.url: maxmemory-policy is {policy}, so a full Redis drops sessions and "
                "histories: set it to noeviction"
            )
        if not persistence.get("aof_enabled"):
            yield (
                "broker.url: without `appendonly yes` a restart of Redis loses what came after "
                "its last snapshot"
            )
