"""Defines all settings, and loads them from flags, the environment and a file."""

import difflib
import ipaddress
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Secret,
    SecretStr,
    ValidationError,
    model_validator,
)

from client_sdk.contract import HookType
from server.access import ConfigurationError
from server.brokers import Address, is_installed
from server.core.secret_urls import hide_secrets
from server.transport.origins import check_origin

PREFIX = "FLOORCAST_"
# Of the commands that ask a server, and of the installation: no settings.
OTHER_VARIABLES = frozenset(("FLOORCAST_URL", "FLOORCAST_TOKEN", "FLOORCAST_COMPILE"))
MEMORY = "memory://"
_FILE = "file:"
_FEED = "feed."


def _validate_network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Network = Annotated[str, AfterValidator(_validate_network)]
Origin = Annotated[str, AfterValidator(check_origin)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecretUrl(Secret[str]):
    """A URL that hides its account and its query when shown."""

    def _display(self) -> str:
        return hide_secrets(self.get_secret_value())


def _validate_hook_url(url: SecretUrl) -> SecretUrl:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be a URL that begins with http:// or https://")
    return url


HookUrl = Annotated[SecretUrl, AfterValidator(_validate_hook_url)]
_MIN_HOOK_SECRET_BYTES = 16


class AuthSettings(_Section):
    """How tokens are verified."""

    secret: SecretStr | None = Field(None, description="HS256 secret, at least 32 bytes")
    algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = Field(
        "HS256", description="the only accepted signature algorithm of tokens"
    )
    public_key_file: Path | None = Field(None, description="PEM file with the public key")
    jwks_url: SecretUrl | None = Field(None, description="URL of the issuer's key set")
    issuer: str | None = Field(None, description="the `iss` that tokens must carry, if any")
    audience: str = Field("floorcast", description="the `aud` that tokens must carry")
    market_optional: bool = Field(False, description="allow anonymous clients on `/market`")
    token_in_query: bool = Field(False, description="also accept `?token=` (proxies log it)")
    leeway_seconds: Seconds = Field(10, description="allowed clock difference")
    revocation_seconds: PositiveSeconds = Field(
        2_592_000,
        description="how long a revocation is kept that names no time: as long as any token lives",
    )
    expiring_notice_seconds: Seconds = Field(30, description="time from `token_expiring` to `exp`")
    expiry_grace_seconds: Seconds = Field(5, description="time from `exp` to the goodbye")


class LimitSettings(_Section):
    """Limits of clients; 0 means no limit."""

    connections: Count = Field(10_000, description="open connections, total")
    connections_per_ip: Count = Field(1_000, description="open connections of one address")
    connections_per_user: Count = Field(1_000, description="open connections of one user")
    shared: bool = Field(True, description="with Redis, count addresses and users over all nodes")
    connects_per_second: Count = Field(2_000, description="connection attempts, total")
    connects_per_second_per_ip: Count = Field(500, description="attempts of one address")
    events_per_second: Count = Field(100, description="events of one connection")
    event_burst: Count = Field(200, description="events in one burst")
    topics_per_connection: Count = Field(1_000, description="subscribed topics")
    message_bytes: Bytes = Field(
        64 * 1024,
        description="data of one message; an event with several messages may be twice as large",
    )
    polling_packets: int = Field(256, ge=1, description="packets in one polling request")
    join_timeout_seconds: Seconds = Field(45, description="time to join a namespace")
    requests_per_second: Count = Field(100, description="requests to the HTTP API of one user")
    requests_per_second_per_ip: Count = Field(
        500, description="requests to the HTTP API of one address"
    )
    head_timeout_seconds: PositiveSeconds = Field(
        10,
        description="time to send a request's head or body, to read an answer of the HTTP API, and "
        "idle time between requests",
    )


class DeliverySettings(_Section):
    """Buffers for slow consumers; 0 means no limit."""

    buffer_bytes: Bytes = Field(256 * 1024, description="unsent bytes of one client")
    stalled_seconds: Seconds = Field(
        30,
        description="time without progress until a slow client is disconnected",
    )
    join_ms: int = Field(
        5,
        ge=0,
        le=1000,
        description="how long messages wait under load to be joined into one write; an idle "
        "server never waits",
    )
    backlog_messages: int = Field(
        1_000, ge=1, description="messages kept of a topic for clients that catch up"
    )
    backlog_bytes: int = Field(
        1024 * 1024, ge=1, description="bytes kept of a topic for clients that catch up"
    )
    backlog_seconds: float = Field(
        300,
        ge=1,
        description="time that they are kept, or `recovery.window_seconds` if that is longer",
    )


class MarketSettings(_Section):
    """Rules of market topics; a time of 0 means never."""

    price_stale_seconds: Seconds = Field(10, description="silence that makes a PRICE topic stale")
    orderbook_stale_seconds: Seconds = Field(10, description="the same for ORDERBOOK")
    trades_stale_seconds: Seconds = Field(0, description="the same for TRADES")
    heartbeat_seconds: Seconds = Field(15, description="interval of heartbeats of a quiet topic")
    book_levels: int = Field(200, ge=1, description="levels kept on each side of a book")
    idempotency_seconds: Seconds = Field(120, description="how long a publisher's id is remembered")
    will_seconds: PositiveSeconds = Field(
        86_400, description="longest time that a will may wait for its user"
    )


class ShareSettings(_Section):
    """What one org and one publisher may keep of what all share; 0 means no limit.

    Feeds and code inside the server are bound by the totals alone. A process counts what it
    publishes itself; with Redis the number of topics and sessions counts over all nodes.
    """

    topics: Count = Field(
        100_000, description="topics, total; silent ones that nobody watches make room"
    )
    topics_per_org: Count = Field(25_000, description="topics last published by one org")
    topics_per_publisher: Count = Field(10_000, description="topics last published by one user")
    topic_bytes: Bytes = Field(
        512 * 1024 * 1024, description="newest states of all topics, order books included"
    )
    topic_bytes_per_org: Bytes = Field(128 * 1024 * 1024, description="the same of one org")
    topic_bytes_per_publisher: Bytes = Field(64 * 1024 * 1024, description="the same of one user")
    silent_seconds: Seconds = Field(
        300,
        description="silence after which a topic that nobody watches may make room, at least "
        "`history.seconds`",
    )
    ids: Count = Field(
        200_000, description="remembered ids of messages, total; the oldest is forgotten first"
    )
    ids_per_org: Count = Field(150_000, description="remembered ids of one org")
    ids_per_publisher: Count = Field(100_000, description="remembered ids of one user")
    history_bytes_per_org: Bytes = Field(
        128 * 1024 * 1024,
        description="histories of one org, topics and sessions apart; the longest silent is dropped"
        " first",
    )
    sessions_per_org: Count = Field(25_000, description="sessions of one org")
    notices: Count = Field(100_000, description="unacknowledged critical notices, total")
    notices_per_org: Count = Field(25_000, description="the same of one org")
    notice_bytes: Bytes = Field(128 * 1024 * 1024, description="their data, total")
    notice_bytes_per_org: Bytes = Field(32 * 1024 * 1024, description="the same of one org")
    wills: Count = Field(50_000, description="wills, total")
    wills_per_org: Count = Field(10_000, description="wills of one org")
    will_bytes: Bytes = Field(64 * 1024 * 1024, description="their messages, total")
    will_bytes_per_org: Bytes = Field(16 * 1024 * 1024, description="the same of one org")


class CandleSettings(_Section):
    """The candles of trades."""

    bars: int = Field(
        500,
        ge=0,
        le=10_000,
        description="bars kept of each interval, by their time; 0 keeps none",
    )


class HistorySettings(_Section):
    """History of kept streams; 0 means no limit."""

    messages: Count = Field(1_000, description="messages of one topic")
    bytes: Bytes = Field(1024 * 1024, description="bytes of one topic")
    total_bytes: Bytes = Field(
        256 * 1024 * 1024,
        description="bytes of all topics; the longest silent of the largest org goes first",
    )
    seconds: Seconds = Field(300, description="age of the oldest kept message")


class RecoverySettings(_Section):
    """Connection state recovery of disconnected clients."""

    window_seconds: Seconds = Field(
        120, description="time to resume a connection; 0 turns recovery off"
    )
    connections: Count = Field(20_000, description="parked connections, total")
    per_user: Count = Field(20, description="parked connections of one user")


class PingSettings(_Section):
    """Detection of dead connections."""

    interval_seconds: PositiveSeconds = Field(25, description="time between pings")
    timeout_seconds: PositiveSeconds = Field(20, description="time to answer a ping")


class SessionHistorySettings(_Section):
    """History of sessions, as long as the session is kept; 0 means no limit."""

    messages: Count = Field(10_000, description="messages of one session")
    bytes: Bytes = Field(8 * 1024 * 1024, description="bytes of one session")
    total_bytes: Bytes = Field(
        256 * 1024 * 1024,
        description="bytes of all sessions; the longest silent of the largest org goes first",
    )
    seconds: Seconds = Field(30 * 86_400, description="age of the oldest kept message")


class SessionSettings(_Section):
    """Shared sessions; a limit of 0 means no limit."""

    grace_seconds: Seconds = Field(10, description="a reconnect within this time shows no leave")
    retention_seconds: Seconds = Field(
        3600, description="how long an empty or closed session is kept"
    )
    must_exist: bool = Field(False, description="joining does not create a session")
    per_connection: Count = Field(50, description="sessions of one connection")
    per_user: Count = Field(1_000, description="open sessions created by one user")
    total: Count = Field(100_000, description="sessions, total")
    participants: Count = Field(10_000, description="users in one session")
    metadata_bytes: Bytes = Field(4 * 1024, description="metadata of the first join")
    notice_seconds: Seconds = Field(
        86_400, description="how long an unacknowledged critical notice is kept"
    )
    notices_per_user: int = Field(
        100, ge=1, description="unacknowledged critical notices of one user"
    )
    last_seen_seconds: Seconds = Field(
        2_592_000,
        description="how long it is known when a user was last connected, of the latest 50,000 "
        "users of each org; 0 keeps none",
    )
    history: SessionHistorySettings = SessionHistorySettings()


class BrokerUrl(SecretUrl):
    """The URL of a broker."""

    @property
    def in_memory(self) -> bool:
        """True for the memory broker, which no other process can share."""
        return self.get_secret_value() == MEMORY

    @property
    def folder(self) -> Path | None:
        """The data folder of `file:PATH`; None for another broker."""
        scheme, colon, path = self.get_secret_value().partition(":")
        if scheme + colon != _FILE:
            return None
        # As a URL: `file:///var/lib/floorcast`.
        return Path(path.removeprefix("//"))

    def _display(self) -> str:
        return super()._display() if self.folder is None else self.get_secret_value()

    @property
    def can_replicate(self) -> bool:
        """True if a message can wait for replicas: the shards of a Cluster have their own."""
        if self.in_memory or self.folder is not None:
            return False
        return not Address.parse(self.get_secret_value()).is_cluster


def _validate_broker_url(url: BrokerUrl) -> BrokerUrl:
    if url.folder is not None:
        if url.folder == Path():
            raise ValueError("file: needs a folder, such as file:/var/lib/floorcast")
    elif not url.in_memory and not is_installed(url.get_secret_value()):
        Address.parse(url.get_secret_value())
    return url


class BrokerSettings(_Section):
    """The store of positions and history."""

    url: Annotated[BrokerUrl, AfterValidator(_validate_broker_url)] = Field(
        BrokerUrl(MEMORY),
        description="`memory://` for this process alone, `file:FOLDER` to outlive it "
        "(docs/file.md), a Redis URL (docs/redis.md), or one of an installed backend",
    )
    prefix: str = Field(
        "floorcast",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="prefix of all keys and channels in Redis",
    )
    timeout_seconds: PositiveSeconds = Field(
        2, description="time limit of a Redis command or of a write; then the broker is down"
    )
    waiting: int = Field(
        20_000, ge=1, description="commands waiting for Redis, messages for the disk"
    )
    sync: Literal["always", "batch", "os"] = Field(
        "batch",
        description="with `file:`, when a write reaches the disk: before it is acknowledged, at "
        "once or with those of up to 5 ms, or when the system likes (`os`)",
    )
    max_bytes: int = Field(
        4 * 1024**3, ge=1024**2, description="with `file:`, the largest size of the data file"
    )
    entry_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="largest entry, order book snapshots included"
    )
    acknowledge: Literal["primary", "replicas"] = Field(
        "primary",
        description="who must have a message before it is acknowledged: the primary Redis, or also"
        " one of its replicas (docs/redis.md)",
    )
    idle_seconds: PositiveSeconds = Field(
        604_800, description="Redis drops a topic or session after this silence"
    )
    lease_seconds: PositiveSeconds = Field(
        8, description="members of a process leave after it has shown no heartbeat for this long"
    )

    @model_validator(mode="after")
    def _check_acknowledge(self) -> "BrokerSettings":
        if self.acknowledge == "replicas" and not self.url.can_replicate:
            raise ValueError(
                "acknowledge: `replicas` needs a single Redis, or one behind Sentinels, as url"
            )
        return self


