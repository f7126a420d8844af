# coco.py with target texts. Scores of this setting are not comparable with those of coco.py.
_base_ = ["./coco.py", "./parts/target_texts.py"]
