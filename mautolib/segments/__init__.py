"""Segments: who belongs to an audience, decided by rules that one interpreter compiles to SQL."""
