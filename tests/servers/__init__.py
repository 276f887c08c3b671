"""Real servers for tests, RabbitMQ and PostgreSQL, and a proxy that cuts connections to them."""
