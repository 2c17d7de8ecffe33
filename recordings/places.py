"""URLs of places elsewhere than on the disk of the recordings; settings and remote.py read them."""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

OPTIONS: Final = ("region", "scheme", "endpoint_override", "tls_ca_file_path")
"""What the query of an s3:// URL may say, in the words of pyarrow.fs.S3FileSystem."""


def below(url: str, name: str) -> str:
    """Return the URL of a folder in the one of a URL, with the same options."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def split(url: str) -> tuple[str, str, dict[str, str]]:
    """Return the scheme, the path with its bucket, and the options of a URL.

    ValueError with a sentence for what is no such URL.
    """
    if "," in url:
        raise ValueError(f"{url[:80]!a} has a comma, which separates one folder from the next.")
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path != "/" and not parts.query:
        return "file", parts.path.rstrip("/"), {}
    if parts.scheme != "s3" or not parts.netloc or parts.fragment:
        raise ValueError(
            f"{url[:80]!a} is no place for recordings; write s3://bucket/prefix or file:///folder."
        )
    if "@" in parts.netloc:
        raise ValueError(
            "The URL of a bucket has no keys in it, since it is shown to people; give them as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise ValueError(f"{name[:40]!a} is no option of an s3:// URL; there are {known}.")
    return "s3", f"{parts.netloc}{parts.path.rstrip('/')}", options
