"""What every section of params.yaml is: frozen, and an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
ConditionName = Literal["label", "text", "mask", "rna", "genotype", "magnification", "image"]
Key = Literal["patient_id", "slide_id", "spot_id"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guided(Section):
    """What is made under guidance."""

    guidance: Annotated[float, Field(ge=0)] | dict[ConditionName, Annotated[float, Field(ge=0)]] = Field(
        2.0, description="guidance scale, or one for each condition; 1 is none, 0 ignores the condition"
    )

    def scale(self, condition: str) -> float:
        return self.guidance.get(condition, 1.0) if isinstance(self.guidance, dict) else self.guidance
