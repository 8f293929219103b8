"""What happened: the vocabulary of events, appending them, tracking links, and the hits those links bring.

Events are the only history: scores, rates and cohorts are recomputed from them. Called by every domain that has
something to tell; reads of events for people live with their faces and in schema `analytics`.
"""
