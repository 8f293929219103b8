"""Calling every operation of the API: what it needs to succeed (`objects`), and the fuzzer (`api`)."""
