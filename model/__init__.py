"""The network: CLIP vision encoder, projector, Llama decoder. ``import model`` makes it known to transformers' Auto
classes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from transformers.models.auto import auto_mappings

# AutoConfig.register needs the configuration class and so torch, which takes seconds to import; stages that only count
# tokens do without. So only its name is entered, in the table that AutoConfig has or will copy when it is imported. To
# load a checkpoint of this type, AutoConfig takes the named class from the module transformers.models.<type>: the one
# below, which imports ours, which registers the model class.
MODEL_TYPE = "vlm_curriculum"  # that of model.vlm.configuration.VlmConfig


class _ConfigModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name != "VlmConfig":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        from model.vlm.modeling import VlmConfig

        return VlmConfig


_table = sys.modules.get("transformers.models.auto.configuration_auto", auto_mappings)
_table.CONFIG_MAPPING_NAMES[MODEL_TYPE] = "VlmConfig"
sys.modules[f"transformers.models.{MODEL_TYPE}"] = _ConfigModule(f"transformers.models.{MODEL_TYPE}")
