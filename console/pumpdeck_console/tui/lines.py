"""The base of every widget here: it draws lines, caches them, repaints only what changed, and never raises.

An exception while a line is drawn would end the app, so a line that cannot be drawn becomes a line that says so.
"""

from __future__ import annotations

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from .cells import Parts, clean, strip_of
from .palette import NIGHT, Palette


class LinePane(Widget, inherit_bindings=False):
    """A widget drawn by ``draw_line``; subclasses call ``redraw`` after their state changed."""

    ALLOW_SELECT = False
    FILL = "text"
    """Name of the style under and beside the drawn parts."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: list[Strip | None] = []
        self._drawn_width = -1
        self.failure: Exception | None = None
        """What the last line that could not be drawn raised; tests assert that it stays ``None``."""

    @property
    def palette(self) -> Palette:
        palette = getattr(self.app, "palette", NIGHT)
        assert isinstance(palette, Palette)
        return palette

    @property
    def glyphs(self) -> str:
        """``braille``, ``block`` or ``ascii``."""
        return str(getattr(self.app, "glyphs", "braille"))

    def draw_line(self, y: int, width: int) -> Parts:
        """Line ``y`` as (text, style name) parts; longer lines are cut, shorter ones filled."""
        raise NotImplementedError

    def draw_strip(self, y: int, width: int) -> Strip:
        """Line ``y`` as a strip of exactly ``width`` cells."""
        styles = self.palette.styles
        parts = self.draw_line(y, width)
        return strip_of(((clean(text), styles[name]) for text, name in parts), width, styles[self.FILL])

    def redraw(self) -> None:
        """Repaint the lines whose picture is no longer true; none if nothing visible changed."""
        width, height = self.size
        if width != self._drawn_width or len(self._strips) != height:
            self.forget()
            return
        self.redraw_lines(*range(height))

    def redraw_lines(self, *ys: int) -> None:
        """Redraw these lines and repaint those that changed."""
        regions: list[Region] = []
        for y in ys:
            if not 0 <= y < len(self._strips):
                continue
            old = self._strips[y]
            if old is None:
                regions.append(Region(0, y, self._drawn_width, 1))
                continue
            new = self._safe_strip(y, self._drawn_width)
            end = _changed_width(old, new)
            if end:
                self._strips[y] = new
                regions.append(Region(0, y, end, 1))
        if regions:
            self.refresh(*regions)

    def forget(self) -> None:
        """Drop every cached line (size, theme or content changed as a whole) and repaint."""
        self._strips = []
        self._drawn_width = -1
        self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines in ``crop``; called by the compositor for whole widgets, so cached lines must cost nothing."""
        width, height = self.size
        if width != self._drawn_width or len(self._strips) != height:
            self._strips = [None] * height
            self._drawn_width = width
        lines = [self._line(y) for y in range(crop.y, crop.bottom)]
        if crop.x or crop.width != width:
            return [line.crop_extend(crop.x, crop.right, self.palette[self.FILL]) for line in lines]
        return lines

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        return self.render_lines(Region(0, y, self.size.width, 1))[0]

    def _line(self, y: int) -> Strip:
        if not 0 <= y < len(self._strips):
            return Strip.blank(self._drawn_width, self.palette[self.FILL])
        strip = self._strips[y]
        if strip is None:
            strip = self._strips[y] = self._safe_strip(y, self._drawn_width)
        return strip

    def _safe_strip(self, y: int, width: int) -> Strip:
        try:
            return self.draw_strip(y, width)
        except Exception as error:  # noqa: BLE001 - an exception here would end the app in front of the operator
            self.failure = error
            self.log.error(f"line {y} of {self!r} could not be drawn: {error!r}")
            return strip_of([(f"! cannot be drawn: {type(error).__name__}", self.palette["alarm"])], width,
                            self.palette[self.FILL])  # fmt: skip


def _changed_width(old: Strip, new: Strip) -> int:
    """Cells from the left edge to the end of the last change; 0 where the strips are equal."""
    before, after = list(old), list(new)
    if before == after:
        return 0
    end = new.cell_length
    while before and after and before[-1] == after[-1]:
        end -= _length(after.pop())
        before.pop()
    return max(1, end)


def _length(segment: Segment) -> int:
    return segment.cell_length
