"""Certificates as entries show them. Until TLS 1.2 they can be read (RFC 5246, 7.4.2)."""

import functools
import warnings
from datetime import datetime
from typing import Any

from cryptography import x509

from services.capture.dissectors.tls.reader import Reader, TruncatedError

MOST_CERTIFICATES = 16  # of a chain; a usual one has three
MOST_NAMES = 256  # in a certificate; those of large sites have a hundred
LONGEST_NAME = 1024
MOST_KNOWN = 256  # certificates whose description is remembered: a server sends the same ones

Json = dict[str, Any]


def chain(message: bytes, is_whole: bool) -> list[Json]:
    """Return the certificates of a Certificate message, as far as it was captured."""
    found: list[Json] = []
    try:
        reader = Reader(message)
        length = reader.number(3)
        while len(found) < MOST_CERTIFICATES and reader.at < 3 + length:
            found.append(_described(reader.vector(3)))
    except TruncatedError:
        if is_whole:
            found.append({"error": "the chain of certificates ends too early"})
    return found


@functools.lru_cache(MOST_KNOWN)
def _described(der: bytes) -> Json:
    with warnings.catch_warnings():  # about serial numbers and the like, which are not our concern
        warnings.simplefilter("ignore")
        try:
            certificate = x509.load_der_x509_certificate(der)
            return {
                "subject": certificate.subject.rfc4514_string()[:LONGEST_NAME],
                "issuer": certificate.issuer.rfc4514_string()[:LONGEST_NAME],
                "notBefore": _time(certificate.not_valid_before_utc),
                "notAfter": _time(certificate.not_valid_after_utc),
                "sans": _names(certificate),
                "serialNumber": f"{certificate.serial_number:x}",
            }
        except (ValueError, TypeError, x509.InvalidVersion) as error:
            return {"error": f"the certificate cannot be read: {error}"[:LONGEST_NAME]}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the alternative names of the subject: of hosts, addresses, mailboxes, URIs."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []
    except x509.UnsupportedGeneralNameType:
        return []
    found = []
    for name in list(names)[:MOST_NAMES]:
        if isinstance(name, x509.DirectoryName):
            found.append(name.value.rfc4514_string()[:LONGEST_NAME])
        elif not isinstance(name, x509.OtherName):
            value = name.value
            text = value.dotted_string if isinstance(value, x509.ObjectIdentifier) else str(value)
            found.append(text[:LONGEST_NAME])
    return found
