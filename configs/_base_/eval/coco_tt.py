# As coco.py, with target texts: figures of this setting cannot be compared with those without.
_base_ = ["./coco.py", "./parts/target_texts.py"]
