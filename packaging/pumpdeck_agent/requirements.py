"""Is a package for this very device? Asked before anything of it is staged."""

from __future__ import annotations

from pumpdeck_agent.config import AgentConfig
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_packaging.manifest import Manifest


def check_requirements(config: AgentConfig, manifest: Manifest, runtime_version: str) -> None:
    """Raises: RefusedError: it is for another device, class or pump, or for a newer runtime."""
    what = "package"
    if manifest.device != config.device:
        raise RefusedError("is for another device", what, expected=config.device, found=manifest.device)
    wanted = manifest.requirements
    if wanted.device_class != config.device_class:
        raise RefusedError("is for another device class", what, expected=config.device_class, found=wanted.device_class)
    if _version(runtime_version) < _version(wanted.onnxruntime):
        raise RefusedError("needs a newer ONNX Runtime", what, expected=wanted.onnxruntime, found=runtime_version)
    for entry in manifest.pumps:
        pump = config.pump(entry.tag)
        if pump is None:
            raise RefusedError("holds a pump that is not at this device", what, found=entry.tag)
        if pump.type != entry.pump_type:
            raise RefusedError(f"takes {entry.tag} for another type", what, expected=pump.type, found=entry.pump_type)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
