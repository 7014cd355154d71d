"""All metrics: their names, types and labels, what they mean, and what to do if they move.

`docs/metrics.md` is made from this table.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `/metrics` adds the label `worker`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    action: str = ""

    @property
    def exposed_names(self) -> tuple[str, ...]:
        """The names of its series, as in queries."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        return (self.name,)


def _counter(name: str, meaning: str, action: str = "", *, labels: str = "") -> Metric:
    return Metric(f"floorcast_{name}_total", Kind.COUNTER, tuple(labels.split()), meaning, action)


def _gauge(name: str, meaning: str, action: str = "", *, labels: str = "") -> Metric:
    return Metric(f"floorcast_{name}", Kind.GAUGE, tuple(labels.split()), meaning, action)


def _histogram(name: str, meaning: str, action: str = "", *, labels: str = "") -> Metric:
    return Metric(f"floorcast_{name}", Kind.HISTOGRAM, tuple(labels.split()), meaning, action)


_PROCESS = (
    _gauge("build_info", "always 1; the labels say what runs", labels="version python loop"),
    _gauge("build_compiled", "1 if the compiled modules run, 0 if all is Python"),
    _gauge("server_ready", "1 if new clients are welcome", "`/health/ready` on the admin listener"),
    _gauge("process_start_seconds", "the Unix time at which the process started"),
    _counter(
        "process_cpu_seconds",
        "CPU time of the process",
        "one process uses one core: above 0.8 a second, add workers or nodes",
    ),
    _gauge(
        "process_memory_bytes",
        "resident memory",
        "compare with connections and topics; a slow rise without them is a leak: report it",
    ),
    _gauge("process_descriptors_open", "open file descriptors: one a client, and a few more"),
    _gauge("process_descriptors_limit", "how many may be open", "raise `LimitNOFILE`"),
    _counter(
        "process_descriptors_exhausted",
        "seconds in which no descriptor was left: new clients were refused without an answer",
        "raise `LimitNOFILE`, or lower `limits.connections`",
    ),
    _histogram(
        "loop_lag_seconds",
        "how much later than planned a timer of the event loop ran",
        "the process is short of CPU, or a handler of yours blocks: see the CPU, then your code",
    ),
    _counter("tasks_failed", "failures of background tasks", "the log has the traceback"),
    _counter("tasks_restarted", "restarts of background tasks", "as above"),
    _gauge("tasks_failing", "background tasks that wait for a restart", "as above"),
    _gauge("drain_begun_connections", "connections when the drain began; 0 if none has"),
    _gauge(
        "drain_remaining_connections",
        "connections that the drain has yet to close",
        "if it is not 0 at the end, raise `server.drain_seconds`",
    ),
)

_WORKERS = (
    _gauge(
        "workers_up", "1 if the worker answers its supervisor", "the supervisor replaces it: log"
    ),
    _counter("workers_died", "workers that ended unexpectedly", "the log has the exit code"),
    _counter(
        "workers_hung",
        "workers that were killed because they did not answer",
        "a handler of yours blocks the event loop, or the machine is stopped or swaps",
    ),
)

_CLIENTS = (
    _gauge("connections_open", "open connections, joined or not", labels="transport"),
    _counter("connections_opened", "connections since the start", "a reconnect storm: see `left`"),
    _gauge("clients_joined", "clients in a namespace", labels="namespace"),
    _counter(
        "clients_joins", "accepted connects to a namespace, resumes included", labels="namespace"
    ),
    _counter(
        "clients_left",
        "clients that left a namespace, by the reason of the end",
        "`did not answer a ping` and `transport close` are the network, codes are our decisions",
        labels="namespace reason",
    ),
    _counter(
        "clients_refused",
        "refused connections and requests, by error code; `protocol` and `origin` have no code",
        "`auth.*`: the issuer or its key has changed; `limit.*`: an attack, or limits too low",
        labels="code",
    ),
    _gauge("presence_users", "users with a connection to this process"),
    _counter(
        "events_handled",
        "events of clients, by outcome: `ok` or an error code",
        "the code says what clients do wrong; `server.internal` is ours: log",
        labels="namespace event outcome",
    ),
    _histogram(
        "events_ack_seconds",
        "from the parsed event to its acknowledgement",
        "compare with the latency of the broker: publishing and joining wait for it",
        labels="namespace event",
    ),
    _gauge(
        "limits_degraded",
        "1 while connections are counted by this node alone",
        "Redis does not answer",
    ),
    _counter("limits_local", "connections that were admitted without asking Redis", "as above"),
)

