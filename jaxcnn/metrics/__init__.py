"""How well: metrics on the host, from predictions and truths."""
