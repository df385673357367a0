"""What `doctor` says about keys: which one is found where, whether it still counts, and who has not heard of a change."""

from __future__ import annotations

from pumpdeck_console.operations.trust import KEY_NAMES, key_report
from pumpdeck_console.operations.trust_contact import exposed
from pumpdeck_console.operations.trust_view import list_keys
from pumpdeck_console.operations.workspace import Finding
from pumpdeck_console.wiring import Workspace

_SHOWN = 3


def keys_finding(workspace: Workspace) -> Finding:
    """Each key of this computer: the first place that has it, its id, and warnings that people must see."""
    ids = {name: key_id for key_id, name in workspace.credentials.public_ids().items()}
    found = {name: key_report(workspace, name).source for name in KEY_NAMES}
    words = ", ".join(
        f"{name}: {source or 'nowhere'}" + (f" ({ids[name][:12]})" if source and name in ids else "")
        for name, source in found.items()
    )
    if not all(found.values()):
        return Finding("keys", "warn", words, "pumpdeck trust init makes them; trust status says where was looked")
    if strange := _not_counting(workspace, ids):
        return Finding("keys", "warn", f"{words}; {strange}", "give another with --key-file, or ask for: pumpdeck trust add")
    if "plain file" in found.values():
        return Finding("keys", "warn", words, "a plain file has no passphrase: who copies it can sign")
    return Finding("keys", "ok", words)


def exposed_finding(workspace: Workspace) -> Finding:
    """Devices that may still believe a key that was revoked, and warnings on roles that are not about time."""
    rows = exposed(workspace)
    lasting = [row for row in list_keys(workspace) if _is_lasting(row.warning)]
    warnings = sorted({f"{row.site} {row.role}: {row.warning}" for row in lasting})
    if rows:
        names = ", ".join(row.device for row in rows[:_SHOWN])
        words = f"{len(rows)} devices are not known to have the newest keys, such as {names}"
        return Finding("key changes", "warn", words, "pumpdeck collect, or a stick; pumpdeck trust exposed lists them")
    if warnings:
        return Finding("key changes", "warn", "; ".join(warnings[:_SHOWN]), "see: pumpdeck trust status")
    return Finding("key changes", "ok", "every enrolled device has the newest keys")


def _not_counting(workspace: Workspace, ids: dict[str, str]) -> str:
    """Which key of this computer is no key of a site's role, though it was made for it."""
    rows = list_keys(workspace)
    for role in ("targets", "release", "deploy"):
        mine = {key_id for name, key_id in ids.items() if name.partition("-")[0] == role}
        for site in sorted({row.site for row in rows}) if mine else ():
            if not mine & {row.key_id for row in rows if (row.site, row.role) == (site, role)}:
                return f"the {role} key here is no {role} key of {site}"
    return ""


def _is_lasting(warning: str) -> bool:
    # What runs out is said by the finding about trust.
    return bool(warning) and not warning.startswith(("runs out", "ran out"))

