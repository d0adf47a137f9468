"""What the demo measured, as it stands in ``results.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.protocol.errors import ConfigurationError

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RoundTime(BaseModel):
    """Where one round's time went. All in seconds.

    Attributes:
        round: Its number, from 1.
        seconds: The whole round, as the researcher waited for it.
        waiting: For messages, queues and the slowest hospital.
        transfer: Parameters and updates on their way.
        training: At the hospitals.
        aggregation: At the researcher.
    """

    model_config = _STRICT

    round: int = Field(ge=1)
    seconds: float = Field(ge=0)
    waiting: float = Field(ge=0)
    transfer: float = Field(ge=0)
    training: float = Field(ge=0)
    aggregation: float = Field(ge=0)


class Egress(BaseModel):
    """What left one hospital, by its own record: messages and uploads, in number and bytes."""

    model_config = _STRICT

    messages: int = Field(ge=0)
    bytes: int = Field(ge=0)


class Hospital(BaseModel):
    """What stayed at one hospital.

    Attributes:
        name: As people call it.
        patients: How many of them have the label.
        held_out: How many of these were kept from training, to test on.
        data_bytes: The size of the file that never left.
    """

    model_config = _STRICT

    name: str
    patients: int = Field(ge=0)
    held_out: int = Field(ge=0)
    data_bytes: int = Field(ge=0)


class Results(BaseModel):
    """The demo's results.

    Every area under the ROC curve (AUC) is on the held-out patients of all hospitals together: the mean over the
    seeds, with the sample standard deviation (``_sd``) beside it.

    Attributes:
        federated_auc: The model trained by all hospitals together.
        pooled_auc: The same model on all records in one place, which the demo can do because its data are public.
        local_auc: By hospital: the same model on that hospital's records alone.
        federated_auc_by_round: The mean over the seeds after each round.
        rounds: The rounds of the first seed.
        egress: By hospital, over all seeds.
        seeds: The seeds, in their order.
        versions: Of python, torch, fedward, mosquitto and so on.
        hospitals: By hospital, for the report.
    """

    model_config = _STRICT

    federated_auc: float = Field(ge=0, le=1)
    federated_auc_sd: float = Field(ge=0)
    pooled_auc: float = Field(ge=0, le=1)
    pooled_auc_sd: float = Field(ge=0)
    local_auc: dict[str, float] = Field(min_length=1)
    local_auc_sd: dict[str, float]
    federated_auc_by_round: list[float] = Field(min_length=1)
    rounds: list[RoundTime] = Field(min_length=1)
    egress: dict[str, Egress]
    seeds: list[int] = Field(min_length=1)
    versions: dict[str, str]
    hospitals: dict[str, Hospital] = Field(default_factory=dict)

    @property
    def local_mean(self) -> float:
        """The mean AUC over the hospitals that train alone."""
        return sum(self.local_auc.values()) / len(self.local_auc)

    def name(self, hospital: str) -> str:
        """The hospital's name, or its id where no name is known."""
        known = self.hospitals.get(hospital)
        return known.name if known else hospital

    def write(self, path: Path) -> None:
        """Write ``results.json``."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read ``results.json``; raises ConfigurationError naming the file and the value that is wrong."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
