# flickr30k.py with target texts. Scores of this setting are not comparable with those of
# flickr30k.py.
_base_ = ["./flickr30k.py", "./parts/target_texts.py"]
