"""The centre: takes batches in, folds them into PostgreSQL, publishes the feeds, answers queries."""
