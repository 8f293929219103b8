"""Statistics with their sources: intervals of rates, and how well a number tells two groups apart.

Pure functions over counts; they know nothing of contacts, scores or the database.
"""

from mautolib.statistics.discrimination import Area, area_under_curve
from mautolib.statistics.intervals import Interval, wilson

__all__ = ["Area", "Interval", "area_under_curve", "wilson"]
