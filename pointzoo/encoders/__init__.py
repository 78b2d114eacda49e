"""Architectures: a config, blocks and an encoder each."""
