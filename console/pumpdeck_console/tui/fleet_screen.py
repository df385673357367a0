"""The fleet: sites on the left, pumps in the middle, one pump on the right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from textual.app import ComposeResult
from textual.binding import Binding
from textual.timer import Timer

from pumpdeck_console.operations.views import FleetView, site_nodes
from pumpdeck_fleet.core.errors import PumpdeckError

from .console_screen import ConsoleScreen
from .fleet_table import fleet_table
from .pump_pane import PumpPane
from .selecting import kind_mask, site_mask
from .shell_words import pumps_command
from .site_tree import SiteTree
from .virtual_table import VirtualTable

REST_S = 0.15
"""How long the cursor rests on a pump before its rows are read."""
PANES_FROM = 110
"""Width from which the site tree and the detail pane stand beside the table."""
WIDE_FROM = 150
EMPTY_FLEET = (
    "No pumps in this workspace yet.",
    "",
    "pumpdeck demo                       a living sample fleet to look around in",
    "pumpdeck init DIR                   a workspace of your own; describe it in fleet.toml",
    "pumpdeck ingest FILE --pump P-101A  rows from CSV or Parquet files",
)
EMPTY_FILTER = ("No pump matches.", "", "/ then Enter changes the filter, / then Esc clears it.")
Mask = npt.NDArray[np.bool_]


class FleetScreen(ConsoleScreen):
    """Browse sites and pumps; filter, sort, open one."""

    NAME = "fleet"
    KEYS = (("/", "filter"), (":", "jump"), ("s r", "sort"), ("t", "sites"), ("d", "pump"), ("T", "train"), ("Tab", "pane"),
            ("c", "command"), ("x", "export"), ("^p", "palette"), ("q", "quit"))  # fmt: skip
    FILTER_HINT = "p-101   site:gannet type:esp   health>=stale or drift>0.2   (? has more)"
    BINDINGS = [
        Binding("t", "toggle_tree", "show or fold the site tree", show=False),
        Binding("d", "toggle_pump", "show or fold the pump pane", show=False),
        Binding("T", "train", "train a model for this pump type", show=False),
        Binding("escape", "clear_filter", "clear filter and site", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._filter = ""
        self._filter_mask: Mask | None = None
        self._wants_tree: bool | None = None
        self._wants_pump: bool | None = None
        self._rest: Timer | None = None
        self._shown: FleetView | None = None

    def compose_body(self) -> ComposeResult:
        yield SiteTree()
        yield VirtualTable(id="pumps")
        yield PumpPane()

    @property
    def table(self) -> VirtualTable:
        return self.query_one("#pumps", VirtualTable)

    @property
    def sites(self) -> SiteTree:
        return self.query_one(SiteTree)

    @property
    def pane(self) -> PumpPane:
        return self.query_one(PumpPane)

    # Views

    def show_views(self) -> None:
        view = self.console.views.fleet
        if view is not None and view is not self._shown:
            self._shown = view
            self.sites.show(site_nodes(view))
            self._filter_mask = self._mask_of(self._filter, view)
            self.table.empty_lines = EMPTY_FLEET if not view.fleet_size else EMPTY_FILTER
            self.table.show(fleet_table(view, self.console.glyphs, self.console.now_ms), self._mask(view))
            self._show_count()
            self._ask_pump()
        detail = self.console.views.pump
        if detail is not None and detail.pump_id == self.table.cursor_key and detail is not self.pane.detail:
            self.pane.show(detail)

    def _mask(self, view: FleetView) -> Mask | None:
        """Filter and site together; ``None`` when neither is set."""
        masks = [] if self._filter_mask is None else [self._filter_mask]
        chosen = self.sites.chosen
        if chosen is not None and chosen.kind == "site":
            masks.append(site_mask(view, chosen.name))
        elif chosen is not None and chosen.kind == "group":
            masks.append(kind_mask(view, "" if chosen.name == "other" else chosen.name))
        return np.logical_and.reduce(masks) if masks else None

    def _show_count(self) -> None:
        view = self._shown
        if view is None:
            return
        shown = len(self.table.order)
        count = f"{shown:,} pumps" if shown == len(view) else f"{shown:,} of {len(view):,}"
        self.show_right(f"{count}  /{self._filter}" if self._filter else count)

    # Filter

    def filter_text(self) -> str:
        return self._filter

    def apply_filter(self, text: str) -> None:
        view = self._shown
        text = text.strip()
        if view is None:
            self._filter = text
            return
        try:
            self._filter_mask = self.console.selector(view, text) if text else None
        except PumpdeckError as error:
            self.show_right(f"? {error.what}")
            return
        self._filter = text
        self.table.keep(self._mask(view))
        self._show_count()

    def _mask_of(self, text: str, view: FleetView) -> Mask | None:
        try:
            return self.console.selector(view, text) if text else None
        except PumpdeckError:
            return None

    def action_clear_filter(self) -> None:
        self.sites.choose("fleet", "all sites")
        self.apply_filter("")

    def on_site_tree_chosen(self) -> None:
        if self._shown is not None:
            self.table.keep(self._mask(self._shown))
            self._show_count()

    # One pump

    def on_virtual_table_cursor_moved(self, event: VirtualTable.CursorMoved) -> None:
        event.stop()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST_S, self._ask_pump)

    def _ask_pump(self) -> None:
        key = self.table.cursor_key
        if key is not None and self.pane.display:
            self.console.ask_pump(key)
        elif key is None:
            self.pane.show(None)

    def on_virtual_table_opened(self, event: VirtualTable.Opened) -> None:
        event.stop()
        if not self.pane.display:
            self.action_toggle_pump()
        self.pane.focus()

    def jump_to(self, word: str) -> bool:
        view = self._shown
        if view is None:
            return False
        lowered = word.lower()
        if lowered in view.sites.words:
            self.sites.choose("site", lowered)
            self.on_site_tree_chosen()
            return True
        found = next((i for i, tag in enumerate(view.tags) if tag.lower() == lowered), None)
        if found is None:
            found = next((i for i, pump_id in enumerate(view.pump_ids) if lowered in pump_id.lower()), None)
        if found is None:
            return False
        if not self.table.move_to_key(view.pump_ids[found]):
            self.action_clear_filter()
            self.table.move_to_key(view.pump_ids[found])
        return True

    def command(self) -> str:
        chosen = self.sites.chosen
        site = chosen.name if chosen is not None and chosen.kind == "site" else ""
        pump = self.table.cursor_key if self.pane.has_focus else None
        return pumps_command(self._filter, site, pump or "")

    def action_train(self) -> None:
        view, row = self._shown, self.table.cursor_row
        if view is not None and row is not None:
            self.console.plan("train", {"pump_type": view.types[row]})

    # Room

    def on_resize(self) -> None:
        self._share_room()

    def on_mount(self) -> None:
        self._share_room()
        super().on_mount()

    def action_toggle_tree(self) -> None:
        self._wants_tree = not self.sites.display
        self._share_room()
        (self.sites if self.sites.display else self.table).focus()

    def action_toggle_pump(self) -> None:
        self._wants_pump = not self.pane.display
        self._share_room()
        if not self.pane.display:
            self.table.focus()
        self._ask_pump()

    def _share_room(self) -> None:
        """Give tree and pane their room; on a narrow terminal the pane takes the table's place."""
        width = self.app.size.width
        is_narrow = width < PANES_FROM
        self.sites.display = self._wants_tree if self._wants_tree is not None else not is_narrow
        self.pane.display = self._wants_pump if self._wants_pump is not None else not is_narrow
        self.sites.styles.width = 26 if width >= WIDE_FROM else 22
        self.table.display = not (is_narrow and self.pane.display and width < 90)
        self.pane.styles.width = "1fr" if not self.table.display else max(40, width * 36 // 100 - 4)
