"""Look at clouds, features, attention, spectra and training runs."""

from pointzoo.viz.classes import class_colors, classes_figure
from pointzoo.viz.confusion import confusion_figure
from pointzoo.viz.figures import (
    attention_figure,
    clouds_figure,
    spectrum_figure,
    training_figure,
)
from pointzoo.viz.render import pca_colors, render_cloud, render_image, write_png

__all__ = [
    "attention_figure",
    "class_colors",
    "classes_figure",
    "clouds_figure",
    "confusion_figure",
    "pca_colors",
    "render_cloud",
    "render_image",
    "spectrum_figure",
    "training_figure",
    "write_png",
]
