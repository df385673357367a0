"""Keeps the site told: what scoring changed, what people acknowledged, repeats and heartbeats. One object per `serve`."""

from __future__ import annotations

from collections.abc import Iterable

from pumpdeck_agent.alarm_outputs import Announcer, FileOutput, HookOutput, Output, Standing, SyslogOutput
from pumpdeck_agent.config import AgentConfig, Layout
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.pump_record import PumpFigures
from pumpdeck_agent.serve_settings import AlarmSettings
from pumpdeck_agent.site_alarms import AlarmBoard, Announcement, load_alarms, read_acknowledgements, save_alarms
from pumpdeck_fleet.core.receipts import AlarmNotice


def make_outputs(platform: Platform, layout: Layout, settings: AlarmSettings) -> list[Output]:
    """Those that the settings name."""
    outputs: list[Output] = []
    if settings.file:
        outputs.append(FileOutput(platform.fs, layout.root / settings.file))
    if settings.hook:
        outputs.append(HookOutput(settings.hook))
    if settings.syslog:
        outputs.append(SyslogOutput(settings.syslog))
    return outputs


class SiteWatch:
    """The board and the announcer together, driven by the service's loop: when the loop hangs, the heartbeat stops."""

    def __init__(
        self, platform: Platform, layout: Layout, config: AgentConfig, settings: AlarmSettings, announcer: Announcer
    ) -> None:
        self._platform = platform
        self._layout = layout
        self._device = config.device
        self._heartbeat_ms = round(settings.heartbeat_s * 1000)
        self._board = AlarmBoard(load_alarms(platform.fs, layout), round(settings.repeat_s * 1000))
        self._announcer = announcer
        self._beat_ms: int | None = None
        self._is_saved = True

    def begin(self, figures: dict[str, PumpFigures]) -> None:
        """Once, after a start: what changed meanwhile, and the first heartbeat."""
        self._say(self._board.reconcile(figures, self._platform.clock.now_ms()))
        self.tick(())

    def announce(self, changes: Iterable[AlarmNotice]) -> None:
        """Tell the site now; the board is saved with the next `tick`. Touches no disk."""
        now_ms = self._platform.clock.now_ms()
        self._pass_on(self._board.change(changes, now_ms))

    def tick(self, changes: Iterable[AlarmNotice]) -> None:
        """One pass. Raises: OSError: the disk did not take the board; everything was announced."""
        now_ms = self._platform.clock.now_ms()
        said = self._board.change(changes, now_ms) + self._board.repeats(now_ms)
        if self._beat_ms is None or not 0 <= now_ms - self._beat_ms < self._heartbeat_ms:
            self._beat_ms = now_ms
            self._announcer.say(Standing(self._device, now_ms, self._board.standing()))
        self._say(said)
        # Last, for it is all that needs the disk: a broken one must not keep an alarm from the site.
        for path, seen in read_acknowledgements(self._platform.fs, self._layout):
            if seen is not None:
                self._say(self._board.acknowledge(seen, now_ms))
            self._platform.fs.unlink(path)

    def close(self) -> None:
        """Let the outputs finish."""
        self._announcer.close()

    def _say(self, said: list[Announcement]) -> None:
        self._pass_on(said)
        if not self._is_saved:
            save_alarms(self._platform.fs, self._layout, self._board)
            self._is_saved = True

    def _pass_on(self, said: list[Announcement]) -> None:
        now_ms, standing = self._platform.clock.now_ms(), self._board.standing()
        for announcement in said:
            self._announcer.say(Standing(self._device, now_ms, standing, announcement))
            self._is_saved = False
