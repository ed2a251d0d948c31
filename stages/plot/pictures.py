"""Pictures as files: PNGs, and a GIF."""

from collections.abc import Callable, Iterable, Iterator

from PIL import Image

from stages.runtime import files


def write_picture(path: str, image: Image.Image) -> None:
    """Write the image as a lightly compressed PNG: faster than Pillow's default, and a fifth larger."""
    with files.writing(path) as file:
        image.save(file, "PNG", compress_level=1)


def write_pictures(
    paths: list[str], images: Iterator[Image.Image], advance: Callable[[int], None]
) -> Iterator[Image.Image]:
    """Write each image to its path, call `advance(1)`, and yield the image, as it is requested."""
    for path, image in zip(paths, images, strict=True):
        write_picture(path, image)
        advance(1)
        yield image


def write_animation(path: str, frames: Iterable[Image.Image], seconds: float) -> None:
    """Write the frames as a GIF that repeats forever and shows each frame for so many seconds, rounded to 0.01 s.

    Pillow merges equal frames in a row into one, shown for the sum of their times, which must be at most 655.35 s. The
    GIF is not optimized: that would take fourteen times as long, for a quarter of the size.
    """
    frames = iter(frames)
    options = {"duration": seconds * 1000, "loop": 0, "optimize": False}
    with files.writing(path) as file:
        next(frames).save(file, "GIF", save_all=True, append_images=frames, **options)
