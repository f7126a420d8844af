"""CLIP features of images and captions."""