class ServerSettings(_Section):
    """The public listener and the process."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 for any free port")
    origins: tuple[Origin, ...] = Field(
        (),
        description="allowed web origins besides the server's own; `loopback` for pages of this "
        "machine on any port, `*` for any",
    )
    trusted_proxies: tuple[Network, ...] = Field((), description="networks of trusted proxies")
    transports: tuple[Literal["polling", "websocket"], ...] = Field(
        (), description="allowed transports; default: both, `websocket` only with several workers"
    )
    workers: int = Field(
        1, ge=1, le=64, description="processes; more than one need a Redis, see broker.url"
    )
    compression: bool = Field(
        False, description="negotiate permessage-deflate with clients that offer it"
    )
    console: bool = Field(
        False, description="serve the console at `/`; it asks for a token with the scope `admin`"
    )
    drain_seconds: Seconds = Field(30, description="time to drain after SIGTERM")
    hang_seconds: Seconds = Field(
        15,
        description="with several workers, one that does not answer its supervisor for this long is"
        " killed and replaced; 0 for never",
    )

    @property
    def allowed_transports(self) -> tuple[str, ...]:
        """The transports that clients may use.

        Several workers exclude polling: the requests of one polling client would reach workers
        that do not know it.
        """
        if self.transports:
            return self.transports
        return ("polling", "websocket") if self.workers == 1 else ("websocket",)


class AdminSettings(_Section):
    """The listener for `/metrics` and `/health/*` with reasons; it asks for no token."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port to listen on; by default `server.port` + 1000, unless that is taken; 0 "
        "turns it off",
    )
    canary_topics: int = Field(
        0,
        ge=0,
        le=100,
        description="topics that the canary of each process watches at a time; 0 turns it off",
    )


