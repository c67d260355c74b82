"""The error of a raster, in a file of its own because all that reads rasters raises it."""

from base.errors import InputError


class RasterError(InputError):
    """A raster that cannot be used; names file, finding, expectation and remedy."""
