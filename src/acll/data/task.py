"""What every task has, whatever its source."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from acll.settings import Kind, MetricName, Settings, Share, Size

if TYPE_CHECKING:
    from acll.data.manifest import Manifest


def _part(value: list[int]) -> list[int]:
    """Return [k, n]. Raises ValueError where there is no k-th of n parts."""
    if len(value) != 2 or not 1 <= value[0] <= value[1]:
        raise ValueError("must be two numbers, [k, n] with 1 ≤ k ≤ n")
    return value


ClassPart = Annotated[list[int], AfterValidator(_part)]


class Task(Settings):
    """Settings that every task has, whatever its source."""

    image_size: Size = Field(
        description="height and width in pixels to which images are resized; a number for both"
    )
    validation_share: Share = Field(
        0.15, description="share cut from `train` for validation where there is no `val`"
    )
    test_share: Share = Field(
        0.2, description="share cut from `train` for the test where there is no `test`"
    )
    split_seed: int = Field(
        0, ge=0, description="seed of these cuts; the seeds of the runs do not change them"
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="files that cannot be used: `stop`, or `skip` them and count them in the "
        "result",
    )
    duplicates: Literal["warn", "stop", "skip"] = Field(
        "warn",
        description="duplicates across splits: `warn`, `stop`, or `skip` those that are not in the "
        "test split",
    )
    tile_overlap: int | None = Field(
        None,
        ge=0,
        description="segmentation: cut images into tiles of `image_size`, overlapping by so many "
        "pixels, half of it at most, instead of resizing them; scores are those of the whole "
        "images",
    )
    part: ClassPart | None = Field(
        None,
        description="[k, n]: only the k-th of n parts of the classes, in their order; other "
        "pixels are ignored",
    )
    train_samples: int | None = Field(
        None, ge=2, description="use so many samples of the training split only"
    )
    noise: float = Field(
        0.0, ge=0, le=1, description="std of noise added to pixels, 1 being white; per image"
    )
    rotate: float = Field(0.0, description="degrees by which images are rotated, against the clock")
    permute: int | None = Field(
        None, ge=0, description="classification: seed of one order in which all pixels are put"
    )
    metric: MetricName | None = Field(
        None,
        description="what the choice of epochs, the search and all scores go by. Classification: "
        "`accuracy` (default), `balanced_accuracy`, `macro_f1`; segmentation: `mean_iou` "
        "(default), `mean_dice`, `pixel_accuracy`, `boundary_f1`",
    )
    training: dict[str, Any] = Field({}, description="keys of `training` that this task overrides")

    # whether raw data are read; else the package brings or makes the images
    from_files: ClassVar[bool] = True
    # whether all that is read lies at `path`, so that DVC can track it as one
    in_one_place: ClassVar[bool] = True
    if TYPE_CHECKING:  # each source has these of its own
        source: str
        kind: Kind
        path: str  # where raw data are read

    def manifest(self, root: Path) -> "Manifest":
        """Return the samples, before a pixel is read. root: the folder of raw data.

        Raises DataError.
        """
        raise NotImplementedError

    def raw_files(self, root: Path) -> list[Path]:
        """Return all files that are read, sorted; none where the package makes the images.

        Raises DataError.
        """
        return []

    def source_key(self) -> str:
        """Return the settings of the source as JSON: equal for tasks that read the same files."""
        return self.model_dump_json(exclude=set(Task.model_fields))


class RawData(Task):
    """Settings of every task whose raw data lie in files."""

    path: str = Field(description="the folder, or a .zip or .tar archive of it, below `data_root`")
    group: str | None = Field(
        None, description="regular expression; files whose match is equal stay in one split"
    )
