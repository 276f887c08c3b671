"""The demo: the whole pipeline with simulated clients, checked."""
