"""The files of a woven slide's folder."""

SLIDE = "slide.tif"
CONDITION = "condition.tif"
POLYGONS = "polygons.geojson"
THUMBNAIL = "thumbnail.jpg"
FACTS = "canvas.json"
