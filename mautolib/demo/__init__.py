"""The demo: a made-up shop with eighteen months of history, and the main job run on it for everyone to see.

Everything is generated and deterministic (seeded; dates count back from today). All addresses lie in reserved
domains and mail only ever reaches the local sink. Run with `python -m mautolib.demo`.
"""
