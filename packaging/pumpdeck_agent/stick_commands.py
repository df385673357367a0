"""The subcommands that serve a stick by themselves, and write the files that make the system call them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pumpdeck_agent.platform_here import user_ids
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.files import RealFileSystem


def find_bundle(options: argparse.Namespace) -> int:
    """Print the name of the folder that holds a bundle."""
    from pumpdeck_agent.stick_places import find_bundle as find

    sys.stdout.buffer.write(find(options.folder.absolute()).encode("utf-8") + b"\n")
    return 0


def stick_arrived(options: argparse.Namespace) -> int:
    """Serve a stick that was plugged in, or one that is mounted already."""
    from pumpdeck_agent.stick_arrival import ArrivalPlan, SystemMounter, serve_mounted
    from pumpdeck_agent.stick_arrival import stick_arrived as serve

    if bool(options.device) == bool(options.mounted):
        raise UsageError("needs one stick", "stick-arrived", expected="--device /dev/sdb1 or --mounted DIR")
    uid, gid = user_ids(options.user) if options.user else (-1, -1)
    plan = ArrivalPlan(options.root.absolute(), options.mount_at.absolute(), uid, gid)
    if options.mounted:
        found = serve_mounted(options.mounted.absolute(), plan)
    else:
        found = serve(options.device, plan, SystemMounter(max(uid, 0), max(gid, 0)))
    sys.stdout.buffer.write(canonical.encode(found) + b"\n")
    return found.exit_code


def stick_units(options: argparse.Namespace) -> int:
    """Write the udev rule and the systemd unit."""
    from pumpdeck_agent.own_command import MAIN, own_command
    from pumpdeck_agent.stick_units import StickService, write_units

    words = [str(options.agent.absolute())] if options.agent else own_command(MAIN)
    written = write_units(RealFileSystem(), options.to, StickService(words, options.root.absolute(), options.user))
    sys.stdout.buffer.write(canonical.encode({"written": written}) + b"\n")
    if options.to == Path("/"):
        sys.stderr.write("Now: systemctl daemon-reload; udevadm control --reload\n")
    return 0


def arrived_options(parser: argparse.ArgumentParser) -> None:
    """Options of `stick-arrived`."""
    from pumpdeck_agent.stick_arrival import MOUNT_ROOT

    parser.add_argument("--device", default="", help="the block device, such as /dev/sdb1; it is mounted and unmounted")
    parser.add_argument("--mounted", type=Path, help="a folder where the stick is mounted already")
    parser.add_argument("--mount-at", type=Path, default=MOUNT_ROOT, help=f"where sticks are mounted (default {MOUNT_ROOT})")
    parser.add_argument("--user", default="", help="as whom the stick is read (default: whoever runs this)")


def units_options(parser: argparse.ArgumentParser) -> None:
    """Options of `stick-units`."""
    parser.add_argument("--to", type=Path, default=Path("/"), help="write below this folder (default /)")
    parser.add_argument("--user", default="pumpdeck", help="the agent's user (default pumpdeck)")
    parser.add_argument("--agent", type=Path, help="the program that starts the agent (default: as this one was started)")


def find_options(parser: argparse.ArgumentParser) -> None:
    """Options of `find-bundle`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the stick is mounted")
