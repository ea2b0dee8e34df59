"""Certificates that the tests make themselves."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(name: str, *, ended: bool = False) -> tuple[bytes, bytes]:
    """(certificate, key) as PEM for one DNS name or address; valid for a day, or until a minute ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(tz=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + (dt.timedelta(minutes=-1) if ended else dt.timedelta(days=1)))
        .add_extension(x509.SubjectAlternativeName([_general(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), pem


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def certificate_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The same as two files in `folder`."""
    files = folder / "cert.pem", folder / "key.pem"
    for file, content in zip(files, self_signed(name), strict=True):
        file.write_bytes(content)
    return files


def server_context(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with such a certificate, and the file that a client must trust."""
    certificate, key = certificate_files(folder, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
