"""The section `report`."""

from __future__ import annotations

from histoloom.config.base import Positive, Section


class Report(Section):
    title: str = "histoloom report"
    """heading of the page"""
    tiles_shown: Positive = 32
    """tiles in each contact sheet"""