class HookSettings(_Section):
    """Webhooks: events of connections, users, sessions, topics, feeds and notices, and questions
    about who may do what (docs/hooks.md).
    """

    url: HookUrl | None = Field(None, description="URL that gets the events")
    secret: SecretStr | None = Field(
        None, description="secret that signs all requests to webhooks, at least 16 bytes"
    )
    events: tuple[HookType, ...] = Field(
        tuple(HookType), description="types of events to send; default: all"
    )
    queue: int = Field(
        100_000, ge=1, description="events that wait for the webhook; then the oldest are dropped"
    )
    keep_seconds: PositiveSeconds = Field(
        3600, description="age at which a waiting event is dropped"
    )
    timeout_seconds: PositiveSeconds = Field(5, description="time limit of a request with events")
    authorize_url: HookUrl | None = Field(
        None, description="URL that is asked who may do what, after the built-in checks"
    )
    authorize: tuple[Literal["connect", "subscribe", "join", "publish"], ...] = Field(
        ("connect", "subscribe", "join", "publish"), description="what it is asked about"
    )
    authorize_timeout_seconds: Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)] = Field(
        2, description="time limit of a question; without an answer it is refused"
    )
    authorize_cache: int = Field(10_000, ge=1, description="cached answers")

    @model_validator(mode="after")
    def _check_secret(self) -> "HookSettings":
        if self.url is None and self.authorize_url is None:
            return self
        if self.secret is None:
            raise ValueError("secret: a webhook needs a secret that signs its requests")
        if len(self.secret.get_secret_value().encode()) < _MIN_HOOK_SECRET_BYTES:
            raise ValueError(
                f"secret: it needs at least {_MIN_HOOK_SECRET_BYTES} bytes, such as those of "
                "`openssl rand -hex 32`"
            )
        return self


