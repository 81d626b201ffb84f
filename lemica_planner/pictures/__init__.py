"""The report's pictures: drawn once as marks, written as SVG for the page or as PNG.

``chart_picture`` and ``heat_map`` make a `Picture`, a list of marks with places in pixels; ``svg`` and ``png`` write
it. Only ``png`` needs more than numpy, so nothing here imports it.
"""

from lemica_planner.pictures.chart import Chart, Point, Series
from lemica_planner.pictures.chart_picture import draw_chart
from lemica_planner.pictures.heat_map import draw_heat_map
from lemica_planner.pictures.marks import Picture
from lemica_planner.pictures.palette import tones_css
from lemica_planner.pictures.svg import draw_strip, to_svg

__all__ = [
    "Chart",
    "Picture",
    "Point",
    "Series",
    "draw_chart",
    "draw_heat_map",
    "draw_strip",
    "to_svg",
    "tones_css",
]
