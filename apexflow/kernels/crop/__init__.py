"""Crops out of frames on a card: where the face is, interpolated to the size asked for.

On the CPU OpenCV does this (see `apexflow.engine.align`); the twins here agree with it within a
level. `gpu` holds the host code, ``crop.cu`` the kernels.
"""
