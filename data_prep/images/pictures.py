"""Decodes picture files completely, or refuses them with the reason."""

import io

from data_prep.formats.sources import SourceFileError

_MOST_PIXELS = 8192  # per side; a damaged header may claim more than fits into memory


def decode(contents: bytes, formats: tuple[str, ...] = ("JPEG",)):
    """Decodes the picture in a file's `contents`, in one of Pillow's `formats`: a PIL picture in RGB.

    Raises: SourceFileError if it is incomplete, damaged or of another format.
    """
    from PIL import Image, UnidentifiedImageError

    kind = " or ".join(formats)
    try:
        picture = Image.open(io.BytesIO(contents), formats=formats)
        if max(picture.size) > _MOST_PIXELS:
            raise SourceFileError(f"{picture.size} pixels; expected at most {_MOST_PIXELS} a side")
        return picture.convert("RGB")
    except SourceFileError:
        raise
    except UnidentifiedImageError as error:
        raise SourceFileError(f"not a {kind}") from error
    except Exception as error:  # Pillow raises anything from SyntaxError to struct.error on a damaged file
        raise SourceFileError(f"not a whole {kind} ({str(error) or repr(error)})") from error
