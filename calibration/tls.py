"""The console's certificate: signed by itself, made at the first start, and replaced by putting other files there."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from calibration.durable import make_folders, write_durably
from calibration.errors import HotlapError

CERTIFICATE_NAME, KEY_NAME = "certificate.pem", "key.pem"
# A car without network does not know the date, so the certificate is valid whatever its clock says.
_VALID = (datetime.datetime(2020, 1, 1), datetime.datetime(2049, 12, 31))


class CertificateError(HotlapError, ValueError):
    """Certificate and key cannot be used."""


def ensure_certificate(folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """The certificate and its key; both are made where neither is there.

    Args:
        folder: where they are; made with mode 0700.
        names: host names and addresses that the new certificate is for, the first one is its subject.

    Returns:
        the paths of certificate and key, PEM.

    Raises:
        CertificateError: one of the two is missing, or they cannot be written.
    """
    certificate, key = folder / CERTIFICATE_NAME, folder / KEY_NAME
    if certificate.exists() and key.exists():
        return certificate, key
    if certificate.exists():
        raise CertificateError(
            f"{certificate} is there, {key.name} is not",
            cause="one of the two was deleted, or put there without the other",
            next_step=f"put {key.name} beside it, or delete both for a new certificate",
        )
    try:
        make_folders(folder)
        folder.chmod(0o700)
        key_pem, certificate_pem = self_signed(names)
        # The key first: a power cut leaves a key without a certificate, and the next start makes both anew.
        write_durably(key, key_pem, mode=0o600)
        write_durably(certificate, certificate_pem, mode=0o644)
    except OSError as error:
        raise CertificateError(
            f"the certificate cannot be written to {folder}: {error.strerror or error}", next_step=f"ls -ld {folder}"
        ) from error
    return certificate, key


def self_signed(names: Sequence[str]) -> tuple[bytes, bytes]:
    """A new key on P-256 and a certificate for these names, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    alternatives = [_general_name(name) for name in dict.fromkeys(names)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID[0])
        .not_valid_after(_VALID[1])
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and newer with this certificate.

    Raises:
        CertificateError: they do not belong together, or cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(os.fspath(certificate), os.fspath(key))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CertificateError(
            f"{certificate} and {key.name} cannot be used: {error}",
            cause="they do not belong together, or the key has a password or belongs to another user",
            next_step="put both there in PEM, the key without a password; or delete both for a new certificate",
        ) from error
    return context


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the first certificate in a PEM file, in hexadecimal digits.

    Raises:
        CertificateError: there is none in it.
    """
    try:
        pem = certificate.read_text()
        end = pem.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE-----") : end])
    except (OSError, ValueError) as error:
        raise CertificateError(f"there is no certificate in {certificate}: {error}") from error
    return hashlib.sha256(der).hexdigest()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