_DELIVERY = (
    _counter("delivery_messages", "messages written, counted once for each recipient"),
    _counter("delivery_bytes", "bytes of these messages"),
    _counter(
        "delivery_writes",
        "writes to clients; messages divided by writes is how many share a write",
        "near 1 at a high CPU: `delivery.join_ms` joins more",
    ),
    _counter(
        "delivery_merged",
        "messages that clients were not sent because newer ones replaced them; the cause is `slow`"
        " (a slow client) or `interval` (it asked for fewer)",
        labels="cause",
    ),
    _histogram(
        "delivery_age_seconds",
        "from the server's time stamp to the write, for the oldest message of each write; needs"
        " synchronized clocks between nodes",
        "at interval 0: the CPU or the broker is slow; at others up to the interval is normal",
        labels="stream interval_ms",
    ),
    _histogram(
        "delivery_flush_seconds",
        "from the first to the last write of one flush; a large one is spread over several turns of"
        " the event loop",
        "a very large room: spread its clients over workers",
    ),
    _gauge(
        "delivery_waiting_bytes",
        "bytes that clients have not taken yet",
        "slow clients or networks; bounded by `delivery.buffer_bytes` for each",
    ),
    _gauge("delivery_slow_clients", "clients that do not read fast enough now"),
    _counter(
        "delivery_ladder_steps",
        "steps taken for slow clients: `behind`, `widened` (a longer interval), `snapshot` in place"
        " of what was missed, `disconnected`",
        "many `disconnected`: clients too slow for what they subscribe to",
        labels="step",
    ),
    _counter(
        "delivery_gaps",
        "gaps that clients were notified of: `subscribe` and `join` with `recovered: false`,"
        " `reset` of a channel, counted for each of its subscribers",
        "`reset`: the broker lost data, see `broker_faults`; else longer histories: `history.*`",
        labels="cause",
    ),
)

_MARKET = (
    _counter("publish_messages", "valid messages, of topics and of sessions", labels="kind"),
    _gauge("topics_open", "topics and sessions that this process delivers"),
    _gauge(
        "topics_stale",
        "open topics whose feed is silent, has failed or ended",
        "see `feeds_live` and `broker_up`, then the publishers",
    ),
    _counter(
        "topics_evicted",
        "silent topics that made room for others",
        "raise `shares.topics` or `shares.topic_bytes`",
    ),
    _counter(
        "topics_refused",
        "messages refused because a share of topics is used up",
        "the publisher or its org needs a larger share: `shares.*`",
    ),
    _gauge("feeds_live", "1 if the feed publishes; only where it runs", "log", labels="feed"),
    _counter("feeds_messages", "messages of the feed", labels="feed"),
    _counter(
        "feeds_failures",
        "failures of the feed; each is followed by a restart",
        "log",
        labels="feed",
    ),
    _gauge(
        "feeds_silent_seconds",
        "time since the last message of the feed",
        "`feed.silent_seconds` restarts a silent feed",
        labels="feed",
    ),
)

_RECOVERY = (
    _gauge("recovery_parked", "disconnected clients that may resume", labels="namespace"),
    _counter(
        "recovery_resumes",
        "attempts to resume, with the outcome `resumed` (`here`, or `fetched` from another node) or"
        " `new` with its reason: `unknown`, `forbidden`, `messages_lost`",
        "`unknown`: the window or the number of parked connections (`recovery.*`) is too small;"
        " `messages_lost`: the histories are",
        labels="namespace outcome reason",
    ),
    _counter(
        "recovery_handovers",
        "parked connections that moved between nodes, by step",
        "`unanswered`: a node or Redis is slow",
        labels="step",
    ),
)

