# pcm make-dataset CAPTIONS --recipe sd15_vitb32 --out data/mine
#
# Stable Diffusion 1.5 and OpenAI's CLIP ViT-B/32, similar to the data of PCM-Net's paper.
# SynthImgCap was made with "Stable Diffusion"; its version and settings are not published.

vocabulary = dict(min_count=5)
# The nouns of the captions. The prompts are most likely those of the released concept files:
# open_clip's set of seven. The paper names ["A photo of {}"].
concepts = dict(min_count=5, max_nouns=500, phrases=False, templates=["simple"])
generate = dict(
    pipeline="stable-diffusion-v1-5/stable-diffusion-v1-5",
    scheduler="DPMSolverMultistepScheduler",
    steps=20,
    guidance=7.5,
    size=512,
    dtype="float16",
    batch_size=16,
)
extract = dict(model="ViT-B-32-quickgelu", pretrained="openai", pool=1, batch_size=256)
# SynC with CLIP's own features: refine = dict(method="sync"). As released: sd15_vitb32_sync.py.
refine = None
# Photos without captions, to which SynC assigns captions: photos = dict(folder="photos"), with
# images="photos" without generated images in training. Or on the command line: --photos FOLDER.
# Captions that are held out, with their generated images, to choose checkpoints, unless --val names
# real images. By default: validation = dict(captions=500, max_share=0.05). None: no such captions.
