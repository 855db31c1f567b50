"""The table of distances between generated and real images, for every page that has one."""

from __future__ import annotations

from worker.metrics.distances import Distances
from worker.pages.page import Cell, Table, percent

COMPARABLE = "Compare them only with figures from the same network, the same data and the same number of images."


def table(found: Distances) -> Table:
    """Return what `worker.metrics.distances.measure` found, each figure with what it means."""
    kid, shape = found.kid, found.manifold
    kernel = f"{1000 * kid.mean:.3f} ± {1000 * kid.std:.3f}".replace("-", "−")
    rows: tuple[tuple[Cell, ...], ...] = (
        ("Fréchet distance", "between Gaussians fitted to both sets, squared; 0 is best", found.frechet),
        ("kernel distance", f"× 1,000, over {kid.subsets} subsets of {kid.size:,} images; 0 is best", kernel),
        ("precision", "generated images that lie among the real ones", percent(shape.precision)),
        ("recall", "real images that lie among the generated ones", percent(shape.recall)),
        ("density", "real neighbourhoods around a generated image; real images score 1", shape.density),
        ("coverage", "real images with a generated image nearby", percent(shape.coverage)),
        ("real images", f"{found.dimensions:,} features each, neighbourhoods of {shape.k}", found.real),
        ("generated images", "", found.generated),
    )
    return Table(("figure", "meaning", "value"), rows, words=2)
