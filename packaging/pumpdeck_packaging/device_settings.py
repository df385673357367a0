"""How a device of some class runs some models: one rule for the package, the service and the container.

A rule and never a measurement, so that two builds of a package give the same bytes; the quality gate holds measured figures
against it, and the device checks it again in the trial.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pumpdeck_fleet.core.inventory import DeviceClass
from pumpdeck_packaging.manifest import Settings

# One row, on a device that may use a whole core; a smaller quota stretches it.
_ROW_LIMIT_US = 5_000.0
_TRIAL_MEMORY_MB = 256
# What `serve` holds: 64 MB with one pump, 80 MB with twenty (tests/bench/score.py).
_SERVE_MB = 64
_PUMPS_A_MB = 1
# Below this a graph is done before a second thread has woken up (docs/adr/0071).
_WORTH_THREADS_BYTES = 1024 * 1024
# A loaded graph holds about four times its bytes: the file, its tensors, packed copies and working memory.
_COPIES = 4
_MB = 1024 * 1024
_LEAST_QUOTA_PCT = 5


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What of a model decides how it is run: bytes of its graph, opset, and how many pumps of the device it serves."""

    onnx_bytes: int
    opset: int = 13
    pumps: int = 1


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """settings: what the package holds. memory_max_mb, cpu_quota_pct: bounds of the whole agent, its trial child included.

    needed_mb: what the agent and a trial beside it take; more than `memory_max_mb` means that the class is too small.
    ceiling_mb: what no device of the class may take for any models.
    """

    settings: Settings
    memory_max_mb: int
    cpu_quota_pct: int
    needed_mb: int
    ceiling_mb: int

    def unit_lines(self) -> tuple[str, ...]:
        """For the `[Service]` section of a systemd unit.

        It is written once, with rights that nobody has later: its bound is what the class allows, so that a larger model need not
        change it. A package that would need more is not built.
        """
        return (f"MemoryMax={self.ceiling_mb}M", f"CPUQuota={self.cpu_quota_pct}%")

    def container_options(self) -> tuple[str, ...]:
        """For `docker run`, `podman run` and what takes their options."""
        return (f"--memory={self.memory_max_mb}m", f"--cpus={self.cpu_quota_pct / 100:g}")


def device_settings(device_class: DeviceClass, models: ModelSize | Iterable[ModelSize] = ()) -> DeviceSettings:
    """The settings of a device class for the models of one device; without models those of any small one."""
    held = (models,) if isinstance(models, ModelSize) else tuple(models)
    graph_mb = sum(_COPIES * one.onnx_bytes // _MB for one in held)
    largest = max((one.onnx_bytes for one in held), default=0)
    quota_pct = max(device_class.cpu_quota_pct, 1)
    trial_mb = min(_TRIAL_MEMORY_MB + graph_mb, max(device_class.memory_mb // 2, 1))
    ceiling_mb = max(device_class.memory_mb * 3 // 4, 1)
    serve_mb = _SERVE_MB + graph_mb + sum(one.pumps for one in held) * _PUMPS_A_MB
    return DeviceSettings(
        settings=Settings(
            threads=max(device_class.threads, 1) if largest >= _WORTH_THREADS_BYTES else 1,
            spinning=False,
            latency_limit_us=_ROW_LIMIT_US / (min(quota_pct, 100) / 100),
            memory_limit_mb=trial_mb,
            golden_tolerance=1e-3,
        ),
        # While a package is on trial the active model goes on scoring beside it.
        memory_max_mb=min(serve_mb + trial_mb, ceiling_mb),
        cpu_quota_pct=max(quota_pct, _LEAST_QUOTA_PCT),
        needed_mb=2 * serve_mb,
        ceiling_mb=ceiling_mb,
    )
