from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.datasets.vocabulary import Vocabulary

__all__ = ["FeatureStore", "SynthCaptionDataset", "Vocabulary"]