_SESSIONS = (
    _gauge("sessions_open", "sessions over all nodes, as far as this process knows"),
    _gauge("sessions_members", "memberships of this process's connections"),
    _counter("sessions_signals_dropped", "signals that slow clients were not sent"),
    _counter("notices_posted", "notifications for users of all nodes, posted here"),
    _counter(
        "notices_dropped",
        "critical notices evicted because the store was full",
        "raise `session.notices_per_user` or `shares.notices`",
    ),
    _counter(
        "lifecycle_dropped",
        "events that lifecycle handlers were too slow for",
        "make the handlers faster: they are called one after the other",
    ),
)

_HOOKS = (
    _counter(
        "hooks_events",
        "events for the webhook: `sent`, or `dropped` because too many waited",
        "`dropped`: the receiver was away for too long, or is too slow",
        labels="outcome",
    ),
    _gauge(
        "hooks_waiting", "events that wait for the webhook, of all nodes", "see `hooks_failures`"
    ),
    _counter("hooks_failures", "requests to the webhook that failed and are repeated", "log"),
    _histogram(
        "hooks_request_seconds",
        "requests with events that the webhook accepted",
        "make the receiver faster: it gets one request after the other",
    ),
    _counter(
        "hooks_questions",
        "questions for the authorize webhook: `allowed` or `refused` by it, `cached`, or"
        " `unavailable`: refused because it does not answer",
        "`unavailable`: log; no client can do what `hooks.authorize` lists",
        labels="outcome",
    ),
    _histogram(
        "hooks_answer_seconds",
        "requests that the authorize webhook answered",
        "clients wait for it: answer faster, or give a longer `ttl_seconds`",
    ),
    _counter("wills_published", "wills that were published: their users did not come back in time"),
    _counter("wills_refused", "messages of wills that could not be published any more", "log"),
)

_BROKER = (
    _gauge("broker_up", "1 while the broker answers", "publishing fails until it is back"),
    _histogram(
        "broker_latency_seconds",
        "a round trip to Redis, or a commit to the data file; none in memory",
        "Redis or the disk is slow, or the network to it",
    ),
    _counter("broker_errors", "commands that failed", "log of Redis: memory, rights, failover"),
    _counter("broker_disconnects", "lost connections to Redis", "the network, or a failover"),
    _counter("broker_reconnects", "connections to Redis that were made again"),
    _counter(
        "broker_faults",
        "`holes`, `lost`, `deaf`: pub/sub lost entries or went silent, and they were read again;"
        " `resets`: entries are gone; `strange`: foreign data under our keys; `failed`: writes to"
        " the data file",
        "`strange`: something else writes to this Redis under `broker.prefix`",
        labels="fault",
    ),
)

_CANARY = (
    _gauge("canary_topics", "topics that the canary watches now; 0 if it is off"),
    _counter("canary_messages", "messages that it has checked"),
    _counter("canary_used_seconds", "time that it has used: at most 0.005 a second"),
    _counter(
        "canary_gaps",
        "messages that did not follow the one before",
        "report it: a fault of ours, in this process or its broker",
    ),
    _counter("canary_duplicates", "messages that it was sent twice", "as above"),
    _counter("canary_reorders", "messages older than the one before", "as above"),
    _counter("canary_checksum_errors", "order books whose checksum was wrong", "as above"),
    _histogram(
        "canary_age_seconds",
        "from the server's time stamp to the write, for each message",
        "as `delivery_age_seconds`, which counts all clients",
    ),
    _counter(
        "canary_cut_short",
        "rounds that ended early because the topics are too busy",
        "normal for topics of thousands of messages a second",
    ),
)

METRICS: tuple[Metric, ...] = (
    *_PROCESS,
    *_WORKERS,
    *_CLIENTS,
    *_DELIVERY,
    *_MARKET,
    *_RECOVERY,
    *_SESSIONS,
    *_HOOKS,
    *_BROKER,
    *_CANARY,
    _counter(
        "counters",
        "every counter of the server by its own name, also those without a metric here",
        labels="counter",
    ),
)
