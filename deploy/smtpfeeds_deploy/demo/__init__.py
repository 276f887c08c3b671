"""The demo: runs the whole pipeline with simulated clients and checks the result."""
