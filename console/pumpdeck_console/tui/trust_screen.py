"""Trust: who may sign what until when, who reads what comes back, devices that ended, devices that lack the newest keys.

It only shows. Changing keys is a ceremony of several people, so each page says the exact command for it.
"""

from __future__ import annotations

import numpy as np

from pumpdeck_console.operations.trust_rows import Exposure, KeysView, RecipientRow, RetiredLine, RoleKey
from pumpdeck_fleet.core.clock import DAY_MS, format_ms

from .cells import Parts
from .columns import age_column, count_column, sign_column, text_column
from .filtering import TEXTS, text_facts
from .lists_screen import Listing, ListsScreen
from .shell_words import command
from .texts import commands, heading, pairs, wrapped
from .virtual_table import TableView

ROLES = {
    "root": "says which keys count in every other role",
    "targets": "says who may release, who may deploy and who reads returns",
    "release": "signs packages; devices run nothing it did not sign",
    "deploy": "tells devices which released package to run",
}
EMPTY_KEYS = (
    "No site has a trust repository yet.",
    "",
    "Without one no device can be sent anything. Found it with: pumpdeck trust init",
    "It makes three root keys, two of which must sign; keep them apart from here.",
)
EMPTY_READERS = ("No site has a trust repository yet.", "", "pumpdeck trust init founds it, and says who reads returns.")
EMPTY_RETIRED = (
    "No device was retired.",
    "",
    "A device that is lost or scrapped is ended with: pumpdeck devices retire DEVICE",
    "Its key is believed no more, its history stays.",
)
EMPTY_BEHIND = (
    "Every enrolled device has the newest keys of its site.",
    "",
    "After a change of keys, those that lack it stand here.",
)
_HERE, _AWAY, _MINE = ("✓", "+", "here", "text"), ("–", "-", "", "dim"), ("✓", "+", "this workspace", "ok")


class TrustScreen(ListsScreen):
    """How the keys of every site stand."""

    NAME = "trust"
    QUESTIONS = ("keys",)
    KEYS = (("v", "next list"), ("Enter", "in full, with commands"), ("/", "filter"), ("s r", "sort"), ("c", "command"),
            ("x", "export"), ("q", "quit"))  # fmt: skip

    def source(self) -> object:
        return self.console.views.keys

    def summary(self) -> Parts:
        view = self.console.views.keys
        return trust_summary(view, self.console.now_ms()) if view is not None else []

    def listings(self) -> tuple[Listing, ...]:
        view, now_ms, glyphs = self.console.views.keys, self.console.now_ms(), self.console.glyphs
        assert view is not None
        return (keys_list(view, now_ms, glyphs), readers_list(view, glyphs), behind_list(view), retired_list(view, now_ms))


def trust_summary(view: KeysView, now_ms: int) -> Parts:
    """One line: what does not hold, what runs out, what is left to be done."""
    if view.damaged:
        site, sentence = view.damaged[0]
        return [(f" DOES NOT HOLD: {site}: {sentence}", "panel_alarm")]
    sites = len({row.site for row in view.keys})
    parts: list[tuple[str, str]] = [(f" {sites} sites founded", "panel")]
    if view.unfounded:
        parts.append((f", {len(view.unfounded)} not: {', '.join(view.unfounded[:3])}", "panel_drift"))
    if view.keys:
        first = min(view.keys, key=lambda row: row.expires_ms)
        parts.append((f"   first to run out: {first.role} of {first.site}, {left_text(first.expires_ms, now_ms)}", "panel"))
    warned = sum(bool(row.warning) for row in view.keys)
    parts.append((f"   {warned} warnings", "panel_drift") if warned else ("   no warning", "panel_ok"))
    return parts


def left_text(expires_ms: int, now_ms: int) -> str:
    """How long a signature still counts: `in 180 d`, `RAN OUT`."""
    left_ms = expires_ms - now_ms
    if left_ms <= 0:
        return "RAN OUT"
    return f"in {left_ms // DAY_MS} d" if left_ms >= 2 * DAY_MS else f"in {left_ms // 3_600_000} h"


