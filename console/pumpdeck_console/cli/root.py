"""The command `pumpdeck` itself: the table of commands and what happens without one."""

from __future__ import annotations

import sys

import click

from pumpdeck_console import __version__
from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.session import ConsoleWanted, Session

_CLI = "pumpdeck_console.cli"

COMMANDS = {
    "demo": (f"{_CLI}.demo:demo", "Open the console on a sample fleet with simulated devices."),
    "init": (f"{_CLI}.workspace:init", "Make a new workspace folder."),
    "doctor": (f"{_CLI}.workspace:doctor", "Check the workspace, its keys and its store."),
    "sites": (f"{_CLI}.fleet:sites", "List sites with the health of their pumps."),
    "pumps": (f"{_CLI}.fleet:pumps", "List pumps, or show one."),
    "devices": (f"{_CLI}.fleet:devices", "List devices, show one, enrol or retire one."),
    "ingest": (f"{_CLI}.ingest:ingest", "Bring CSV or Parquet files of rows into the store."),
    "telemetry": (f"{_CLI}.telemetry:telemetry", "Show the rows of PUMP."),
    "label": (f"{_CLI}.labels:label", "Write or list labels: what the crew found on a pump."),
    "train": (f"{_CLI}.training:train", "Train the models of PUMP_TYPE, or of every pump type that has rows."),
    "runs": (f"{_CLI}.models:runs", "List training runs, show, compare or replay one, or follow the one that is running."),
    "snapshots": (f"{_CLI}.snapshots:snapshots", "List frozen training sets, show, compare or export one."),
    "retention": (f"{_CLI}.snapshots:retention", "Remove the rows and snapshots that policies.toml keeps no longer."),
    "experiments": (
        f"{_CLI}.experiments:experiments",
        "Try other settings of a pipeline on a branch: start, run, compare, merge or drop one.",
    ),
    "models": (f"{_CLI}.models:models", "List model versions, show, compare, profile, import, promote or demote one."),
    "trust": (f"{_CLI}.trust:trust", "Found the trust of sites, change who may sign, or show how it stands."),
    "package": (f"{_CLI}.packages:package", "Build, release, list or show the signed packages of devices."),
    "rollout": (f"{_CLI}.rollouts:rollout", "Plan, start, list, show, halt, resume or abort rollouts."),
    "approve": (f"{_CLI}.rollouts:approve", "Approve the plan of a ROLLOUT; with enough approvals it runs."),
    "tick": (f"{_CLI}.delivering:tick", "Let time pass in all rollouts and deliver what is due."),
    "why": (f"{_CLI}.rollouts:why", "Say why DEVICE does not run what it should, the first reason first."),
    "collect": (
        f"{_CLI}.delivering:collect",
        "Take what waits on devices: receipts, alarms, sketches, scores, segments.",
    ),
    "bundle": (f"{_CLI}.bundles:bundle", "Carry packages out and returns back on a stick."),
    "trip": (f"{_CLI}.trips:trip", "Prepare a trip to devices, and take in what was done on it."),
    "backup": (f"{_CLI}.backups:backup", "Write everything of the workspace into TO, and read it all back."),
    "restore": (f"{_CLI}.backups:restore", "Make a new workspace from the backup in FROM."),
    "sync": (f"{_CLI}.syncing:sync", "Take in what another workspace, or a backup of one, knows."),
    "drift": (f"{_CLI}.drift:drift", "List how far pumps have drifted from their reference window."),
    "explain": (
        f"{_CLI}.explaining:explain",
        "Say which model, limit and calibration judged PUMP at a moment, and what proves it.",
    ),
    "drill": (f"{_CLI}.drill:drill", "Do to a device what a bad day does, and count what breaks."),
    "audit": (f"{_CLI}.audit:audit", "List, verify, export or checkpoint the audit chain."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, invoke_without_command=True)
@click.version_option(__version__, "-V", "--version", message="pumpdeck %(version)s")
@click.pass_context
def root(context: click.Context) -> ConsoleWanted | None:
    """Keep the machine-learning models on your pumps true, safe and current.

    Without a command, in a terminal, the console opens.
    """
    session = context.ensure_object(Session)
    context.call_on_close(session.close)
    if context.invoked_subcommand is not None:
        return None
    if not is_terminal():
        raise click.UsageError("the console needs a terminal; give a command", context)
    return ConsoleWanted(session.path)


def is_terminal() -> bool:
    """True when a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
