import pytest

from recordings import places


def test_a_bucket_with_its_options():
    url = "s3://bucket/a/b/?scheme=http&endpoint_override=127.0.0.1:9000&region=eu-west-1"
    options = {"scheme": "http", "endpoint_override": "127.0.0.1:9000", "region": "eu-west-1"}
    assert places.split(url) == ("s3", "bucket/a/b", options)
    assert places.split("s3://bucket") == ("s3", "bucket", {})


def test_a_folder():
    assert places.split("file:///srv/archive/") == ("file", "/srv/archive", {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "/srv",
        "s3://",
        "s3:///prefix",
        "s3://bucket/a#b",
        "file:///",
        "file://host/a",
        "file:///a?scheme=http",
        "gs://bucket/a",
        "https://bucket.s3.amazonaws.com/a",
    ],
)
def test_what_is_no_place(url):
    with pytest.raises(ValueError, match="is no place for recordings; write s3://bucket/prefix"):
        places.split(url)


def test_keys_do_not_belong_into_a_url():
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as raised:
        places.split("s3://key:secret@bucket/a")
    assert "secret" not in str(raised.value).replace("AWS_SECRET", "").lower()


def test_a_comma_would_be_two_folders():
    with pytest.raises(ValueError, match="has a comma"):
        places.split("s3://bucket/a,b")


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match="'anonymous' is no option of an s3:// URL; there are reg"):
        places.split("s3://bucket/a?anonymous=1")
