"""Pure functions that judge what comes in: who made a hit, what a bounce means. No database, no network."""
