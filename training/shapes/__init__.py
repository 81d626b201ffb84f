"""The moving-shapes world: captions, a video generator, a checker, and the programs that train on them.

Knows nothing about serving. Models trained here are written in the standard diffusers layout.
"""
