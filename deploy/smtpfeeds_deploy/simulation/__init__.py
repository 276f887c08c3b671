"""Simulated clients, their ledger, and the check of what was published."""
