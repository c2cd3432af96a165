"""Whom a download trusts, and what to say when a certificate does not pass. There is no way to switch the check off."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from cryptography import x509
from yarl import URL

from omi_edge.errors import ConfigError

_APPLE_BUNDLE = Path("/etc/ssl/cert.pem")
"""The system's certificates on macOS, which a Python from python.org does not look for by itself."""
_EXPIRED, _NOT_YET, _WRONG_HOST = 10, 9, 62
"""X509_V_ERR_CERT_HAS_EXPIRED, …_CERT_NOT_YET_VALID, …_HOSTNAME_MISMATCH (OpenSSL, x509_vfy.h)."""
_LONGEST = 120


def context(ca_file: str) -> ssl.SSLContext:
    """Return what checks certificates: against ``ca_file`` alone, or the system's store. Raises ConfigError."""
    if not ca_file:
        found = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        if not (paths.cafile or paths.capath) and _APPLE_BUNDLE.is_file():
            found.load_verify_locations(_APPLE_BUNDLE)
        return found
    try:
        return ssl.create_default_context(cafile=str(Path(ca_file).expanduser()))
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no certificate in it"
        raise ConfigError(f"models.ca_file {ca_file} cannot be used: {reason}; it must be a PEM file.") from error


async def refusal(error: ssl.SSLCertVerificationError, url: URL, proxy: str) -> str:
    """Say which certificate did not pass, why, and what to do."""
    code = error.verify_code
    if code in (_EXPIRED, _NOT_YET):
        cure = "look at this machine's clock; when it is right, the other side must renew its certificate"
    elif code == _WRONG_HOST:
        cure = "models.endpoint must be the name that the certificate is for"
    else:
        cure = (
            "when a mirror or proxy of your own signs it, put its authority's certificate into models.ca_file; "
            "otherwise somebody may stand in between"
        )
    shown, why = await _presented(url, proxy), _tame(error.verify_message)
    return f"the certificate of {url.host} did not pass ({why}): {shown}. Nothing was sent; {cure}."


async def _presented(url: URL, proxy: str) -> str:
    """Describe the certificate that the other side shows: subject, issuer and dates.

    The library keeps a refused certificate to itself, so it is asked for once more. This connection carries nothing but
    the greeting of TLS, and is closed then.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_mode = ssl.CERT_NONE  # to read the name on a certificate that was refused; nothing is sent over it
    through = URL(proxy) if proxy else url
    writer = None
    try:
        reader, writer = await asyncio.open_connection(through.host, through.port)
        if proxy:
            writer.write(f"CONNECT {url.host}:{url.port} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(asking, server_hostname=url.host)
        raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        found = x509.load_der_x509_certificate(raw)
        first, last = found.not_valid_before_utc, found.not_valid_after_utc
        return (
            f"subject {_tame(found.subject.rfc4514_string())}, issuer {_tame(found.issuer.rfc4514_string())}, "
            f"valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        )
    except (OSError, EOFError, ValueError, TypeError, asyncio.LimitOverrunError):
        return "it could not be read once more"
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _tame(text: str) -> str:
    """Return what a stranger wrote without what a terminal would obey, and not too long."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:_LONGEST]
