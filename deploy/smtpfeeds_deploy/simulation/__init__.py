"""Simulated clients, their ledger, and the check of the published files."""
