"""Filters that an operator wrote, against what tcpdump makes of them."""

import ctypes.util
import shutil
import subprocess

import pytest

from services.capture.frames import CaptureError
from services.capture.pcapfilter import LONGEST_FILTER, compile_filter

pytestmark = pytest.mark.skipif(ctypes.util.find_library("pcap") is None, reason="needs libpcap")


@pytest.mark.tshark
@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp port 80",
        "not port 22 and (net 10.0.0.0/8 or ip6)",
        "udp[8:2] & 0x8000 != 0",
        "vlan",
    ],
)
def test_the_program_is_the_one_that_tcpdump_makes(text: str) -> None:
    assert shutil.which("tcpdump")
    made = subprocess.run(
        ["tcpdump", "-y", "EN10MB", "-s", "65535", "-ddd", *text.split()],
        check=True,
        capture_output=True,
        text=True,
    )
    wanted = [tuple(map(int, line.split())) for line in made.stdout.splitlines()[1:]]
    assert list(compile_filter(text, 65535)) == wanted


@pytest.mark.parametrize("text", ["tcp prot 80", "port 99999", "host", "a" * 100])
def test_a_filter_that_is_wrong_is_told_with_the_reason(text: str) -> None:
    with pytest.raises(CaptureError, match=r"the capture filter '.*' is not right: .+"):
        compile_filter(text, 100)


@pytest.mark.parametrize("text", ["port 80\0", "port 80 or " * LONGEST_FILTER])
def test_a_filter_that_libpcap_should_not_see(text: str) -> None:
    with pytest.raises(CaptureError, match="at most"):
        compile_filter(text, 100)
