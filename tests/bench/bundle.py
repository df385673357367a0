"""What trust costs: metadata bytes of a site, a cold verification on a device, unpacking, and signing a whole fleet.

    python tests/bench/bundle.py [--json] [--quick]

`cold_verify_ms` is the first `verify_assignment` of a fresh process, after its imports (`verify_import_ms`), best and median of
several processes (`cpu`: its own processor time, for a computer that others use too); its ratio is to the bare Ed25519 checks of
the same metadata, which no verifier can do without.
`verify_install_ms` is all that a device does with a stick before the trial, on a site of 5 devices with 4 pumps each: verify,
unpack, write with sync, read back. `install_ms` is digest, unpacking, writing with sync, and reading back; its ratio is to
writing and syncing the same bytes as one file.

`export_verify_vs_cp_sha` writes a bundle of random packages (synced, read back past the cache) and then verifies it as its
readers do, list and digests; the peer is `cp -r`, `sync -f`, dropping the copy from the cache and `sha256sum`, which is what a
careful person does. Sync is on both sides: ours one fsync a file and a folder, theirs one `sync -f` for all.
`export_verify_vs_bare_cp_sha` is against `cp -r` and `sha256sum` of what is still in memory, which proves nothing about the
stick. `export_again_vs_first` exports onto a stick that holds all of it, `export_half_missing_vs_first` onto one that lacks
every second package. Taken in turns, best of the rounds, where the temporary folder lies; `--on DIR` takes another disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.store.artifacts import ArtifactStore
from pumpdeck_packaging.bundle import BundlePart, claim, write_bundle
from pumpdeck_packaging.bundle_index import package_file
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_stick import real_stick
from pumpdeck_packaging.bundle_tar import open_tar
from pumpdeck_packaging.bundle_tar_writer import real_place, write_bundle_tar
from pumpdeck_packaging.package_reader import load_folder, read_package, unpack_to
from pumpdeck_packaging.signing import generate_key
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from pumpdeck_packaging.verify import TrustState, verify_assignment
from support.packages import built_package
from support.trust import NOW_MS, SampleKeys, SampleSite

DEVICES = 5
PUMPS = 4
SIGNATURES = 9  # root 3 (checked by itself), targets, release, deploy, snapshot, timestamp, and root's second threshold

_COLD = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from pumpdeck_packaging.verify import TrustState, verify_assignment
imported = time.perf_counter()
folder = Path(sys.argv[1])
files = {path.name: path.read_bytes() for path in folder.iterdir()}
state = TrustState("gannet-d1", "gannet", files["1.root.json"])
ready, ready_cpu = time.perf_counter(), time.process_time()
verify_assignment(state, files, now_ms=int(sys.argv[2]), clock_synced=True)
done, done_cpu = time.perf_counter(), time.process_time()
print((done - ready) * 1e3, (imported - started) * 1e3, (done_cpu - ready_cpu) * 1e3)
"""


def measure_site(folder: Path, rounds: int) -> dict[str, float]:
    """Metadata bytes and the cold verification of a site with five devices."""
    site = SampleSite(folder / "sites")
    built = [built_package(f"gannet-d{number}", pumps=PUMPS) for number in range(1, DEVICES + 1)]
    site.trust.release([PackageRelease(one, {"esp-health": 1}) for one in built], site.keys.release)
    requests = [AssignmentRequest(one.manifest.device, one.sha256, f"task-{one.manifest.device}") for one in built]
    site.trust.assign(requests, site.keys.laptops[0])
    stick = folder / "stick"
    stick.mkdir()
    for name, data in site.files().items():
        (stick / name).write_bytes(data)
    runs = [_cold(stick) for _ in range(rounds)]
    floor_ms = _signature_ms() * SIGNATURES
    whole = _verify_install(folder / "installs", stick, built[0].data, rounds)
    best = min(run[0] for run in runs)
    return {
        "devices": DEVICES,
        "pumps": DEVICES * PUMPS,
        "site_metadata_bytes": sum(len(data) for name, data in site.files().items() if name != "assign.json"),
        "cold_verify_ms": best,
        "cold_verify_median_ms": statistics.median(run[0] for run in runs),
        "cold_verify_cpu_ms": min(run[2] for run in runs),
        "cold_verify_vs_signatures": best / floor_ms,
        "verify_import_ms": min(run[1] for run in runs),
        "verify_install_ms": min(whole),
        "verify_install_median_ms": statistics.median(whole),
    }


