"""Image files: find, decode and convert them."""
