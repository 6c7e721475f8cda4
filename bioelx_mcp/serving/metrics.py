"""Prometheus metrics of the HTTP server. Several workers write to files of a common directory, and any of them answers for all."""

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from bioelx_mcp.serving.observe import Call

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the variable that prometheus_client reads
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counts requests, their time, what they were about and what was refused before it became a request."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "bioelx_requests",
            "MCP requests",
            ("method", "tool", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "bioelx_request_seconds",
            "Time of one MCP request",
            ("method", "tool"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._things = Counter(
            "bioelx_things",
            "Mentions, items and ids asked about; candidates and concepts answered with; errors among them",
            ("tool", "kind"),
            registry=self._registry,
        )
        self._refused = Counter(
            "bioelx_http_refused", "HTTP requests refused", ("status",), registry=self._registry
        )

    def observe(self, call: Call) -> None:
        self._requests.labels(call.method, call.tool, call.outcome).inc()
        self._seconds.labels(call.method, call.tool).observe(call.seconds)
        for kind, count in call.counts.items():
            self._things.labels(call.tool, kind).inc(count)

    def refuse(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