def _verify_install(folder: Path, stick: Path, package: bytes, rounds: int) -> list[float]:
    """Verify the assignment, unpack and write its package with sync, read it back: what a stick asks of a device, in ms."""
    folder.mkdir()
    fs, times = RealFileSystem(), []
    for number in range(rounds):
        started = time.perf_counter()
        files = {path.name: path.read_bytes() for path in stick.iterdir()}
        state = TrustState("gannet-d1", "gannet", files["1.root.json"])
        verified = verify_assignment(state, files, now_ms=NOW_MS + 1000, clock_synced=True).package
        unpacked = read_package(package, expected_sha256=verified.sha256, max_unpacked_bytes=verified.words.unpacked_bytes)
        unpack_to(fs, folder / str(number), unpacked)
        load_folder(fs, folder / str(number), manifest_digest=unpacked.manifest_digest)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def _cold(stick: Path) -> tuple[float, float, float]:
    command = [sys.executable, "-c", _COLD, str(stick), str(NOW_MS + 1000)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    verify_ms, import_ms, cpu_ms = map(float, output.split())
    return verify_ms, import_ms, cpu_ms


def _signature_ms() -> float:
    key = generate_key()
    payload = bytes(1500)
    signature = key.sign(payload)
    from securesystemslib.signer import Signature

    from pumpdeck_packaging.signing import public_key_of

    public, held = public_key_of(key.public_pem), Signature(key.key_id, signature.hex())
    return _best_ms(lambda: public.verify_signature(held, payload), 50)


def measure_package(folder: Path, rounds: int) -> dict[str, float]:
    """Building and installing the package of a device with four pumps."""
    built, fs = built_package(pumps=4), RealFileSystem()
    count = iter(range(10**6))

    def install() -> None:
        target = folder / f"store-{next(count)}"
        package = read_package(built.data, expected_sha256=built.sha256, max_unpacked_bytes=built.unpacked_bytes)
        unpack_to(fs, target, package)
        load_folder(fs, target, manifest_digest=package.manifest_digest)

    install_ms = _best_ms(install, rounds)
    copy_ms = _best_ms(lambda: replace_file(fs, folder / "copy", bytes(built.unpacked_bytes)), rounds)
    return {
        "package_bytes": len(built.data),
        "build_ms": _best_ms(lambda: built_package(pumps=4), rounds),
        "install_ms": install_ms,
        "install_vs_one_synced_file": install_ms / copy_ms,
    }


def measure_fleet(folder: Path, sites: int, devices: int) -> dict[str, float]:
    """Releasing and assigning a package for every device of a fleet: one step a site."""
    keys = SampleKeys()
    founded = [SampleSite(folder / "fleet", f"site-{number}", keys) for number in range(sites)]
    packages = [[built_package(f"site-{s}-d{d}") for d in range(devices)] for s in range(sites)]
    started = time.perf_counter()
    for site, built in zip(founded, packages, strict=True):
        site.trust.release([PackageRelease(one, {"esp-health": 1}) for one in built], keys.release)
        requests = [AssignmentRequest(one.manifest.device, one.sha256, one.manifest.device) for one in built]
        site.trust.assign(requests, keys.laptops[0])
    return {"fleet_sites": sites, "fleet_packages": sites * devices, "fleet_sign_s": time.perf_counter() - started}


def measure_export(folder: Path, packages: int, total_mb: int, rounds: int) -> dict[str, float]:
    """Export and verification of a bundle against a careful and a bare copy of the same bytes."""
    source = folder / "artifacts"
    source.mkdir()
    artifacts = ArtifactStore(source, RealFileSystem())
    size = total_mb * 1_000_000 // packages
    rng = random.Random(5)
    digests = [artifacts.put(rng.randbytes(size)) for _ in range(packages)]
    parts = [BundlePart(package_file("gannet", one), size, one, partial(artifacts.get_unproven, one)) for one in digests]
    ours, careful, bare, again, resumed, letter = [], [], [], [], [], []
    for number in range(rounds):
        stick = folder / f"stick{number}"
        ours.append(_timed(partial(_export, stick, parts)))
        if not number:
            again.append(_timed(partial(_export, stick, parts)))
            for path in sorted(stick.rglob("packages/*"))[::2]:
                path.unlink()
            resumed.append(_timed(partial(_export, stick, parts)))
            letter.append(_timed(partial(_export_tar, folder / "letter.tar", parts)))
            (folder / "letter.tar").unlink()
        careful.append(_timed(partial(_copy, source, folder / f"copy{number}", is_careful=True)))
        bare.append(_timed(partial(_copy, source, folder / f"bare{number}", is_careful=False)))
        for name in ("stick", "copy", "bare"):
            shutil.rmtree(folder / f"{name}{number}")
        os.sync()
    return {
        "export_packages": packages,
        "export_mb": total_mb,
        "export_verify_s": min(ours),
        "export_mb_per_s": total_mb / min(ours),
        "cp_sync_sha_s": min(careful),
        "export_verify_vs_cp_sha": min(ours) / min(careful),
        "export_verify_vs_bare_cp_sha": min(ours) / min(bare),
        "export_again_vs_first": min(again) / min(ours),
        "export_half_missing_vs_first": min(resumed) / min(ours),
        "tar_verify_vs_cp_sha": min(letter) / min(careful),
    }


def _export(folder: Path, parts: list[BundlePart]) -> None:
    stick = real_stick(folder)
    name = claim(stick, "ws-bench", "b-bench")
    write_bundle(stick, name, parts, before_index=lambda: None, on_progress=lambda *_: None, workers=4)
    reader = BundleReader(stick.fs, folder)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: len(reader.read(path, 1 << 30)), reader.index.files))


