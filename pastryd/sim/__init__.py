"""Thousands of unmodified nodes under one virtual clock, from one seed (DESIGN sec. 9)."""
