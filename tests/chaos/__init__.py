"""Chaos: senders killed and frozen, databases restarted, and afterwards nobody lost and nobody mailed twice.

`make chaos` plays it at full size; `python -m tests.chaos --help` shows what can be changed. A short version is in
`make test` (tests/integration/test_sending_chaos.py).
"""
