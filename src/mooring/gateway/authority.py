"""Certificates for `--tls`: one that was given, or one of a local authority made at the first start."""

import datetime as dt
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mooring.errors import Misconfigured
from mooring.settings import AUTHORITY_CERTIFICATE, Listen

log = structlog.get_logger(__name__)

AUTHORITY_DAYS = 3650
LEAF_DAYS = 90
RENEW_DAYS = 30
"""Before its end a leaf is replaced, so that a gateway that was off for a month still has a valid one."""


def _now() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC)


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """An authority whose key never leaves `folder`; its leaf is for `domain` and everything one label below it."""

    folder: Path
    domain: str
    now: Callable[[], dt.datetime] = _now

    @property
    def certificate(self) -> Path:
        """What a person's browser must trust."""
        return self.folder / AUTHORITY_CERTIFICATE

    @property
    def chain(self) -> Path:
        """The leaf's chain, and its key."""
        return self.folder / "gateway.pem"

    def pem(self) -> str:
        """The leaf's chain and key as one PEM text; makes the authority and the leaf when they are missing or old.

        Raises:
            Misconfigured: the folder cannot be written, or holds something else.
        """
        with self._named():
            if not self._current():
                _write(self.chain, self._issue())
            return self.chain.read_text()

    def check(self) -> None:
        """Raise Misconfigured where `pem` would for what lies there; nothing is made."""
        with self._named():
            if not self._current():
                self._kept()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
            raise Misconfigured(f"the local authority in {self.folder}: {error}", field="tls") from error

    def _current(self) -> bool:
        if not self.chain.exists() or not self.certificate.exists():
            return False
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        if not _may_vouch(authority, self.domain, self.now()):
            return False
        pem = self.chain.read_bytes()
        if _unusable(pem, pem) is not None:
            # Its damage is no reason to serve nobody: it is made anew.
            return False
        found = x509.load_pem_x509_certificate(pem)
        if not _vouches(authority, found):
            return False
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        now = self.now()
        # One that counts later was made while the machine's clock was ahead.
        counts = found.not_valid_before_utc <= now < found.not_valid_after_utc - dt.timedelta(days=RENEW_DAYS)
        return self.domain in names.get_values_for_type(x509.DNSName) and counts

    def _kept(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
        """The authority that lies there, None when there is none or it may not vouch for this domain."""
        file = self.folder / "authority.key"
        if not self.certificate.exists() or not file.exists():
            return None
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{file} holds no elliptic curve key")  # noqa: TRY004 - of a file, not of an argument
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        # What it signs would be no leaf of that certificate, and be made anew at each look.
        if _public(certificate.public_key()) != _public(key.public_key()):
            remedy = f"put back the two that belong together, or type rm {file} for two that browsers must trust anew"
            raise ValueError(f"{file.name} is not the key of {self.certificate.name}: {remedy}")
        return (certificate, key) if _may_vouch(certificate, self.domain, self.now()) else None

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if (kept := self._kept()) is not None:
            return kept
        if self.certificate.exists():
            log.warning("the local authority is made anew, to be trusted anew", domain=self.domain)
        file = self.folder / "authority.key"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Mooring local authority for {self.domain}")
        made = _builder(name, name, key.public_key(), self.now(), AUTHORITY_DAYS)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # It can vouch for nothing but this domain, whoever gets hold of its key.
        permitted = x509.NameConstraints([x509.DNSName(self.domain)], None)
        made = made.add_extension(permitted, critical=True)
        made = made.add_extension(_usage(signs_certificates=True), critical=True)
        certificate = made.sign(key, hashes.SHA256())
        # Killed in between, the next start must not find it beside the new one's key.
        self.certificate.unlink(missing_ok=True)
        _write(file, _private(key))
        _write(self.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return certificate, key

    def _issue(self) -> bytes:
        issuer, issuer_key = self._authority()
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(self.domain), x509.DNSName(f"*.{self.domain}")]
        made = _builder(_name(self.domain), issuer.subject, key.public_key(), self.now(), LEAF_DAYS)
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(_usage(signs_certificates=False), critical=True)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        public = issuer_key.public_key()
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        leaf = made.sign(issuer_key, hashes.SHA256())
        encoding = serialization.Encoding.PEM
        return leaf.public_bytes(encoding) + issuer.public_bytes(encoding) + _private(key)


@dataclass(frozen=True, slots=True)
class GivenCertificate:
    """A chain and a key that the operator renews by replacing the files."""

    chain: Path
    key: Path

    def pem(self) -> str:
        """Both as one PEM text.

        Raises:
            Misconfigured: a file cannot be read, the key is not the certificate's, or OpenSSL takes neither.
        """
        where = f"certificate {self.chain}, key {self.key}"
        try:
            chain, key = self.chain.read_bytes(), self.key.read_bytes()
            why = _unusable(chain, key)
        except OSError as error:
            raise Misconfigured(f"{where}: {error}", field="tls") from error
        if why is not None:
            raise Misconfigured(f"{where}: {why}", field="tls")
        # Beside the blocks there may be names in any encoding, as `openssl pkcs12` writes them.
        return f"{chain.decode(errors='replace')}\n{key.decode(errors='replace')}"

    def check(self) -> None:
        """Raise Misconfigured where `pem` would."""
        self.pem()


Certificates = LocalAuthority | GivenCertificate


def certificates(listen: Listen, folder: Path) -> Certificates:
    """Where the certificate of a listener with TLS comes from; `folder` is the local authority's."""
    if listen.tls_certificate is not None and listen.tls_key is not None:
        return GivenCertificate(listen.tls_certificate, listen.tls_key)
    return LocalAuthority(folder, listen.domain)


# Asked twice a second, with the same answer for weeks.
@lru_cache(maxsize=1)
def _unusable(chain: bytes, key: bytes) -> str | None:
    """Why nobody could be shown this chain with this key.

    Raises:
        OSError: it cannot be tried now. Returned it would be the answer of weeks about a certificate that is good.
    """
    try:
        # To prove its primes takes an RSA key of 4,096 bits a second, in which nothing else of a process goes on.
        private = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
        certified = x509.load_pem_x509_certificate(chain).public_key()
        if _public(private.public_key()) != _public(certified):
            return "the key is not that of the certificate"
        _load(chain + b"\n" + key)
    except ssl.SSLError as error:
        # Instead of the good certificate before, each handshake would find this one and fail.
        return f"OpenSSL refuses them: {(error.reason or str(error)).lower().replace('_', ' ')}"
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return str(error)
    return None


def _load(pem: bytes) -> None:
    """Do what nginx does with it, by the same library. Raises ssl.SSLError, and OSError where it cannot be tried."""
    file = os.memfd_create("mooring-certificate")
    try:
        os.write(file, pem)
        # Without a password a second key, in the chain's file, would ask for its own on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"/proc/self/fd/{file}", password="")
    finally:
        os.close(file)


def _may_vouch(authority: x509.Certificate, domain: str, now: dt.datetime) -> bool:
    """Whether it was made for this domain or one above, and is not over: no client takes else (RFC 5280, 4.2.1.10)."""
    if authority.not_valid_after_utc < now:
        return False
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    above = [name.value for name in constraints.permitted_subtrees or () if isinstance(name, x509.DNSName)]
    return any(domain == name or domain.endswith(f".{name}") for name in above)


def _vouches(authority: x509.Certificate, leaf: x509.Certificate) -> bool:
    """Whether it signed the leaf: an authority whose files were put back, or one just made, did not."""
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _name(text: str) -> x509.Name:
    # A common name holds at most 64 characters (RFC 5280); the names that count are the alternative ones.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # Clocks of other machines may be behind.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public(key: object) -> bytes:
    assert hasattr(key, "public_bytes")  # noqa: S101 - each kind of key has it, their union does not say so
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file as a whole, readable by nobody else from its first byte on."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(data)
        file.flush()
        # The name would outlive a power cut and the key in it would not: no start would work any more.
        os.fsync(file.fileno())
    new.replace(path)
