from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.datasets.synth_image import SynthImageDataset
from pcm_plugin.datasets.vocabulary import Vocabulary

__all__ = ["FeatureStore", "SynthCaptionDataset", "SynthImageDataset", "Vocabulary"]
