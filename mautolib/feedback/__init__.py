"""Feedback: what became of messages after the hand-over, told by providers and by bounce mails.

Notices are stored as they came, once, and applied once to the message they are about: states by the lattice
complaint > bounce > delivery > sent in whatever order they arrive, suppression by the reason. Called by the API
(notices over SNS) and by the DAG `feedback_processing`. It sends nothing.
"""

from mautolib.feedback.processing import Processed, process
from mautolib.feedback.receiving import Received, receive_sns
from mautolib.feedback.verdicts import Recomputed, recompute

__all__ = ["Processed", "Received", "Recomputed", "process", "receive_sns", "recompute"]
