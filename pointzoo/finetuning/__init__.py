"""Train a head, adapters or everything on labelled clouds; save it; use it on new ones.

The package is not called like its function: importing it must not hide :func:`pointzoo.finetune`.
"""
