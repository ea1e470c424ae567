"""Experiments that compare the norms: measured once, saved as JSON, rendered as often as wished.

`compare` measures, `results` holds what was measured, `summary` and `table` derive figures and words
from it, `report` and `terminal` show them. Only normkit's public API is used, as a user would.
"""
