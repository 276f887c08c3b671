"""One host, and the demo: starts the programs as an operator would; imports neither of them."""
