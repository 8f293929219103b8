"""Who is calling: users, passwords, tokens, roles - and what is kept of each call (audit, idempotency keys).

Called by the API and the pages; the domain below never asks who is calling.
"""
