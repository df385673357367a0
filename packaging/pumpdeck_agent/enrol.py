"""Make a device: its folders, its key, the root it will trust, its floor. Runs once, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.age_key import make_age_key
from pumpdeck_agent.config import AgentConfig, Layout
from pumpdeck_agent.receipts import Returned
from pumpdeck_agent.state import fresh_state
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.signing import generate_key
from pumpdeck_packaging.trust_floor import TrustFloor


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """The public half of the device key: what the console must know to believe this device's receipts; and of its age key."""

    public_pem: str
    key_id: str
    age_key: str = ""


def create_device(fs: FileSystem, root: Path, config: AgentConfig, trusted_root: bytes) -> DeviceIdentity:
    """A new device root folder with a new Ed25519 key; `trusted_root` is the TUF root metadata it will believe.

    Raises:
        ConflictError: this folder is a device's root already; nothing was changed.
    """
    layout = Layout(root)
    if fs.exists(layout.config):
        raise ConflictError("is a device's root folder already", str(root), hint="remove it to enrol anew")
    for folder in layout.folders():
        fs.mkdir(folder)
    for folder in layout.folders():
        fs.fsync_dir(folder.parent)
    key = generate_key()
    replace_file(fs, layout.device_key, key.private_pem())
    replace_file(fs, layout.device_public, key.public_pem.encode("ascii"))
    age_key = make_age_key(fs, layout)
    replace_file(fs, layout.trust_root, trusted_root)
    accepted = Accepted(fs, layout, config)
    accepted.save_root(trusted_root)
    accepted.save_floor(TrustFloor())
    replace_file(fs, layout.returned, canonical.encode(Returned(0)))
    StateFiles(fs, layout).save(fresh_state(config.min_seq))
    # Last: a folder without it is not a device, so a cut enrolment is simply begun again.
    replace_file(fs, layout.config, canonical.encode(config))
    return DeviceIdentity(key.public_pem, key.key_id, age_key)
