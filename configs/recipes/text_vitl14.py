# pcm make-dataset CAPTIONS --recipe text_vitl14 --out data/mine
#
# text_vitb32.py with OpenAI's CLIP ViT-L/14.
_base_ = "./text_vitb32.py"

extract = dict(model="ViT-L-14-quickgelu", batch_size=128)
