"""The fault harness: it breaks parts under load, then compares the counts."""
