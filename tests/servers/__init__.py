"""Real servers for tests: RabbitMQ and PostgreSQL in private folders, and a proxy that cuts wires."""
