"""Semantic segmentation for sslrob, through mmsegmentation."""
