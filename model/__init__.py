"""The network: CLIP vision encoder, projector, Llama decoder. Importing it registers the Auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText

from model.configuration import PROJECTORS, VlmConfig
from model.modeling import VlmForConditionalGeneration, build_model

AutoConfig.register(VlmConfig.model_type, VlmConfig)
AutoModelForImageTextToText.register(VlmConfig, VlmForConditionalGeneration)

__all__ = ["PROJECTORS", "VlmConfig", "VlmForConditionalGeneration", "build_model"]
