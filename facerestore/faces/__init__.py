"""Geometry of faces: find them, cut them out upright, put them back."""