class TracingSettings(_Section):
    """Spans of OpenTelemetry, from publishing to the fan-out; needs `floorcast[otel]`."""

    sample_ratio: float = Field(
        0, ge=0, le=1, description="share of the traces that are sampled; 0 turns tracing off"
    )


class LogSettings(_Section):
    """What is logged to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level to log; `debug` traces every connection"
    )
    format: Literal["console", "json"] = Field(
        "console", description="`console` for people, `json` for one object a line"
    )


def _split_symbols(value: object) -> object:
    """Names may come as one text, as from the environment."""
    if isinstance(value, str) and not value.strip().isdecimal():
        return tuple(each.strip() for each in value.split(",") if each.strip())
    return value


Symbols = Annotated[
    Annotated[int, Field(ge=1, le=100_000)] | Annotated[tuple[str, ...], Field(min_length=1)],
    BeforeValidator(_split_symbols),
]


class FeedSettings(_Section):
    """The sources of market data. A feed's own options are in `[feed.NAME]`."""

    name: str = Field(
        "none",
        description="feeds, separated by commas: `none`, `simulated`, `replay:FILE`, an installed "
        "feed's name, or that of a table `[feed.NAME]` with a `source`",
    )
    symbols: Symbols = Field(
        4, description="symbols of the feeds: names, or a number for the simulated market"
    )
    rate: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = Field(
        20, description="steps a second of the simulated market, over all symbols"
    )
    seed: int = Field(1, description="random seed of the simulated market")
    speed: Seconds = Field(1, description="speed factor of a replay; 0 for as fast as possible")
    silent_seconds: Seconds = Field(
        0, description="a feed that publishes nothing for this long is restarted; 0 for never"
    )
    required: bool = Field(
        False, description="the server is ready (`/health/ready`) only while its feeds are live"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The feeds to run, each with what follows its colon."""
        names = (each.strip() for each in self.name.split(","))
        return tuple(each for each in names if each and each != "none")


class Settings(_Section):
    """All settings."""

    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    delivery: DeliverySettings = DeliverySettings()
    market: MarketSettings = MarketSettings()
    shares: ShareSettings = ShareSettings()
    candles: CandleSettings = CandleSettings()
    history: HistorySettings = HistorySettings()
    recovery: RecoverySettings = RecoverySettings()
    ping: PingSettings = PingSettings()
    session: SessionSettings = SessionSettings()
    broker: BrokerSettings = BrokerSettings()
    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    hooks: HookSettings = HookSettings()
    feed: FeedSettings = FeedSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    # `[feed.NAME]`: the options of each feed, which the feed itself validates.
    feed_options: dict[str, dict[str, Any]] = Field(default={}, repr=False)


def load_settings(
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Merge the sources: flags (keyed `section.name`), then the environment, then the file.

    Raises `ConfigurationError` for an unknown setting or an invalid value.
    """
    known = set(setting_names())
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in (
        (f"file {file}", {} if file is None else _read_file(file)),
        ("environment", _read_environ(environ or {})),
        ("flags", flags or {}),
    ):
        for name, value in values.items():
            if name not in known and name.startswith(_FEED) and _add_option(merged, name, value):
                continue
            if name not in known:
                raise ConfigurationError(_unknown_setting(name, source, known))
            *sections, key = name.split(".")
            values_of = merged
            for section in sections:
                values_of = values_of.setdefault(section, {})
            values_of[key] = value
            sources[name] = source
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # A location may go on inside a setting's value.
        parts = [str(each) for each in first["loc"]]
        names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        name = next((each for each in names if each in known), ".".join(parts))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{name} ({sources.get(name, '?')}): {message}") from None


def _add_option(merged: dict[str, Any], name: str, value: object) -> bool:
    """Add `[feed.NAME]`, or one option of it; False if the name is neither."""
    _, feed, *option = name.split(".", 2)
    if not (option or isinstance(value, dict)):
        return False
    table = merged.setdefault("feed_options", {}).setdefault(feed, {})
    table.update({option[0]: value} if option else value)
    return True


def setting_names() -> Iterable[str]:
    """The names of all settings, such as `server.port` and `session.history.messages`."""
    for section, model in sections():
        for name, field in model.model_fields.items():
            if not _is_section(field.annotation):
                yield f"{section}.{name}"


def sections() -> Iterable[tuple[str, type[BaseModel]]]:
    """All sections by name, each before its own sections."""
    return _sections_of(Settings, "")


def _sections_of(parent: type[BaseModel], prefix: str) -> Iterable[tuple[str, type[BaseModel]]]:
    for name, field in parent.model_fields.items():
        model = field.annotation
        if _is_section(model):
            yield prefix + name, model
            yield from _sections_of(model, f"{prefix}{name}.")


def _is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, _Section)


