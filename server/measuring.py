"""Reads the metrics of one server from the counters and gauges of its parts."""

import asyncio
import os
import platform
import sys
import time
from collections import Counter

from client_sdk import __version__
from server.compiled import IS_COMPILED
from server.core.counters import ACK
from server.metrics import Report, Samples
from server.server import Server
from server.services import FeedState, memory_bytes

if sys.platform != "win32":
    import resource

_STARTED_AT = time.time()
_LADDER = {
    "behind": "delivery.fell_behind",
    "widened": "delivery.widened",
    "snapshot": "delivery.snapshots",
    "disconnected": "delivery.overloaded",
}
_FAULTS = ("holes", "resets", "lost", "deaf", "strange", "failed")


def report(server: Server) -> Report:
    """What this server says about itself now."""
    samples = Samples()
    for read in (
        _read_process,
        _read_clients,
        _read_delivery,
        _read_market,
        _read_recovery,
        _read_sessions,
        _read_hooks,
        _read_broker,
        _read_canary,
        _read_counters,
    ):
        read(server, samples)
    return Report(samples, server.obstacles())


def _read_process(server: Server, samples: Samples) -> None:
    counters = server.counters
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    samples.add("floorcast_build_info", 1, __version__, platform.python_version(), loop)
    samples.add("floorcast_build_compiled", IS_COMPILED)
    samples.add("floorcast_server_ready", server.is_ready)
    samples.add("floorcast_process_start_seconds", _STARTED_AT)
    samples.add("floorcast_process_cpu_seconds_total", time.process_time())
    _read_system(samples)
    samples.add(
        "floorcast_process_descriptors_exhausted_total", counters.total("descriptors.exhausted")
    )
    for labels, histogram in counters.histograms("loop.lag").items():
        samples.add_histogram("floorcast_loop_lag_seconds", histogram, *labels)
    samples.add("floorcast_tasks_failed_total", counters.total("tasks.failed"))
    samples.add("floorcast_tasks_restarted_total", counters.total("tasks.restarted"))
    samples.add("floorcast_tasks_failing", len(server.tasks.failing))
    drain = server.running_drain
    samples.add("floorcast_drain_begun_connections", 0 if drain is None else drain.begun)
    samples.add("floorcast_drain_remaining_connections", 0 if drain is None else drain.remaining)


def _read_system(samples: Samples) -> None:
    if sys.platform == "linux":
        samples.add("floorcast_process_memory_bytes", memory_bytes() or 0)
        samples.add("floorcast_process_descriptors_open", len(os.listdir("/proc/self/fd")))
    if sys.platform != "win32":
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        samples.add("floorcast_process_descriptors_limit", limit)


def _read_clients(server: Server, samples: Samples) -> None:
    counters, context = server.counters, server.clients.context
    sockets = server.sockets
    polling = sockets.polling_count()
    samples.add("floorcast_connections_open", polling, "polling")
    samples.add("floorcast_connections_open", sockets.connection_count - polling, "websocket")
    waiting_bytes = sum(each.buffered_bytes for each in sockets.connections())
    samples.add("floorcast_delivery_waiting_bytes", waiting_bytes)
    samples.add("floorcast_connections_opened_total", server.sockets.eio.opened)
    joined = Counter({each.namespace: 0 for each in server.namespaces})
    joined.update(client.namespace for client in context.clients())
    for namespace, count in joined.items():
        samples.add("floorcast_clients_joined", count, namespace)
    samples.add_counts("floorcast_clients_joins_total", counters.labelled("clients.joined"))
    samples.add_counts("floorcast_clients_left_total", counters.labelled("clients.left"))
    samples.add_counts("floorcast_clients_refused_total", counters.labelled("clients.refused"))
    samples.add("floorcast_presence_users", server.clients.registry.stats()["users"])
    for labels, count in counters.events().items():
        samples.add("floorcast_events_handled_total", count, *labels)
    samples.add_histograms("floorcast_events_ack_seconds", counters.histograms(ACK))
    limits = server.backend.shared_limits
    samples.add("floorcast_limits_degraded", limits is not None and limits.is_degraded)
    samples.add("floorcast_limits_local_total", counters.total("limits.local"))


def _read_delivery(server: Server, samples: Samples) -> None:
    counters, hub = server.counters, server.delivery.hub
    samples.add("floorcast_delivery_messages_total", hub.traffic.messages)
    samples.add("floorcast_delivery_bytes_total", hub.traffic.bytes)
    samples.add("floorcast_delivery_writes_total", hub.traffic.writes)
    for cause, counter in (("slow", "delivery.merged"), ("interval", "delivery.conflated")):
        samples.add("floorcast_delivery_merged_total", counters.total(counter), cause)
    samples.add_histograms("floorcast_delivery_age_seconds", counters.histograms("delivery.age"))
    samples.add_histogram("floorcast_delivery_flush_seconds", hub.traffic.flush_seconds)
    samples.add("floorcast_delivery_slow_clients", len(hub.slow_consumers))
    for step, counter in _LADDER.items():
        samples.add("floorcast_delivery_ladder_steps_total", counters.total(counter), step)
    for cause, count in (
        ("subscribe", server.market.subscribing.not_recovered),
        ("join", server.sessions.service.not_recovered),
        ("reset", counters.total("delivery.gaps")),
    ):
        samples.add("floorcast_delivery_gaps_total", count, cause)


