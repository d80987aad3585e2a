"""Pictures of what a trainer will see: contact sheets and self-contained HTML pages."""

from volprep.preview.augment import render_preview
from volprep.preview.page import Cell, Page, Row

__all__ = ["Cell", "Page", "Row", "render_preview"]
