"""How fast a program runs here, beside its peers."""
