"""Where the replay queue's server is: `queue.url` with the credentials and the certificate that it needs, and the URL
as it may be shown.

Owns: the environment variables with user and password, hiding them, and the names of a run's keys. Called by
`controller.train` and `controller.monitoring` (the whole address), by the replay queue (the keys), by whatever prints a
configuration or an error (the shown one). Must not know: Redis, connections.

A password is never written anywhere: not into logs, errors, `t2po config` or the run folder. A run whose URL had one
is resumed with the password in the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

USER, PASSWORD = "T2PO_QUEUE_USER", "T2PO_QUEUE_PASSWORD"
HIDDEN = "***"


class QueueAddressError(ValueError):
    """An address that cannot be completed; names the URL (password hidden), the cause and the remedy."""


def queue_address(url: str, ca_file: str, environment: Mapping[str, str] = os.environ) -> str:
    """`url` with what it leaves out: user and password from the environment, the CA file that it is trusted by.

    What the URL says itself goes before the environment. Raises QueueAddressError when the password was hidden and
    the environment has none, and for a CA file that cannot be read or has no use.
    """
    shown = hidden_password(url)
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        user, password = parts.username or "", parts.password or ""
        _ = parts.port
    except ValueError as error:
        raise QueueAddressError(f"queue.url = {shown}: {error}; write rediss://user@host:port/db") from error
    given = dict(query).get("password", password)
    if given in ("", HIDDEN):
        secret = environment.get(PASSWORD, "")
        if given == HIDDEN and not secret:
            raise QueueAddressError(
                f"queue.url = {shown}: its password is not kept in the run folder; set {PASSWORD} and resume again"
            )
        user = user or quote(environment.get(USER, ""), safe="")
        password = quote(secret, safe="")
        query = [(name, value) for name, value in query if name != "password"]
        place = parts.netloc.rpartition("@")[2]
        if parts.scheme == "unix":  # has no place for them before the path
            query += [("username", user)] if user else []
            query += [("password", secret)] if secret else []
        elif user or password:
            parts = parts._replace(netloc=f"{user}:{password}@{place}" if password else f"{user}@{place}")
    if ca_file:
        if parts.scheme != "rediss":
            raise QueueAddressError(f"queue.ca_file = {ca_file!r}: queue.url = {shown} has no TLS; write rediss://…")
        path = Path(ca_file).expanduser().absolute()
        try:
            path.open("rb").close()
        except OSError as error:
            raise QueueAddressError(f"queue.ca_file = {path}: {error.strerror}; name a readable PEM file") from error
        query = [*((name, value) for name, value in query if name != "ssl_ca_certs"), ("ssl_ca_certs", str(path))]
    text = urlencode(query, quote_via=quote, safe="/")
    if parts.scheme == "unix":  # urlunsplit would write one slash
        return f"unix://{parts.path}?{text}" if text else f"unix://{parts.path}"
    return urlunsplit(parts._replace(query=text))


def queue_key(run_id: str, name: str) -> str:
    """The name of one of a run's keys on the server. One hash tag: all keys of a run lie on one node of a cluster, as
    scripts and transactions demand."""
    return f"t2po:{{{run_id}}}:{name}"


def hidden_password(url: str) -> str:
    """The URL as it may be shown: the password, also one in the query, replaced by ***."""
    url = re.sub(r"://([^:/@]*):.*@", rf"://\1:{HIDDEN}@", url)
    return re.sub(r"([?&][^=&]*pass[^=&]*)=[^&]*", rf"\1={HIDDEN}", url)
