"""The mathematics of PCM-Net as pure functions: tensors in, tensors out.

Shapes, the same in every file: B images, N patches, Dv patch width, Dc width of CLIP's joint
space, D model width, C concepts of the vocabulary, K kept concepts, M mixed patches, T words,
V vocabulary size.
"""
