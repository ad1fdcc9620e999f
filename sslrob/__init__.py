"""Robustness of self-supervised vision backbones."""
