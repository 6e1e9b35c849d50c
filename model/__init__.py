"""The network: CLIP vision encoder, projector, Llama decoder. Importing model.modeling registers the Auto classes."""
