# python tools/test.py configs/pcm_toy_town2country.py work_dirs/pcm_toy/best_*.pth
#
# The cross-domain setting: weights of the town, images and concepts of the country.
_base_ = "./pcm_toy.py"

model = dict(neck=dict(concepts="data/toy/country/concepts.safetensors"))
test_dataloader = dict(
    dataset=dict(store="data/toy/country/test_store", data_prefix="data/toy/country/images")
)
