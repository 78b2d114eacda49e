"""What features are good for: probes, descriptor baselines, training with labels."""
