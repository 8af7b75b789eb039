"""A tile store as a torch Dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import zarr
from torchvision import tv_tensors

from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.data.store import TileStore

Item = dict[str, Any]


class TileDataset(torch.utils.data.Dataset[Item]):
    """Tiles of a store, one by one, for a DataLoader with any number of workers, forked or spawned.

    An item is a dict: `image`, a tv_tensors.Image (3, h, w) uint8; `mask`, a tv_tensors.Mask (h, w) of class ids, where masks are asked for;
    `label`, the number of the tile's class, where classes are named; `row`, its number in `rows`. torchvision's transforms (v2) take such a
    dict, and turn image and mask alike.

    Attributes
    ----------
    rows : a table with a row for each item.
    """

    def __init__(
        self,
        store: TileStore | str | Path,
        rows: pd.DataFrame | None = None,
        *,
        classes: Sequence[str] | None = None,
        mask: bool = False,
        transform: Callable[[Item], Item] | None = None,
    ):
        """Open a store.

        Parameters
        ----------
        store : a store, or its folder.
        rows : some of `store.rows()`; unstated, all.
        classes : labels in the order of their numbers. Every row must have one of them.
        mask : whether items have masks. 255 stands for pixels that nobody knows.
        transform : called with each item.

        Raises
        ------
        HistoloomError
            when there is no store, it has no masks, or a row has no label among the classes.
        """
        from histoloom.data.store import TileStore

        self.store = store if isinstance(store, TileStore) else TileStore(store)
        self.rows = (self.store.rows() if rows is None else rows).reset_index(drop=True)
        self.mask, self.transform = mask, transform
        if lacking := {"part", "index"} - {*self.rows}:
            raise HistoloomError(f"rows lacks the column '{min(lacking)}'. Take rows of `store.rows()`.")
        if mask and not self.store.has_everywhere("mask"):
            raise HistoloomError(f"{self.store.folder} has no masks. Leave mask out, or cut its tiles with tile.masks.")
        self._labels = None if classes is None else self._numbers(classes)
        self._parts, self._index = self.rows["part"].to_numpy(), self.rows["index"].to_numpy()
        self._arrays: dict[tuple[str, str], zarr.Array] = {}  # opened once a process

    def _numbers(self, classes: Sequence[str]) -> np.ndarray:
        """(n,) class numbers."""
        labels = self.rows["label"].to_numpy(object)
        numbers = pd.Index(classes).get_indexer(labels)
        if (wrong := numbers < 0).any():
            first = labels[wrong][0]
            has = f"the label '{first}'" if isinstance(first, str) else "no label"
            raise HistoloomError(
                f"{wrong.sum():,} of {len(wrong):,} rows have no label among {', '.join(classes)}; the first has {has}. "
                "Select rows, such as rows[rows['label'].isin(classes)], or name more classes."
            )
        return numbers

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Item:
        if not -len(self) <= number < len(self):
            raise IndexError(f"{number} is no number of an item: there are {len(self)}.")
        number %= len(self)
        part, index = self._parts[number], int(self._index[number])
        image = self._read(part, index, "image")
        item: Item = {"image": tv_tensors.Image(image.permute(2, 0, 1).contiguous()), "row": number}
        if self.mask:
            item["mask"] = tv_tensors.Mask(self._read(part, index, "mask"))
        if self._labels is not None:
            item["label"] = int(self._labels[number])
        return item if self.transform is None else self.transform(item)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_arrays": {}}

    def _read(self, part: str, index: int, name: str) -> torch.Tensor:
        if (part, name) not in self._arrays:
            self._arrays[part, name] = self.store.array(part, name)
        return torch.from_numpy(np.array(self._arrays[part, name][index]))
