"""Pictures of lymph nodes become slides of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoloom.data.lymph_nodes import write_lymph_nodes


@pytest.mark.parametrize(("mpp", "side"), [(0.25, 16), (0.5, 8)])
def test_pictures_with_little_background_are_written_and_slides_held_out(tmp_path, mpp, side):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    rows = []
    for number in range(12):
        path = f"images/{number}.jpg"
        Image.fromarray(np.full((16, 16, 3), 9 * number, np.uint8)).save(data / path)
        background = 0.9 if number == 11 else 0.1
        rows.append({"path": path, "slide_id": f"s{number // 4}", "background_fraction": background})
    pd.DataFrame(rows).to_csv(data / "tiles.csv", index=False)
    write_lymph_nodes(tmp_path / "study", data, mpp)
    slides = pd.read_csv(tmp_path / "study/manifests/slides.csv", dtype={"slide_id": str})
    assert len(slides) == 11 and slides["slide_id"].is_unique and {*slides["mpp"]} == {mpp}
    assert slides.groupby("patient_id")["split"].agg(set).tolist() == [{"val"}, {"train"}, {"test"}]
    picture = Image.open(tmp_path / "study/data/slides" / slides["path"].iloc[-1])
    assert picture.size == (side, side) and abs(int(np.asarray(picture).mean()) - 90) < 3
