"""The network: CLIP vision encoder, projector, Llama decoder."""
