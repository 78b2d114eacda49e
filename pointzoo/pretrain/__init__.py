"""Self-supervised trainers."""
