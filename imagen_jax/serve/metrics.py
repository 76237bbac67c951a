"""Figures of the server in Prometheus' format."""

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)  # bounds of histograms
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and histograms of one server; methods of the client's objects lock by themselves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        seconds = functools.partial(Histogram, buckets=SECONDS, registry=self.registry)
        self.requests = Counter(
            "imagen_requests", "Requests answered", ["path", "status"], registry=self.registry
        )
        self.request_seconds = seconds(
            "imagen_request_seconds",
            "Time from a request's first byte to its answer's last",
            ["path"],
        )
        self.queue_seconds = seconds("imagen_queue_seconds", "Time an image waits to be begun")
        self.stage_seconds = seconds("imagen_stage_seconds", "Time a batch takes", ["stage"])
        self.images = Counter("imagen_images", "Images finished", registry=self.registry)
        self.cancelled = Counter(
            "imagen_cancelled_images", "Images begun that nobody waited for", registry=self.registry
        )
        self.rows = Counter(
            "imagen_batch_rows",
            "Rows computed: with an image, or filling up",
            ["use"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "imagen_waiting_images", "Images that wait to be begun", registry=self.registry
        )
        self.active = Gauge(
            "imagen_active_requests", "Requests that wait for images", registry=self.registry
        )

    def text(self) -> bytes:
        """All figures, as a scraper reads them; of `CONTENT_TYPE`."""
        return generate_latest(self.registry)
