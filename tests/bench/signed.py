"""A sync of a store with thousands of signed device keys: taken in for the first time, again, and the same rows without proof.

    python tests/bench/signed.py [--quick] [--json]

Prints processor time beside wall time: what a signature costs, and what it costs that all of them are known already.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pumpdeck_console.credentials import Source
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_console.operations.vouching import Circle, seal_chains, write_device_words
from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import KeyOptions, Workspace, open_workspace
from pumpdeck_fleet.store.merge import merge_store
from pumpdeck_packaging.signing import generate_key
from pumpdeck_sample.fleet import FleetSize, build_fleet
from pumpdeck_sample.fleet_files import POLICIES, fleet_toml, maker_toml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pumpdeck-signed-") as name:
        figures = measure(Path(name), 60 if options.quick else 10_000)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for key, value in figures.items():
        sys.stdout.write(f"{key:24} {value:12.3f}\n")


def measure(folder: Path, devices: int) -> dict[str, float]:
    sites = 2
    fleet = build_fleet(FleetSize(sites, devices // sites, 1), 7, architecture="x86_64", os_name="linux")
    files = {"fleet.toml": fleet_toml(fleet), "policies.toml": POLICIES}
    files |= {f"makers/{maker.id}.toml": maker_toml(maker) for maker in fleet.makers.values()}
    theirs = made(folder / "theirs", files)
    keys = folder / "keys"
    init_trust(theirs, TrustRequest(keys / "root", Source.PLAIN_FILE, str(keys / "mine"), insecure_storage=True))
    sign_wall_s, sign_s = timed(lambda: enrol_all(theirs))
    mine, plain = made(folder / "mine", files), made(folder / "plain", files)
    first_wall_s, first_s = timed(lambda: sync(mine, folder=str(theirs.root), new_roots=True))
    again_wall_s, again_s = min(timed(lambda: sync(mine, folder=str(theirs.root))) for _ in range(3))
    _, plain_s = timed(lambda: believed(plain, theirs))
    rows = len(mine.store.devices.all_keys())
    for workspace in (mine, plain, theirs):
        workspace.close()
    return {
        "signed_rows": rows,
        "sign_cpu_us_a_row": sign_s / rows * 1e6,
        "sign_wall_s": sign_wall_s,
        "first_cpu_s": first_s,
        "first_wall_s": first_wall_s,
        "first_vs_unproven": first_s / plain_s,
        "again_cpu_s": again_s,
        "again_wall_s": again_wall_s,
        "unproven_cpu_s": plain_s,
    }


def made(root: Path, files: dict[str, str]) -> Workspace:
    init_workspace(root, files=files)
    return open_workspace(root, keys=KeyOptions(insecure_storage=True))


def enrol_all(workspace: Workspace) -> None:
    circle = Circle(workspace)
    pens = {site.id: circle.pen((site.id,)) for site in workspace.fleet.sites}
    with workspace.store.atomic() as store:
        for device in workspace.fleet.devices:
            key = generate_key()
            store.devices.put_identity(device.id, key.public_pem, key.key_id, "", workspace.clock.now_ms())
            write_device_words(workspace, pens[device.site], device.id)
    seal_chains(workspace)


def believed(mine: Workspace, theirs: Workspace) -> None:
    with mine.store.atomic() as store:
        merge_store(store, theirs.store)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
