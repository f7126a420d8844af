"""The mathematics of PCM-Net as pure functions of tensors.

Shapes, the same in every file: B images, N patches, Dv width of patch features, Dc width of CLIP's
joint space, D model width, C concepts in total, K retrieved concepts, M text slots, T words, V
vocabulary size.
"""
