"""Channels: the ways a finished message leaves this house.

`protocol` is what every channel promises, `registry` the list of them, `wire` the last checks of an address and a
message. Every channel passes the same contract suite. A channel reports what became of each message; it writes no
database row and decides nothing about retries.
"""
