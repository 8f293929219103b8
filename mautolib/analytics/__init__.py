"""Figures for people: cohort tables, and readers of schema `analytics` for the API, the dashboard and notebooks.

The views themselves are SQL files (`sql/views`). Everything here reads or restates; nothing counts up.
"""

from mautolib.analytics import cohorts, orders, refreshing, score_days

__all__ = ["cohorts", "orders", "refreshing", "score_days"]