def keys_list(view: KeysView, now_ms: int, glyphs: str) -> Listing:
    """Every key of every role of every site; those with a warning first."""
    rows = view.keys
    untils = [left_text(row.expires_ms, now_ms) for row in rows]
    expires = np.array([row.expires_ms for row in rows], dtype=np.int64)
    looks = ["alarm" if row.expires_ms <= now_ms else "drift" if row.warning else "text" for row in rows]
    columns = (
        text_column("until", "UNTIL", 9, untils, looks, align="right", priority=0,
                    sort_keys=(np.array([not row.warning for row in rows]), expires)),
        text_column("site", "SITE", 14, [row.site for row in rows], priority=0, min_width=10),
        text_column("role", "MAY SIGN", 8, [row.role for row in rows], "accent", priority=0),
        text_column("holder", "HOLDER", 20, [row.holder or "not noted" for row in rows], priority=0, min_width=12, grows=True),
        text_column("must", "SIGN", 6, [f"{row.threshold} of {row.keys}" for row in rows], align="right"),
        sign_column("here", "KEPT", 6, [_HERE if row.is_here else _AWAY for row in rows], glyphs),
        text_column("key", "KEY", 12, [row.key_id[:12] for row in rows], "dim", priority=2),
        text_column("warning", "WARNING", 20, [row.warning for row in rows], "drift", priority=3, grows=True),
    )  # fmt: skip
    texts = [f"{row.site} {row.role} {row.holder} {row.key_id} {row.warning} {'here' if row.is_here else ''}" for row in rows]
    keys = [f"{row.site} {row.role} {row.key_id}" for row in rows]
    return Listing("keys", "keys", TableView(columns, keys), text_facts(texts), TEXTS, EMPTY_KEYS,
                   lambda row, width: key_lines(rows[row], now_ms, width), lambda _row: command("trust", "status"),
                   "words of site, role, holder, key; here")  # fmt: skip


def key_lines(row: RoleKey, now_ms: int, width: int) -> list[Parts]:
    """One key: what it may do, until when, and what is done when it is lost, leaves or runs out."""
    key = row.key_id[:12]
    facts = [
        ("may", ROLES.get(row.role, "sign")),
        ("holder", row.holder or "not noted"),
        ("since", _day(row.since_ms)),
        ("metadata", f"version {row.version}, until {_day(row.expires_ms)} ({left_text(row.expires_ms, now_ms)})"),
        ("must sign", f"{row.threshold} of {row.keys}"),
        ("kept here", "yes, its public half lies in this computer's key folder" if row.is_here else "no"),
        *([("slot", str(row.slot))] if row.slot is not None else []),
        *([("renewed", "by every assignment that is signed with it")] if row.role == "deploy" else []),
    ]
    todo = [
        ("it was lost or stolen: refuse it everywhere", f"pumpdeck trust revoke {key}"),
        ("its holder changes", f"pumpdeck trust rotate {row.role} {key} NEW.pub --holder NAME"),
        ("note who holds it", f'pumpdeck trust name {row.site} {key} "NAME"'),
    ]
    if row.role != "deploy":
        todo.insert(2, ("it runs out: sign anew with the same keys", f"pumpdeck trust renew --site {row.site}"))
    lines: list[Parts] = [[(f" {row.role} of {row.site}", "panel_title")], *wrapped(row.key_id, width, "panel_dim")]
    lines += wrapped(row.warning, width, "panel_drift")
    return [*lines, [], *pairs(facts, width), *heading("what to do when"), *commands(todo, width)]


def readers_list(view: KeysView, glyphs: str) -> Listing:
    """Who may read what devices put on sticks."""
    rows = view.readers
    names = ["ANYBODY: returns are plain" if row.plain else row.name for row in rows]
    looks = ["drift" if row.plain else "text" for row in rows]
    columns = (
        text_column("site", "SITE", 14, [row.site for row in rows], priority=0),
        text_column("name", "MAY READ", 28, names, looks, priority=0, grows=True, min_width=16),
        sign_column("mine", "WHOSE", 16, [_MINE if row.is_mine else _AWAY for row in rows], glyphs),
        text_column("key", "KEY", 24, [row.key for row in rows], "dim", priority=2),
    )
    texts = [f"{row.site} {row.name} {row.key} {'plain anybody' if row.plain else ''}" for row in rows]
    keys = [f"{row.site} {row.name or '-'}" for row in rows]
    shell = command("trust", "recipient", "list")
    return Listing("readers", "readers", TableView(columns, keys), text_facts(texts), TEXTS, EMPTY_READERS,
                   lambda row, width: reader_lines(rows[row], width), lambda _row: shell)  # fmt: skip


