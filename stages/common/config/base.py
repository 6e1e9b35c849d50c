"""Base class and value types of the sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator


def _not_all_zero(odds: list[float]) -> list[float]:
    if not any(odds):
        raise ValueError("all weights are 0; give at least one a positive value")
    return odds


Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]
Odds = Annotated[list[Weight], AfterValidator(_not_all_zero)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class Section(BaseModel):
    """A section of params.yaml: refuses unknown keys, infinities, and booleans where numbers belong."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation not in (bool, bool | None):
            raise ValueError(f"{str(value).lower()} is not allowed here")
        return value