def _export_tar(path: Path, parts: list[BundlePart]) -> None:
    write_bundle_tar(real_place(path), "ws-bench", parts, before_index=lambda: None, on_progress=lambda *_: None)
    letter = open_tar(path, RealFileSystem())
    reader = BundleReader(letter, path)
    for name in reader.index.files:
        reader.read(name, 1 << 30)
    letter.close()


def _copy(source: Path, target: Path, *, is_careful: bool) -> None:
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    if is_careful:
        subprocess.run(["sync", "-f", str(target)], check=True)
        for path in target.rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
    command = f"find {shlex.quote(str(target))} -type f -print0 | xargs -0 sha256sum"
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _best_ms(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="few rounds, 3 sites, a bundle of 20 packages and 20 MB")
    parser.add_argument("--on", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    rounds = 3 if options.quick else 15
    with tempfile.TemporaryDirectory(dir=options.on) as name:
        folder = Path(name)
        figures = {
            **measure_site(folder, rounds),
            **measure_package(folder, rounds * 3),
            **measure_fleet(folder, 3 if options.quick else 12, 20),
            **(measure_export(folder, 20, 20, 2) if options.quick else measure_export(folder, 200, 1000, 3)),
        }
    rounded = {name: round(value, 3) for name, value in figures.items()}
    if options.json:
        print(json.dumps(rounded))
        return
    print(f"a site with {DEVICES} devices, a package of 4 pumps, best of {rounds}")
    for name, value in rounded.items():
        print(f"  {name:28} {value:>12g}")


if __name__ == "__main__":
    main()
