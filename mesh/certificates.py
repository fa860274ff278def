"""Certificates of the mesh: a private authority, and one certificate for each role that it signs.

A certificate says its role twice: as a DNS name, by which a caller knows that it reached the service it meant, and as a SPIFFE id,
by which a server knows who calls. It names no hosts: where a service runs is for the registry to say, and any machine may run any.
Pure: times are passed in, and files are the caller's business.
"""

import datetime
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_NAME = "Tidings mesh authority"
_URI = "spiffe://tidings/"
_SKEW = datetime.timedelta(minutes=5)  # between the clock of the machine that signs and those that check


class CertificateError(ValueError):
    """A certificate or key that can't be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def certificate_pem(self) -> bytes:
        """As a PEM file has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """As a PEM file has it, without a pass phrase: whoever reads it has the role."""
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(pem, pkcs8, serialization.NoEncryption())


def dns_name(role: str) -> str:
    """What a caller demands of the certificate it is shown."""
    return f"{role}.tidings"


def uri(role: str) -> str:
    """What a server reads its caller's role from."""
    return _URI + role


def role_of_uri(text: str) -> str:
    """The role in a SPIFFE id; empty when it is not one of this mesh."""
    return text.removeprefix(_URI) if text.startswith(_URI) else ""


def role_of(certificate: x509.Certificate) -> str:
    """The role that a certificate gives; empty when it gives none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return role_of_uri(uris[0]) if len(uris) == 1 else ""


def new_authority(now: datetime.datetime, days: int) -> Pair:
    """An authority that signs roles' certificates, and no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(AUTHORITY_NAME)
    builder = _builder(name, name, key, now, now + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, role: str, now: datetime.datetime, days: int) -> Pair:
    """A certificate for a role, with a new key; it ends with its authority at the latest."""
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + datetime.timedelta(days=days), authority.certificate.not_valid_after_utc)
    builder = _builder(_name(role), authority.certificate.subject, key, now, end)
    names = x509.SubjectAlternativeName([x509.DNSName(dns_name(role)), x509.UniformResourceIdentifier(uri(role))])
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(both, critical=False)
    builder = builder.add_extension(names, critical=False).add_extension(signer, critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def read_certificate(pem: bytes, name: str) -> x509.Certificate:
    """The first certificate of a PEM file; `name` says which file, for the error.

    Raises:
        CertificateError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CertificateError(f"{name} holds no certificate: it should begin with -----BEGIN CERTIFICATE-----") from None


def read_pair(certificate_pem: bytes, key_pem: bytes, name: str) -> Pair:
    """A certificate and its key; `name` says whose, for the error.

    Raises:
        CertificateError: one can't be read, or they don't belong together.
    """
    certificate = read_certificate(certificate_pem, f"the certificate of {name}")
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise CertificateError(f"the key of {name} can't be read: give it in PEM and without a pass phrase") from None
    if key.public_key() != certificate.public_key():
        raise CertificateError(f"certificate and key of {name} don't belong together: take both from the same folder")
    return Pair(certificate, cast(CertificateIssuerPrivateKeyTypes, key))


def check(certificate: x509.Certificate, authority: x509.Certificate, role: str, now: datetime.datetime) -> None:
    """Whether a mesh of this authority will take a certificate for a role.

    Raises:
        CertificateError: it won't; says why.
    """
    found = role_of(certificate)
    if found != role:
        raise CertificateError(f"this certificate is for {found or 'no role of a mesh'}, not for {role}: give {role} its own")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateError(f"the certificate of {role} is not from this authority: take both from the same folder") from None
    for one, whose in ((certificate, role), (authority, "the authority")):
        if now >= one.not_valid_after_utc:
            ended = f"the certificate of {whose} ended on {one.not_valid_after_utc:%Y-%m-%d}"
            raise CertificateError(f"{ended}: make a new one with `tidings certs renew`, or init for the authority")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Signs certificates, or else connections."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
