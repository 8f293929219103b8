"""The send ledger: one row per person and intention, for every kind of message, sent once.

`content` freezes what is sent, `queue` writes intentions, `claim` takes due ones under a lease, `record` writes what
became of an attempt, `skip` gives intentions up, `settle` resolves doubts, `journal` survives the death of a sender,
`check` proves the result. Nothing here opens a connection to a mail server.
"""
