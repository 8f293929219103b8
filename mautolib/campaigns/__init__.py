"""Campaigns: one mail to many, asked for by an editor, written and handed over by the senders.

`store` keeps them, `launch` asks for sending, `planning` freezes content and audience, `sending` runs the pump that
hands over every message of the ledger, `finishing` closes what is done, `totals` counts from the ledger. The states
and their arrows are in `model`.
"""
