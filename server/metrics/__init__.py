"""Metrics: their catalogue, the samples of one process, and the admin listener that shows them."""

from server.metrics.admin import Reports, create_admin_app
from server.metrics.catalogue import METRICS, Kind, Metric
from server.metrics.samples import Report, Samples
from server.metrics.totals import amounts, totals, with_earlier

__all__ = [
    "METRICS",
    "Kind",
    "Metric",
    "Report",
    "Reports",
    "Samples",
    "amounts",
    "create_admin_app",
    "totals",
    "with_earlier",
]
