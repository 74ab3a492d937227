"""Helpers of Deep Learning Panorama."""