def reader_lines(row: RecipientRow, width: int) -> list[Parts]:
    """Who may read the returns of one site, and how that is changed."""
    who = "anybody who finds the stick" if row.plain else row.name
    facts = [("site", row.site), ("may read", who), ("key", row.key or "-"),
             ("this workspace", "can read them" if row.is_mine or row.plain else "holds another key")]  # fmt: skip
    todo = [("let somebody read from now on", f"pumpdeck trust recipient add NAME age1.. --site {row.site}")]
    if row.name:
        gone = f"pumpdeck trust recipient remove {row.name} --site {row.site}"
        todo.append(("no longer; what is out already stays readable", gone))
    return [[(f" returns of {row.site}", "panel_title")], [], *pairs(facts, width), *heading("change it"), *commands(todo, width)]


def behind_list(view: KeysView) -> Listing:
    """Devices that are not known to have the newest keys."""
    rows = view.behind

    has = [f"root {row.root}, targets {row.targets}" if row.targets else "nothing known" for row in rows]
    needs = [f"root {row.needs_root}, targets {row.needs_targets}" for row in rows]
    columns = (
        text_column("device", "DEVICE", 18, [row.device for row in rows], priority=0, min_width=12),
        text_column("site", "SITE", 14, [row.site for row in rows], priority=0),
        text_column("link", "LINK", 7, [row.link for row in rows]),
        text_column("has", "HAS", 22, has, "drift", priority=0, grows=True),
        text_column("needs", "NEEDS", 22, needs),
    )
    texts = [f"{row.device} {row.site} {row.link}" for row in rows]
    return Listing("behind", "behind", TableView(columns, [row.device for row in rows]), text_facts(texts), TEXTS, EMPTY_BEHIND,
                   lambda row, width: behind_lines(rows[row], width), lambda _row: command("trust", "exposed"))  # fmt: skip


def behind_lines(row: Exposure, width: int) -> list[Parts]:
    """One device that may still believe a key that was revoked."""
    facts = [("site", row.site), ("link", row.link), ("has", f"root {row.root}, targets {row.targets}; 0 is not known"),
             ("needs", f"root {row.needs_root}, targets {row.needs_targets}")]  # fmt: skip
    todo = [("tell it over the network", f"pumpdeck collect device:{row.device}"),
            ("or on a stick", f"pumpdeck bundle export --for device:{row.device} --to DIR")]  # fmt: skip
    warning = "A key that was revoked since may still count on this device."
    lines: list[Parts] = [[(f" {row.device}", "panel_title")], *wrapped(warning, width, "panel_drift"), []]
    return [*lines, *pairs(facts, width), *heading("tell it"), *commands(todo, width)]


def retired_list(view: KeysView, now_ms: int) -> Listing:
    """Devices whose last key has ended."""
    rows = view.retired
    columns = (
        age_column("ended", "ENDED", [row.ended_ms for row in rows], now_ms, priority=0),
        text_column("device", "DEVICE", 18, [row.device for row in rows], priority=0, min_width=12),
        text_column("site", "SITE", 14, [row.site for row in rows], priority=0),
        text_column("why", "WHY", 24, [row.ended for row in rows], "dim", grows=True),
        count_column("receipts", "RECEIPTS", 8, [row.receipts for row in rows], priority=2),
        text_column("key", "KEY", 12, [row.key_id[:12] for row in rows], "dim", priority=3),
    )

    def shell(row: int | None) -> str:
        return command("devices", "history", rows[row].device) if row is not None else command("devices")

    texts = [f"{row.device} {row.site} {row.ended} {row.key_id}" for row in rows]
    table = TableView(columns, [row.device for row in rows])
    return Listing("retired", "retired", table, text_facts(texts), TEXTS, EMPTY_RETIRED,
                   lambda row, width: retired_lines(rows[row], width), shell)  # fmt: skip


def retired_lines(row: RetiredLine, width: int) -> list[Parts]:
    """One device that ended."""
    facts = [("site", row.site or "-"), ("enrolled", _day(row.enrolled_ms)), ("ended", _day(row.ended_ms)), ("why", row.ended),
             ("receipts", f"{row.receipts:,} stay as history"), ("key", row.key_id[:12])]  # fmt: skip
    todo = [("every key it had and what each signed", f"pumpdeck devices history {row.device}"),
            ("a device in its place", f"pumpdeck devices enrol {row.device}")]  # fmt: skip
    return [[(f" {row.device}", "panel_title")], [], *pairs(facts, width), *heading("look into it"), *commands(todo, width)]


def _day(at_ms: int) -> str:
    return format_ms(at_ms // 1000 * 1000)[:10] if at_ms > 0 else "-"
