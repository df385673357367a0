"""All operations by name, and how the worker process runs one. Names only: looking one up imports that one and no other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pumpdeck_console.operations.base import Entry, find
from pumpdeck_console.wiring import open_workspace
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.ports import Progress

_OPERATIONS = "pumpdeck_console.operations"

WORKERS = {
    "ingest": Entry(f"{_OPERATIONS}.ingest:ingest_files", "worker"),
    "label": Entry(f"{_OPERATIONS}.labels:add_label", "worker"),
    "label.import": Entry(f"{_OPERATIONS}.labels:import_labels", "worker"),
    "models.promote": Entry(f"{_OPERATIONS}.models:promote", "worker"),
    "models.profile": Entry(f"{_OPERATIONS}.profiling:profile_version", "worker"),
    "models.check_import": Entry(f"{_OPERATIONS}.importing:check_import", "worker"),
    "models.import": Entry(f"{_OPERATIONS}.importing:import_model", "worker"),
    "models.demote": Entry(f"{_OPERATIONS}.models:demote", "worker"),
    "snapshots.export": Entry(f"{_OPERATIONS}.snapshot_export:export_snapshot", "worker"),
    "retention": Entry(f"{_OPERATIONS}.retention:apply_retention", "worker"),
    **{
        f"experiments.{name}": Entry(f"{_OPERATIONS}.experiments:{name}_experiment", "worker")
        for name in ("start", "run", "merge", "drop")
    },
    "runs.export": Entry(f"{_OPERATIONS}.run_export:export_run", "worker"),
    "runs.replay_file": Entry(f"{_OPERATIONS}.run_export:replay_file", "worker"),
    "runs.replay": Entry(f"{_OPERATIONS}.replaying:replay_run", "worker"),
    "train": Entry(f"{_OPERATIONS}.training:train_models", "worker"),
    "devices.enrol": Entry(f"{_OPERATIONS}.devices:enrol", "worker"),
    "devices.upgrade": Entry(f"{_OPERATIONS}.upgrading:upgrade_devices", "worker"),
    "devices.enrol_all": Entry(f"{_OPERATIONS}.devices:enrol_known", "worker"),
    "devices.write_forms": Entry(f"{_OPERATIONS}.stick_enrolment:write_forms", "worker"),
    "devices.accept_answer": Entry(f"{_OPERATIONS}.stick_enrolment:accept_answer", "worker"),
    "devices.dismiss": Entry(f"{_OPERATIONS}.requests:dismiss_requests", "worker"),
    "devices.retire": Entry(f"{_OPERATIONS}.retiring:retire", "worker"),
    "tick": Entry(f"{_OPERATIONS}.delivering:tick", "worker"),
    "collect": Entry(f"{_OPERATIONS}.delivering:collect", "worker"),
    "bundle.export": Entry(f"{_OPERATIONS}.bundles:export_bundle", "worker"),
    "bundle.tar": Entry(f"{_OPERATIONS}.bundles:export_tar", "worker"),
    "bundle.agent": Entry(f"{_OPERATIONS}.bundle_agent:add_agent", "worker"),
    "bundle.reissue": Entry(f"{_OPERATIONS}.bundles:reissue_stick", "worker"),
    "bundle.carry": Entry(f"{_OPERATIONS}.sticks:carry_stick", "worker"),
    "bundle.lost": Entry(f"{_OPERATIONS}.sticks:lose_stick", "worker"),
    "bundle.intake": Entry(f"{_OPERATIONS}.bundles:intake_bundle", "worker"),
    "trust.change_recipients": Entry(f"{_OPERATIONS}.recipients:change_recipients", "worker"),
    "rollout.adopt": Entry(f"{_OPERATIONS}.rollouts:adopt", "worker"),
    "backup": Entry(f"{_OPERATIONS}.backups:backup", "worker"),
    "backup.verify": Entry(f"{_OPERATIONS}.backups:prove_backup", "worker"),
    "trip.plan": Entry(f"{_OPERATIONS}.trips:plan_trip", "worker"),
    "trip.prepare": Entry(f"{_OPERATIONS}.trips:prepare_trip", "worker"),
    "trip.plan_to": Entry(f"{_OPERATIONS}.trip_actions:plan_trip_to", "worker"),
    "trip.prepare_to": Entry(f"{_OPERATIONS}.trip_actions:prepare_trip_to", "worker"),
    "trip.return": Entry(f"{_OPERATIONS}.trips:return_trip", "worker"),
    "sync": Entry(f"{_OPERATIONS}.syncing:sync", "worker"),
    "sync.plan": Entry(f"{_OPERATIONS}.syncing:plan_sync", "worker"),
    "sync.settle": Entry(f"{_OPERATIONS}.settling:settle", "worker"),
    "trust.unsigned": Entry(f"{_OPERATIONS}.countersigning:list_unsigned", "worker"),
    "trust.vouch": Entry(f"{_OPERATIONS}.countersigning:vouch", "worker"),
    "drift.judge": Entry(f"{_OPERATIONS}.drift:judge", "worker"),
    "package.agent": Entry(f"{_OPERATIONS}.agent_releases:build_agent_release", "worker"),
    "package.build": Entry(f"{_OPERATIONS}.packages:build_packages", "worker"),
    "package.publish_release": Entry(f"{_OPERATIONS}.releasing:publish_release", "worker"),
    "trust.name": Entry(f"{_OPERATIONS}.trust_changing:name_holder", "worker"),
    "rollout.start": Entry(f"{_OPERATIONS}.rollouts:start", "worker"),
    "rollout.approve": Entry(f"{_OPERATIONS}.rollouts:approve", "worker"),
    "rollout.halt": Entry(f"{_OPERATIONS}.rollouts:halt", "worker"),
    "rollout.resume": Entry(f"{_OPERATIONS}.rollouts:resume", "worker"),
    "rollout.abort": Entry(f"{_OPERATIONS}.rollouts:abort", "worker"),
}
READERS = {
    "ingest.list": Entry(f"{_OPERATIONS}.ingest:list_ingests", "reader"),
    "doctor": Entry(f"{_OPERATIONS}.workspace:doctor", "reader"),
    "pumps.list": Entry(f"{_OPERATIONS}.fleet:list_pumps", "reader"),
    "pumps.show": Entry(f"{_OPERATIONS}.fleet:show_pump", "reader"),
    "sites.list": Entry(f"{_OPERATIONS}.fleet:list_sites", "reader"),
    "devices.list": Entry(f"{_OPERATIONS}.fleet:list_devices", "reader"),
    "devices.plan_upgrade": Entry(f"{_OPERATIONS}.upgrading:plan_upgrade", "reader"),
    "devices.show": Entry(f"{_OPERATIONS}.fleet:show_device", "reader"),
    "devices.read_answers": Entry(f"{_OPERATIONS}.stick_enrolment:read_answers", "reader"),
    "devices.retire_plan": Entry(f"{_OPERATIONS}.retiring:plan_retire", "reader"),
    "devices.requests": Entry(f"{_OPERATIONS}.requests:list_requests", "reader"),
    "devices.history": Entry(f"{_OPERATIONS}.retiring:device_history", "reader"),
    "telemetry": Entry(f"{_OPERATIONS}.telemetry:read_rows", "reader"),
    "package.list": Entry(f"{_OPERATIONS}.packages:list_packages", "reader"),
    "package.show": Entry(f"{_OPERATIONS}.packages:show_package", "reader"),
    "bundle.plan": Entry(f"{_OPERATIONS}.bundle_plan:plan_bundle", "reader"),
    "bundle.agent_plan": Entry(f"{_OPERATIONS}.bundle_agent:plan_agent", "reader"),
    "bundle.sticks": Entry(f"{_OPERATIONS}.sticks:list_sticks", "reader"),
    "bundle.awaited": Entry(f"{_OPERATIONS}.bundles:awaited", "reader"),
    "sync.conflicts": Entry(f"{_OPERATIONS}.syncing:list_conflicts", "reader"),
    "drift.list": Entry(f"{_OPERATIONS}.drift:list_drift", "reader"),
    "downgrade.list": Entry(f"{_OPERATIONS}.downgrading:waiting", "reader"),
    "trust.status": Entry(f"{_OPERATIONS}.trust:trust_status", "reader"),
    "trust.recipients": Entry(f"{_OPERATIONS}.recipients:list_recipients", "reader"),
    "trust.plan_recipients": Entry(f"{_OPERATIONS}.recipients:plan_recipients", "reader"),
    "trust.keys": Entry(f"{_OPERATIONS}.trust_view:list_keys", "reader"),
    "trust.signed_by": Entry(f"{_OPERATIONS}.trust_view:signed_by", "reader"),
    "trust.exposed": Entry(f"{_OPERATIONS}.trust_contact:exposed", "reader"),
    "trust.root": Entry(f"{_OPERATIONS}.trust:root_bytes", "reader"),
    "rollout.plan": Entry(f"{_OPERATIONS}.rollouts:plan_new", "reader"),
    "rollout.list": Entry(f"{_OPERATIONS}.rollouts:list_rollouts", "reader"),
    "rollout.show": Entry(f"{_OPERATIONS}.rollouts:show", "reader"),
    "why": Entry(f"{_OPERATIONS}.rollouts:why", "reader"),
    "label.list": Entry(f"{_OPERATIONS}.labels:list_labels", "reader"),
    "models.list": Entry(f"{_OPERATIONS}.models:list_models", "reader"),
    "models.compare": Entry(f"{_OPERATIONS}.comparing:compare_versions", "reader"),
    "models.card": Entry(f"{_OPERATIONS}.models:read_card", "reader"),
    "runs.live": Entry(f"{_OPERATIONS}.run_logs:list_live", "reader"),
    "runs.log": Entry(f"{_OPERATIONS}.run_logs:read_log", "reader"),
    "runs.list": Entry(f"{_OPERATIONS}.runs:list_runs", "reader"),
    "runs.diff": Entry(f"{_OPERATIONS}.run_diff:diff_runs", "reader"),
    "runs.show": Entry(f"{_OPERATIONS}.run_logs:show_run", "reader"),
    "snapshots.list": Entry(f"{_OPERATIONS}.snapshots:list_snapshots", "reader"),
    "snapshots.show": Entry(f"{_OPERATIONS}.snapshots:show_snapshot", "reader"),
    "snapshots.diff": Entry(f"{_OPERATIONS}.snapshots:diff_snapshots", "reader"),
    "experiments.list": Entry(f"{_OPERATIONS}.experiments:list_experiments", "reader"),
    "experiments.compare": Entry(f"{_OPERATIONS}.experiments:compare_experiments", "reader"),
    "retention.plan": Entry(f"{_OPERATIONS}.retention:plan_retention", "reader"),
    "explain": Entry(f"{_OPERATIONS}.explaining:explain", "reader"),
    "audit.list": Entry(f"{_OPERATIONS}.audit:list_audit", "reader"),
    "audit.verify": Entry(f"{_OPERATIONS}.audit:verify_audit", "reader"),
    "audit.checkpoint": Entry(f"{_OPERATIONS}.audit:sign_checkpoint", "reader"),
    "audit.compare": Entry(f"{_OPERATIONS}.audit:compare_checkpoint", "reader"),
    "view.fleet": Entry(f"{_OPERATIONS}.fleet_view:fleet_view", "reader"),
    "view.pump": Entry(f"{_OPERATIONS}.fleet_view:pump_detail", "reader"),
    "view.models": Entry(f"{_OPERATIONS}.rollout_view:models_view", "reader"),
    "view.rollouts": Entry(f"{_OPERATIONS}.rollout_view:rollouts_view", "reader"),
    "view.rollout": Entry(f"{_OPERATIONS}.rollout_view:rollout_detail", "reader"),
    "view.audit": Entry(f"{_OPERATIONS}.rollout_view:audit_view", "reader"),
    "view.bundles": Entry(f"{_OPERATIONS}.bundle_view:bundles_view", "reader"),
    "view.runs": Entry(f"{_OPERATIONS}.run_views:runs_view", "reader"),
    "view.live": Entry(f"{_OPERATIONS}.run_views:live_view", "reader"),
    "view.run": Entry(f"{_OPERATIONS}.run_views:run_detail", "reader"),
    "view.keys": Entry(f"{_OPERATIONS}.keys_view:keys_view", "reader"),
    "view.upkeep": Entry(f"{_OPERATIONS}.upkeep_view:upkeep_view", "reader"),
    "view.audit_check": Entry(f"{_OPERATIONS}.rollout_view:audit_check", "reader"),
    "view.plan": Entry(f"{_OPERATIONS}.plans:plan", "reader"),
    "view.link": Entry(f"{_OPERATIONS}.rollout_view:link_view", "reader"),
}
OPERATIONS: Mapping[str, Entry] = {**WORKERS, **READERS}


def open_worker(context: Mapping[str, Any]) -> Callable[[str, Mapping[str, Any], Progress], Any]:
    """What the worker process runs: operations of the workspace named by `context`, by name and with plain arguments.

    Each operation gets a workspace of its own, so that what people changed in the files meanwhile is read again.
    """
    root = Path(str(context["workspace"]))

    def run(name: str, arguments: Mapping[str, Any], on_progress: Progress) -> Any:
        function = find(WORKERS, name).load()
        signature = inspect.signature(function)
        given = dict(arguments)
        if "on_progress" in signature.parameters:
            given["on_progress"] = on_progress
        with open_workspace(root) as workspace:
            try:
                signature.bind(workspace, **given)
            except TypeError as error:
                raise UsageError("does not take these arguments", name, found=", ".join(sorted(arguments))) from error
            return function(workspace, **given)

    return run
