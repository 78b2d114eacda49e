"""Self-supervised, pretrained encoders for 3D point clouds, and the trainers that made them."""
