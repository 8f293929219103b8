"""Fixtures of the tests that speak HTTP."""

from __future__ import annotations

from tests.live_service import admin, editor, nobody, service, viewer

__all__ = ["admin", "editor", "nobody", "service", "viewer"]
