"""A word from the site: no trial now. `veto.json` holds the reason and until when; by hand or by command."""

from __future__ import annotations

from pumpdeck_agent.config import Layout
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

_MAX_BYTES = 4096


def read_veto(fs: FileSystem, layout: Layout, now_ms: int) -> Veto | None:
    """The veto in force. A file that cannot be read is a veto too: somebody wanted to say something."""
    try:
        data = fs.read_bytes(layout.veto, _MAX_BYTES)
        veto = canonical.decode(Veto, data, "veto.json", max_bytes=_MAX_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, PumpdeckError):
        return Veto("veto.json cannot be read", 0)
    return None if 0 < veto.until_ms <= now_ms else veto


def set_veto(fs: FileSystem, layout: Layout, veto: Veto) -> None:
    """From now on no trial starts on this device."""
    replace_file(fs, layout.veto, canonical.encode(veto))


def lift_veto(fs: FileSystem, layout: Layout) -> None:
    """Trials may start again."""
    fs.unlink(layout.veto)
    fs.fsync_dir(layout.root)
