# As flickr30k.py, with target texts: figures of this setting cannot be compared with those without.
_base_ = ["./flickr30k.py", "./parts/target_texts.py"]