def _read_market(server: Server, samples: Samples) -> None:
    publishing = server.market.publishing
    samples.add("floorcast_publish_messages_total", publishing.published, "topic")
    samples.add("floorcast_publish_messages_total", server.sessions.messages.sent, "session")
    samples.add("floorcast_topics_open", server.delivery.hub.topic_count)
    samples.add("floorcast_topics_stale", server.delivery.freshness.stale_count())
    samples.add("floorcast_topics_evicted_total", publishing.topics.evicted_count)
    samples.add("floorcast_topics_refused_total", publishing.topics.refused_count)
    for feed in server.feeds:
        if feed.state is not FeedState.IDLE:
            samples.add("floorcast_feeds_live", feed.is_live, feed.name)
            samples.add("floorcast_feeds_messages_total", feed.publisher.published, feed.name)
            samples.add("floorcast_feeds_failures_total", feed.failures, feed.name)
            samples.add("floorcast_feeds_silent_seconds", feed.silent_seconds, feed.name)


def _read_recovery(server: Server, samples: Samples) -> None:
    counters = server.counters
    for namespace, count in server.recovery.parked_counts().items():
        samples.add("floorcast_recovery_parked", count, namespace)
    samples.add_counts("floorcast_recovery_resumes_total", counters.labelled("recovery.resumes"))
    for name, count in counters.totals().items():
        if name.startswith("recovery."):
            step = name.removeprefix("recovery.")
            samples.add("floorcast_recovery_handovers_total", count, step)


def _read_sessions(server: Server, samples: Samples) -> None:
    sessions = server.sessions
    samples.add("floorcast_sessions_open", server.backend.presence.session_count)
    samples.add("floorcast_sessions_members", len(sessions.service.memberships))
    dropped = sessions.service.local_presence.dropped_signals
    samples.add("floorcast_sessions_signals_dropped_total", dropped)
    samples.add("floorcast_notices_posted_total", sessions.notifications.posted)
    samples.add("floorcast_notices_dropped_total", sessions.notifications.store.dropped_count)
    samples.add("floorcast_lifecycle_dropped_total", server.counters.total("lifecycle.dropped"))


def _read_hooks(server: Server, samples: Samples) -> None:
    for outcome in ("sent", "dropped"):
        count = server.counters.total(f"hooks.{outcome}")
        samples.add("floorcast_hooks_events_total", count, outcome)
    counters = server.counters
    samples.add("floorcast_hooks_waiting", server.backend.hook_queue.waiting)
    samples.add("floorcast_hooks_failures_total", counters.total("hooks.failed"))
    for outcome in ("allowed", "refused", "cached", "unavailable"):
        count = counters.total(f"hooks.authorize_{outcome}")
        samples.add("floorcast_hooks_questions_total", count, outcome)
    for name in ("hooks.request", "hooks.answer"):
        metric = f"floorcast_{name.replace('.', '_')}_seconds"
        samples.add_histograms(metric, counters.histograms(name))
    for outcome in ("published", "refused"):
        samples.add(f"floorcast_wills_{outcome}_total", counters.total(f"wills.{outcome}"))


def _read_broker(server: Server, samples: Samples) -> None:
    counters = server.counters
    samples.add("floorcast_broker_up", server.is_broker_up)
    for labels, histogram in counters.histograms("broker.latency").items():
        samples.add_histogram("floorcast_broker_latency_seconds", histogram, *labels)
    for name in ("errors", "disconnects", "reconnects"):
        samples.add(f"floorcast_broker_{name}_total", counters.total(f"broker.{name}"))
    for fault in _FAULTS:
        samples.add("floorcast_broker_faults_total", counters.total(f"broker.{fault}"), fault)


def _read_canary(server: Server, samples: Samples) -> None:
    counters = server.counters
    samples.add("floorcast_canary_topics", server.canary.topic_count)
    if not server.canary.is_on:
        return
    for name in ("messages", "gaps", "duplicates", "reorders", "checksum_errors", "cut_short"):
        samples.add(f"floorcast_canary_{name}_total", counters.total(f"canary.{name}"))
    samples.add("floorcast_canary_used_seconds_total", server.canary.used_seconds)
    for labels, histogram in counters.histograms("canary.age").items():
        samples.add_histogram("floorcast_canary_age_seconds", histogram, *labels)


def _read_counters(server: Server, samples: Samples) -> None:
    for name, count in server.counters.totals().items():
        samples.add("floorcast_counters_total", count, name)
