"""`pumpdeck-agent`: the command line of the device. Standard output is JSON (or RPC frames), standard error is talk.

Exit codes are those of the console: 0 done, 1 defect, 2 usage, 3 refused, 4 unreachable, 5 damaged, 6 not found, 7 busy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pumpdeck_agent.light_hashes import use_own_hashes

# One thread scores; a pool for each processor would only take memory. Whoever set it knows better.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if sys.argv[1:2] == ["serve"]:
    # Only what comes before the first import of hashlib can keep OpenSSL out of the process that stays for months.
    use_own_hashes()

from pumpdeck_agent import AGENT_VERSION, commands, stick_commands
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import EXIT_INTERRUPTED, PumpdeckError

ROOT_VARIABLE = "PUMPDECK_AGENT_ROOT"
DEFAULT_ROOT = "/var/lib/pumpdeck-agent"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except PumpdeckError as error:
        sys.stderr.buffer.write(canonical.encode(error.as_dict()) + b"\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pumpdeck-agent", description="The Pumpdeck agent of one device.")
    parser.add_argument("--version", action="version", version=f"pumpdeck-agent {AGENT_VERSION}")
    subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, help_text, run, add in _SUBCOMMANDS:
        subparser = subcommands.add_parser(name, help=help_text, description=help_text)
        root = Path(os.environ.get(ROOT_VARIABLE, DEFAULT_ROOT))
        subparser.add_argument(
            "--root", type=Path, default=root, help=f"the device's root folder (default {root}, or ${ROOT_VARIABLE})"
        )
        subparser.set_defaults(run=run)
        add(subparser)
    return parser


def _no_options(_: argparse.ArgumentParser) -> None:
    pass


def _init_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="agent.json as the console wrote it")
    parser.add_argument("--trusted-root", type=Path, required=True, help="the site's root metadata (1.root.json)")


def _enrol_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="folder", type=Path, required=True, metavar="DIR", help="the folder with the forms")
    parser.add_argument("--device", default="", help="which form, when there are several")
    parser.add_argument("--root-words", default="", help="the twelve words of the site's root on paper; else you are asked")
    parser.add_argument("--host-keys", type=Path, default=Path("/etc/ssh"), metavar="DIR", help="where SSH host keys lie")


def _serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every-s", type=float, default=0.5, help="how often the spool is looked at (default 0.5)")
    parser.add_argument("--once", action="store_true", help="score what waits, then end")


def _score_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="CSV or JSON lines as in the spool")


def _stick_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder on the stick, or a bundle in one file")
    parser.add_argument("--answer", type=Path, help="where the answer to a file goes (default: <file>.<device>.tar beside it)")


def _acknowledge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pump", help="the pump's tag")
    parser.add_argument("--by", required=True, help="who has seen the alarm")


def _settle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sha256", required=True, help="the digest this archive must have")
    parser.add_argument("--serial", type=int, default=0, help="the serial of its signed release")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels.json and the wheels for this computer")
    parser.add_argument("--wheels-sha256", default="", help="the digest wheels.json must have")


def _veto_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reason", nargs="?", default="", help="why no trial may start now")
    parser.add_argument("--hours", type=float, default=0.0, help="for how long (default: until it is lifted)")
    parser.add_argument("--lift", action="store_true", help="trials may start again")


def _tuf_client_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metadata-dir", type=Path, required=True, help="where the client keeps trusted metadata")
    parser.add_argument("--metadata-url", help="http address on this computer that serves metadata")
    parser.add_argument("--target-base-url", help="http address on this computer that serves targets")
    parser.add_argument("--target-dir", type=Path, help="where verified targets are put")
    parser.add_argument("--target-name", help="the target's path in the metadata")
    parser.add_argument("step", choices=["init", "refresh", "download"])
    parser.add_argument("trusted_root", type=Path, nargs="?", help="for init: the first root")


def _trip_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pump", help="the pump's tag")
    parser.add_argument("reason", nargs="?", default="", help="what tripped it")
    parser.add_argument("--hours", type=float, default=8.0, help="for how long at most (default 8)")
    parser.add_argument("--clear", action="store_true", help="it is not tripped, or was looked at")


_SUBCOMMANDS = (
    ("rpc", "Talk to a console: RPC frames on standard input and output.", commands.rpc, _no_options),
    ("serve", "Score what arrives in the spool, until stopped.", commands.serve, _serve_options),
    ("status", "Print how the device stands.", commands.status, _no_options),
    ("score", "Score one file as if it had arrived in the spool.", commands.score, _score_options),
    (
        "install-from",
        "Install what a bundle on a stick brings; leave receipts and telemetry on it.",
        commands.install_from,
        _stick_options,
    ),
    (
        "find-bundle",
        "Print which folder of a mounted stick holds a bundle.",
        stick_commands.find_bundle,
        stick_commands.find_options,
    ),
    (
        "stick-arrived",
        "Mount a stick that was plugged in, take it in when it is ours, unmount it.",
        stick_commands.stick_arrived,
        stick_commands.arrived_options,
    ),
    (
        "stick-units",
        "Write the udev rule and the systemd unit that call stick-arrived.",
        stick_commands.stick_units,
        stick_commands.units_options,
    ),
    ("resume", "Put right what a cut left behind; try a package that waits.", commands.resume, _no_options),
    ("facts", "Print what this computer is: processor, runtime, TPM, containers, clock.", commands.facts, _no_options),
    ("alarms", "Print the alarms that stand.", commands.alarms, _no_options),
    ("acknowledge", "Say that an alarm was seen: it is not repeated.", commands.acknowledge, _acknowledge_options),
    ("trip", "Say that a pump is tripped, or not any more: no trial on its device meanwhile.", commands.trip, _trip_options),
    ("veto", "Forbid trials on this device, or allow them again.", commands.veto, _veto_options),
    (
        "tuf-client",
        "Test the verifier: speak the command form of tuf-conformance, on loopback only.",
        commands.tuf_client,
        _tuf_client_options,
    ),
    ("check", "Say whether this agent works on this device; change nothing.", commands.check, _no_options),
    ("settle", "Put this archive into the device's first slot.", commands.settle, _settle_options),
    ("enrol", "Become the device that a form on a stick describes.", commands.enrol, _enrol_options),
    ("init", "Make this folder a device: keys, trust, folders.", commands.init, _init_options),
)


if __name__ == "__main__":
    sys.exit(main())
