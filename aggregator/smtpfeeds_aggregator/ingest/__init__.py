"""From deliveries to rows: check, fold, origin, store. Every batch counts exactly once."""
