"""Configuration section `cluster`: which Ray a run's actors live in.

Owns: the knob and what an address may look like. Called by `controller.config`. Must not know: how it is joined.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from envs.settings import Section

LOCAL, AUTO = "local", "auto"


class ClusterSettings(Section):
    """Where a run's actors live."""

    address: str = Field(
        "",
        description='Ray that the actors live in: "" a private one on this machine; "local" what `t2po cluster up` '
        'started; host:port another one that runs; "auto" the one that RAY_ADDRESS or this machine names. Its token '
        "comes from RAY_AUTH_TOKEN_PATH and is never written down.",
    )

    @field_validator("address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        if address in ("", LOCAL, AUTO):
            return address
        host, colon, port = address.rpartition(":")
        if not colon or not host or "/" in address or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError('must be "", "local", "auto" or host:port of a running Ray, for example 10.0.0.5:6379')
        return address
