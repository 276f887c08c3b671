"""The centre: takes batches in, folds them into PostgreSQL, publishes feeds, answers queries."""
