"""How busy the machine is while a run trains: MLflow's system metrics of processor, memory, disk, network, GPUs."""

import logging
import sys
from collections.abc import Callable, Mapping
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


class SystemMetrics:
    """Hands on the metrics and their step, every ten seconds, from a thread of its own.

    MLflow's own thread would end for good with the first request that fails. Its variables are heeded:
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL and the like, MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false for none at all.
    """

    def __init__(self, run_id: str, publish: Callable[[Mapping[str, float], int], None]) -> None:
        self._run_id, self._publish = run_id, publish
        self._stopped = Event()
        switch: Any = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
        if not switch.is_set() or switch.get():
            Thread(target=self._work, name="system-metrics", daemon=True).start()

    def stop(self) -> None:
        """Ends the samples."""
        self._stopped.set()

    def _work(self) -> None:
        try:
            self._sample()
        except Exception as error:  # an odd machine or driver must not cost the training
            print(f"warning: the system metrics end here ({error!r}).", file=sys.stderr, flush=True)

    def _sample(self) -> None:
        logging.getLogger(SystemMetricsMonitor.__module__).setLevel(logging.WARNING)  # it reports that it finds no GPU
        monitor: Any = SystemMetricsMonitor(self._run_id, resume_logging=True)  # type: ignore[no-untyped-call]
        monitor.mlflow_logger = SimpleNamespace(record_metrics=self._publish)
        while True:
            for _ in range(monitor.samples_before_logging):
                monitor.collect_metrics()
                if self._stopped.wait(monitor.sampling_interval):
                    return
            monitor.publish_metrics(monitor.aggregate_metrics())