def env_variable(name: str) -> str:
    """The environment variable of a setting, such as `FLOORCAST_SERVER__PORT`."""
    return PREFIX + name.replace(".", "__").upper()


def _read_environ(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, text in environ.items():
        if key.startswith(PREFIX) and key not in OTHER_VARIABLES:
            name = key.removeprefix(PREFIX).lower().replace("__", ".")
            values[name] = _parse_list(name, text) if name in _LIST_SETTINGS else text
    return values


_LIST_SETTINGS = frozenset(
    (
        "hooks.authorize",
        "hooks.events",
        "server.origins",
        "server.trusted_proxies",
        "server.transports",
    )
)


def _parse_list(name: str, text: str) -> list[object]:
    if text.lstrip().startswith("["):
        try:
            parsed: list[object] = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            raise ConfigurationError(f"{name} (environment): not valid JSON") from None
        return parsed
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_file(file: Path) -> dict[str, object]:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: {error}") from None
    return dict(_flatten(tables, ""))


def _flatten(table: Mapping[str, object], prefix: str) -> Iterable[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict) and prefix == _FEED:
            # A feed's own options: only the feed knows their names.
            yield prefix + name, value
        elif isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _unknown_setting(name: str, source: str, known: Iterable[str]) -> str:
    shown = env_variable(name) if source == "environment" else name
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = ""
    if close:
        hint = f"; did you mean {env_variable(close[0]) if source == 'environment' else close[0]}?"
    return f"unknown setting {shown} ({source}){hint}"
